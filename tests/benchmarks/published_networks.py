"""Networks of the published latencies that torchvision has not, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mobilenet_v1() -> nn.Module:
    """MobileNet v1, width 1.0 (Howard et al. 2017, table 1)."""
    layers: list[nn.Module] = []

    def convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
        padding = kernel // 2
        layers.extend(
            [
                nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU6(),
            ]
        )

    convolution(3, 32, 3, 2)
    width = 32
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for outputs, stride in plan:
        convolution(width, width, 3, stride, groups=width)
        convolution(width, outputs, 1, 1)
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


def _conv(
    given: int, made: int, kernel: int = 1, stride: int = 1, groups: int = 1,
    act: type[nn.Module] | None = nn.SiLU,
    dilation: int = 1,
) -> nn.Sequential:  # fmt: skip
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(given, made, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(made), *([] if act is None else [act()]))


class _Receptive(nn.Module):
    """Receptive field block: three branches of growing dilation, joined, and a shortcut (Liu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner, relu = width // 8, nn.ReLU
        self.branches = nn.ModuleList(
            nn.Sequential(
                _conv(width, inner, act=None),
                *(_conv(*sizes, 3, act=relu) for sizes in between),
                _conv(2 * inner, 2 * inner, 3, act=None, dilation=dilation),
            )
            for between, dilation in (
                ([(inner, 2 * inner)], 2),
                ([(inner, 2 * inner)], 3),
                ([(inner, inner // 2 * 3), (inner // 2 * 3, 2 * inner)], 5),
            )
        )
        self.join = _conv(6 * inner, width, act=None)
        self.shortcut = _conv(width, width, act=None)

    def forward(self, x: Tensor) -> Tensor:
        joined = self.join(torch.cat([branch(x) for branch in self.branches], 1))
        return torch.relu(joined + self.shortcut(x))


class UltraFace(nn.Module):
    """Ultra-light face detector RFB-320: a slim MobileNet v1 with four heads."""

    def __init__(self) -> None:
        super().__init__()
        relu = nn.ReLU

        def separable(given: int, made: int, stride: int = 1) -> list[nn.Module]:
            return [_conv(given, given, 3, stride, given, relu), _conv(given, made, act=relu)]

        base = 16
        self.first = nn.Sequential(
            _conv(3, base, 3, 2, act=relu), *separable(base, 2 * base), *separable(2 * base, 2 * base, 2),
            *separable(2 * base, 2 * base), *separable(2 * base, 4 * base, 2), *separable(4 * base, 4 * base),
            *separable(4 * base, 4 * base), _Receptive(4 * base),
        )  # fmt: skip
        self.second = nn.Sequential(*separable(64, 128, 2), *separable(128, 128), *separable(128, 128))
        self.third = nn.Sequential(*separable(128, 256, 2), *separable(256, 256))
        self.fourth = nn.Sequential(_conv(256, 64, act=relu), *separable(64, 256, 2))
        self.heads = nn.ModuleList()
        for width, anchors in ((64, 3), (128, 2), (256, 2)):
            for values in (2, 4):
                depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
                self.heads.append(nn.Sequential(depthwise, nn.ReLU(), nn.Conv2d(width, anchors * values, 1)))
        self.heads.extend(nn.Conv2d(256, 3 * values, 3, padding=1) for values in (2, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        levels = []
        for stage in (self.first, self.second, self.third, self.fourth):
            x = stage(x)
            levels.append(x)
        made = [head(levels[place // 2]) for place, head in enumerate(self.heads)]
        scores, boxes = (
            torch.cat([y.permute(0, 2, 3, 1).reshape(1, -1, values) for y in made[start::2]], 1)
            for start, values in ((0, 2), (1, 4))
        )
        return torch.softmax(scores, 2), boxes


class _Bottleneck(nn.Module):
    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        inner = int(width * share)
        self.layers = nn.Sequential(_conv(width, inner, 3), _conv(inner, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Deep(nn.Module):
    """Two bottlenecks beside a 1x1 convolution (C3k)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.first, self.beside, self.join = _conv(width, inner), _conv(width, inner), _conv(2 * inner, width)
        self.blocks = nn.Sequential(_Bottleneck(inner, 1.0), _Bottleneck(inner, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.blocks(self.first(x)), self.beside(x)], 1))


class _Partial(nn.Module):
    """Half of the channels go through a block, all are joined (C3k2 with one repetition)."""

    def __init__(self, given: int, made: int, *, deep: bool, share: float = 0.5) -> None:
        super().__init__()
        inner = int(made * share)
        self.first, self.join = _conv(given, 2 * inner), _conv(3 * inner, made)
        self.block = _Deep(inner) if deep else _Bottleneck(inner, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.first(x).chunk(2, 1)
        return self.join(torch.cat([one, two, self.block(two)], 1))


class _Pyramid(nn.Module):
    """Three poolings in a row, all joined (SPPF)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.join = _conv(width, width // 2), _conv(2 * width, width)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.first(x)]
        for _ in range(3):
            levels.append(self.pool(levels[-1]))
        return self.join(torch.cat(levels, 1))


class _Attention(nn.Module):
    """Half of the channels go through attention over positions and a feed-forward part (C2PSA)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.heads = inner // 64
        self.first, self.join = _conv(width, 2 * inner), _conv(2 * inner, width)
        self.qkv = _conv(inner, 2 * inner, act=None)
        self.position = _conv(inner, inner, 3, groups=inner, act=None)
        self.project = _conv(inner, inner, act=None)
        self.forward_part = nn.Sequential(_conv(inner, 2 * inner), _conv(2 * inner, inner, act=None))

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.first(x).chunk(2, 1)
        _, width, high, wide = two.shape
        parts = self.qkv(two).view(1, self.heads, 128, high * wide)
        query, key, value = parts.split([32, 32, 64], 2)
        weights = ((query.transpose(-2, -1) @ key) * 32**-0.5).softmax(-1)
        seen = (value @ weights.transpose(-2, -1)).view(1, width, high, wide)
        two = two + self.project(seen + self.position(value.reshape(1, width, high, wide)))
        return self.join(torch.cat([one, two + self.forward_part(two)], 1))


class Yolo11(nn.Module):
    """YOLO11 for 80 classes (Ultralytics' model description), boxes decoded; ``share`` is the width."""

    def __init__(self, share: float) -> None:
        super().__init__()
        c = [int(w * share) for w in (64, 128, 256, 512, 1024)]
        self.early = nn.Sequential(
            _conv(3, c[0], 3, 2), _conv(c[0], c[1], 3, 2), _Partial(c[1], c[2], deep=False, share=0.25),
            _conv(c[2], c[2], 3, 2), _Partial(c[2], c[3], deep=False, share=0.25),
        )  # fmt: skip
        self.middle = nn.Sequential(_conv(c[3], c[3], 3, 2), _Partial(c[3], c[3], deep=True))
        self.late = nn.Sequential(
            _conv(c[3], c[4], 3, 2), _Partial(c[4], c[4], deep=True), _Pyramid(c[4]), _Attention(c[4])
        )
        self.up = nn.Upsample(scale_factor=2)
        self.to_middle = _Partial(c[4] + c[3], c[3], deep=False)
        self.to_early = _Partial(2 * c[3], c[2], deep=False)
        self.down_middle = _conv(c[2], c[2], 3, 2)
        self.out_middle = _Partial(c[2] + c[3], c[3], deep=False)
        self.down_late = _conv(c[3], c[3], 3, 2)
        self.out_late = _Partial(c[3] + c[4], c[4], deep=True)
        levels = (c[2], c[3], c[4])
        box, score = max(16, c[2] // 4, 64), max(c[2], 80)
        self.boxes = nn.ModuleList(
            nn.Sequential(_conv(w, box, 3), _conv(box, box, 3), nn.Conv2d(box, 64, 1)) for w in levels
        )
        self.scores = nn.ModuleList(
            nn.Sequential(
                _conv(w, w, 3, groups=w), _conv(w, score), _conv(score, score, 3, groups=score),
                _conv(score, score), nn.Conv2d(score, 80, 1),
            )
            for w in levels
        )  # fmt: skip
        self.register_buffer("bins", torch.arange(16, dtype=torch.float32).view(1, 16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        middle = self.middle(early)
        late = self.late(middle)
        joined = self.to_middle(torch.cat([self.up(late), middle], 1))
        first = self.to_early(torch.cat([self.up(joined), early], 1))
        second = self.out_middle(torch.cat([self.down_middle(first), joined], 1))
        third = self.out_late(torch.cat([self.down_late(second), late], 1))
        heads = zip((first, second, third), self.boxes, self.scores, strict=True)
        made = [torch.cat([boxes(y), scores(y)], 1).flatten(2) for y, boxes, scores in heads]
        boxes, scores = torch.cat(made, 2).split([64, 80], 1)
        sides = (boxes.view(1, 4, 16, -1).transpose(1, 2).softmax(1) * self.bins).sum(1)
        low, high = sides.chunk(2, 1)
        return torch.cat([(high - low) / 2, low + high, scores.sigmoid()], 1)


def yolo11n() -> nn.Module:
    """The smallest."""
    return Yolo11(0.25)


def yolo11s() -> nn.Module:
    """The second smallest."""
    return Yolo11(0.5)
