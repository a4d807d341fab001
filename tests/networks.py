"""Toy networks, each with one pattern that coupling must understand, and how pruning is checked on them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.artifacts.choices import CouplingOptions
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.fx import tensor_leaves
from edgeprune.pruning.masking import full_masks, mask_module
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.splitting import SplitImages, split_images

IMAGE = (3, 8, 8)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A captured float64 network with its coupling and a switch on every player."""

    captured: CapturedModel
    coupling: CouplingGraph
    images: Tensor

    def removal(self, group: int) -> tuple[int, ...]:
        """Every second player of a group, so that what goes is not contiguous.

        Nobody of a lone player's group: it may stand for all channels of a layer.
        """
        players = self.coupling.groups[group].players
        return tuple(players[::2])[: len(players) - 1]

    def removals(self, *, groups_at_once: int = 1) -> list[tuple[int, ...]]:
        """A removal for every group (or few side by side) with players to spare, and one of all together."""
        alone = [r for g in range(len(self.coupling.groups)) if (r := self.removal(g))]
        several = [alone[i : i + groups_at_once] for i in range(0, len(alone), groups_at_once)]
        return [tuple(sorted(p for r in part for p in r)) for part in (*several, alone) if part]


def make_case(
    module: nn.Module,
    input_shape: tuple[int, ...] = IMAGE,
    *,
    batch: int = 2,
    trained: bool = False,
    options: CouplingOptions | None = None,
) -> Case:
    """Capture, couple and turn to float64; parameters are random unless the module is ``trained``."""
    if not trained:
        randomise(module, input_shape)
    captured = capture(module.eval(), input_shape)
    coupling = couple(captured, options)
    captured.graph_module.double()
    images = torch.randn((batch, *input_shape), dtype=torch.float64)
    return Case(captured=captured, coupling=coupling, images=images)


@functools.cache
def toy(factory: Callable[[], nn.Module]) -> Case:
    """The case of a toy network, made once a session from its own seed; nobody changes it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_case(factory())


def randomise(module: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Random affine parameters; normalisation statistics are the true ones of random images.

    With other statistics signals fade on their way through a deep network, and any two would agree.
    """
    norms = [n for n in module.modules() if isinstance(n, nn.BatchNorm2d | nn.BatchNorm1d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.reset_running_stats()
        norm.momentum = None
    module.train()
    with torch.no_grad():
        module(torch.randn((16, *input_shape)))
    module.eval()


@torch.no_grad()
def masked_outputs(
    case: Case, removals: Sequence[tuple[int, ...]], *, rows_at_once: int = 48
) -> list[list[Tensor]]:
    """Outputs of the original network with each removal masked: all in few passes, a coalition a row."""
    count = len(case.images)
    masked = mask_module(case.captured, case.coupling)
    found: list[list[Tensor]] = []
    for start in range(0, len(removals), max(1, rows_at_once // count)):
        several = removals[start : start + max(1, rows_at_once // count)]
        masks = full_masks(count * len(several), case.coupling.num_players, dtype=case.images.dtype)
        for place, removed in enumerate(several):
            masks[place * count : (place + 1) * count, list(removed)] = 0
        outputs = tensor_leaves(masked(torch.cat([case.images] * len(several)), masks))
        found += [list(parts) for parts in zip(*(o.split(count) for o in outputs), strict=True)]
    return found


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Largest differences over all outputs, relative to each output's largest value.

    ``deviation`` is that of pruned from masked, ``effect`` that of masked from the original.
    """

    removed: tuple[int, ...]
    deviation: float
    effect: float


def compare(case: Case, removals: Sequence[tuple[int, ...]]) -> list[Comparison]:
    """Mask and prune each removal alone. Two constants agree, too: look at ``effect`` as well."""
    with torch.no_grad():
        original = tensor_leaves(case.captured.graph_module(case.images))
        rows = []
        for removed, masked in zip(removals, masked_outputs(case, removals), strict=True):
            pruned = tensor_leaves(prune(case.captured, case.coupling, removed)(case.images))
            row = Comparison(
                removed=removed, deviation=distance(masked, pruned), effect=distance(original, masked)
            )
            rows.append(row)
    return rows


def distance(expected: list[Tensor], got: list[Tensor]) -> float:
    """Largest difference over all outputs, relative to each output's largest value."""
    assert [a.shape for a in expected] == [b.shape for b in got]
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(expected, got, strict=True))


def counted_macs(module: nn.Module, images: Tensor) -> int:
    """MACs per image as torch's own counter finds them while the network runs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(images)
    return counter.get_total_flops() // 2 // len(images)


def split(images: Tensor, seed: int = 0) -> SplitImages:
    """Images to recover with."""
    return split_images(images, torch.Generator().manual_seed(seed))


def conv_bn(inputs: int, outputs: int, **options: int) -> nn.Sequential:
    """3 x 3 convolution without bias, batch norm, ReLU."""
    options = {"kernel_size": 3, "padding": 1, **options}
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Network(nn.Module):
    """Layers by name and a forward function, so that each toy network is a few lines."""

    def __init__(
        self, forward: Callable[[Network, Tensor], Tensor], **layers: nn.Module | nn.Parameter
    ) -> None:
        super().__init__()
        self._run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self, x)


def head(channels: int, classes: int = 5) -> nn.Sequential:
    """Global average pooling and a classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def chain() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), conv_bn(8, 6), head(6))


def chain_without_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.Tanh(), nn.Conv2d(8, 6, 3, bias=True), nn.ReLU(), head(6)
    )


def residual_add() -> nn.Module:
    return Network(
        lambda m, x: m.head(functional.relu(m.second(m.first(y := m.stem(x))) + y)),
        stem=conv_bn(3, 8),
        first=conv_bn(8, 6),
        second=nn.Sequential(nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)),
        head=head(8),
    )


class ResidualBlock(nn.Module):
    """Block of He et al. 2015 for CIFAR-10, shortcut option A: strided slice, zero padding of channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self._strided = stride != 1 or inputs != outputs
        self._pad = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self._strided:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self._pad, self._pad))
        return functional.relu(y + x)


def padded_shortcut() -> nn.Module:
    return nn.Sequential(conv_bn(3, 6), ResidualBlock(6, 10, 2), ResidualBlock(10, 10, 1), head(10))


def concat() -> nn.Module:
    return Network(
        lambda m, x: m.head(m.joined(torch.cat([m.left(x), m.right(x)], dim=1))),
        left=conv_bn(3, 4),
        right=conv_bn(3, 6),
        joined=conv_bn(10, 8),
        head=head(8),
    )


def concat_of_image() -> nn.Module:
    """The image itself is joined with channels: its part of the next layer stays."""
    return Network(
        lambda m, x: m.head(m.joined(torch.cat([m.left(x), x], dim=1))),
        left=conv_bn(3, 4),
        joined=conv_bn(7, 8),
        head=head(8),
    )


def concat_flatten_linear() -> nn.Module:
    return Network(
        lambda m, x: m.classifier(torch.flatten(torch.cat([m.left(x), m.right(x)], dim=1), 1)),
        left=conv_bn(3, 4, stride=2),
        right=conv_bn(3, 6, stride=2),
        classifier=nn.Linear(10 * 16, 5),
    )


def depthwise(multiplier: int = 1) -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 6),
        nn.Conv2d(6, 6 * multiplier, 3, padding=1, groups=6),
        nn.BatchNorm2d(6 * multiplier),
        nn.ReLU6(),
        nn.Conv2d(6 * multiplier, 4, 1),
        nn.ReLU(),
        head(4),
    )


def depthwise_multiplier() -> nn.Module:
    return depthwise(2)


def grouped_convolution() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 12, 3, groups=2), nn.ReLU(), conv_bn(12, 6), head(6))


def squeeze_excitation() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        y = m.stem(x)
        gate = torch.sigmoid(m.expand(functional.relu(m.squeeze(y.mean((2, 3), keepdim=True)))))
        return m.head(m.last(y * gate))

    return Network(
        run, stem=conv_bn(3, 8), squeeze=nn.Conv2d(8, 4, 1), expand=nn.Conv2d(4, 8, 1),
        last=conv_bn(8, 6), head=head(6),
    )  # fmt: skip


def chunk_and_concat() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        a, b = m.stem(x).chunk(2, dim=1)
        return m.head(m.last(torch.cat([a, m.branch(b)], dim=1)))

    return Network(run, stem=conv_bn(3, 12), branch=conv_bn(6, 4), last=conv_bn(10, 6), head=head(6))


def uneven_split() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        a, b = m.stem(x).split([3, 7], dim=1)
        return m.head(torch.cat([m.left(a), m.right(b)], dim=1))

    return Network(run, stem=conv_bn(3, 10), left=conv_bn(3, 4), right=conv_bn(7, 4), head=head(8))


def channel_shuffle() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        y = m.stem(x)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return m.head(m.last(y))

    return Network(run, stem=conv_bn(3, 12), last=conv_bn(12, 6), head=head(6))


def used_twice() -> nn.Module:
    return Network(
        lambda m, x: m.head(m.shared(m.shared(m.stem(x)))),
        stem=conv_bn(3, 8),
        shared=conv_bn(8, 8),
        head=head(8),
    )


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(conv_bn(3, 16), nn.PixelShuffle(2), conv_bn(4, 6), head(6))


def layer_scale() -> nn.Module:
    return Network(
        lambda m, x: m.head((y := m.stem(x)) + m.scale * m.branch(y)),
        stem=conv_bn(3, 8),
        branch=conv_bn(8, 8),
        scale=nn.Parameter(torch.rand(8, 1, 1) + 0.5),
        head=head(8),
    )


def tokens() -> nn.Module:
    """Channels as tokens' features: linear layers on (N, T, C)."""
    return Network(
        lambda m, x: m.head(functional.gelu(m.up(m.stem(x).flatten(2).transpose(1, 2))).mean(1)),
        stem=conv_bn(3, 8),
        up=nn.Linear(8, 12),
        head=nn.Linear(12, 5),
    )


def channels_last() -> nn.Module:
    """Permute to channels-last, linear layers there, and back (as in ConvNeXt, without the norm)."""
    return Network(
        lambda m, x: m.head(m.down(functional.gelu(m.up(m.stem(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)),
        stem=conv_bn(3, 8),
        up=nn.Linear(8, 12),
        down=nn.Linear(12, 6),
        head=head(6),
    )


def prelu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 6, 3), nn.PReLU(), head(6))


def activations() -> nn.Module:
    """Activations that are not zero at zero come before the mask, so they do no harm."""
    names = (nn.Hardswish, nn.SiLU, nn.Sigmoid, nn.ELU, nn.Mish, nn.Hardsigmoid, nn.LeakyReLU, nn.Softplus)
    layers = [layer for name in names for layer in (nn.Conv2d(4, 4, 1), name())]
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), *layers, head(4))


def spatial_padding() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8), nn.ConstantPad2d((1, 0, 2, 1), 0.5), nn.ReflectionPad2d(1), conv_bn(8, 6), head(6)
    )


def channel_padding_with_a_constant() -> nn.Module:
    """Zero-like channels of value 0.5 join the next layer and stay."""
    return Network(
        lambda m, x: m.head(m.last(functional.pad(m.stem(x), (0, 0, 0, 0, 1, 2), value=0.5))),
        stem=conv_bn(3, 6),
        last=conv_bn(9, 4),
        head=head(4),
    )


def fixed_view() -> nn.Module:
    """Sizes written as constants must shrink with the channels."""
    return Network(
        lambda m, x: m.second(functional.relu(m.first(m.stem(x).view(-1, 6 * 8 * 8)))),
        stem=conv_bn(3, 6),
        first=nn.Linear(6 * 8 * 8, 10),
        second=nn.Linear(10, 5),
    )


def unflatten() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 6),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 32),
        nn.ReLU(),
        nn.Unflatten(1, (8, 2, 2)),
        conv_bn(8, 4),
        head(4),
    )


def pooling() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8),
        nn.MaxPool2d(2),
        conv_bn(8, 6),
        nn.AvgPool2d(2, ceil_mode=True),
        conv_bn(6, 7),
        nn.AdaptiveMaxPool2d(2),
        conv_bn(7, 5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )


def interpolate() -> nn.Module:
    return Network(
        lambda m, x: m.head(
            m.second(
                functional.interpolate(
                    m.first(functional.interpolate(m.stem(x), scale_factor=2)), size=(6, 6), mode="bilinear"
                )
            )
        ),
        stem=conv_bn(3, 8),
        first=conv_bn(8, 6),
        second=conv_bn(6, 4),
        head=head(4),
    )


def same_padding() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same"), nn.ReLU(), nn.Conv2d(8, 6, 5, padding="same"), head(6)
    )


def dropouts() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), nn.Dropout2d(0.5), nn.Dropout(0.5), conv_bn(8, 6), head(6))


def half_of_the_channels() -> nn.Module:
    """Half of the channels is used twice: two kinds of players in one layer."""
    return Network(
        lambda m, x: m.head(torch.cat([m.all(y := m.stem(x)), m.part(y[:, 4:])], dim=1)),
        stem=conv_bn(3, 8),
        all=conv_bn(8, 6),
        part=conv_bn(4, 3),
        head=head(9),
    )


def two_outputs() -> nn.Module:
    return Network(
        lambda m, x: (m.left(y := m.stem(x)), m.right(y)),
        stem=conv_bn(3, 8),
        left=head(8),
        right=nn.Conv2d(8, 2, 1),
    )


def volumes() -> nn.Module:
    """Convolutions of one and three dimensions."""
    return Network(
        lambda m, x: m.head(m.line(functional.relu(m.volume(x.unsqueeze(2)).flatten(2))).mean(2)),
        volume=nn.Conv3d(3, 8, (1, 3, 3)),
        line=nn.Conv1d(8, 6, 3, stride=2),
        head=nn.Linear(6, 5),
    )


def _steps(m: Network, x: Tensor) -> Tensor:
    """Rows of pixels as steps (batch, steps, channels)."""
    return m.stem(x).flatten(2).transpose(1, 2)


def lstm() -> nn.Module:
    """Two layers in both directions, every step read."""
    return Network(
        lambda m, x: m.head(
            m.rnn(_steps(m, x), (x.new_zeros(4, len(x), 6), x.new_zeros(4, len(x), 6)))[0].mean(1)
        ),
        stem=conv_bn(3, 8, stride=2),
        rnn=nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True),
        head=nn.Linear(12, 5),
    )


def gru() -> nn.Module:
    """Steps first, from a learnt initial state; only the last state is read."""
    return Network(
        lambda m, x: m.head(
            m.rnn(_steps(m, x).transpose(0, 1), m.first.weight[:, None].expand(-1, len(x), -1))[1][0]
        ),
        stem=conv_bn(3, 8, stride=2),
        rnn=nn.GRU(8, 6),
        first=nn.Embedding(1, 6),
        head=nn.Linear(6, 5),
    )


def plain_recurrence() -> nn.Module:
    """No gates, no biases; a convolution reads the steps."""
    return Network(
        lambda m, x: m.head(m.rnn(_steps(m, x), x.new_zeros(1, len(x), 6))[0].transpose(1, 2)).mean(2),
        stem=conv_bn(3, 8, stride=2),
        rnn=nn.RNN(8, 6, nonlinearity="relu", bias=False, batch_first=True),
        head=nn.Conv1d(6, 5, 1),
    )


PLAYERS: dict[Callable[[], nn.Module], tuple[int, int]] = {
    chain: (14, 2),
    chain_without_norm: (14, 2),
    residual_add: (14, 2),
    padded_shortcut: (30, 4),
    concat: (18, 3),
    concat_of_image: (12, 2),
    concat_flatten_linear: (10, 2),
    depthwise: (10, 2),
    depthwise_multiplier: (10, 2),
    grouped_convolution: (16, 3),
    squeeze_excitation: (18, 3),
    chunk_and_concat: (22, 4),
    uneven_split: (18, 4),
    channel_shuffle: (12, 2),
    used_twice: (8, 1),
    pixel_shuffle: (10, 2),
    layer_scale: (8, 1),
    tokens: (20, 2),
    channels_last: (26, 3),
    prelu: (14, 2),
    activations: (36, 9),
    spatial_padding: (14, 2),
    channel_padding_with_a_constant: (10, 2),
    fixed_view: (16, 2),
    unflatten: (18, 3),
    pooling: (26, 4),
    interpolate: (18, 3),
    same_padding: (14, 2),
    dropouts: (14, 2),
    half_of_the_channels: (17, 4),
    two_outputs: (8, 1),
    volumes: (14, 2),
    lstm: (14, 2),
    gru: (14, 2),
    plain_recurrence: (14, 2),
}
"""Every toy network with the number of players and of groups that a person counts by hand."""


def digits_like(images: int = 24) -> tuple[Case, Tensor, Tensor]:
    """A chain of layers with images of noise and labels."""
    case = toy(chain)
    pixels = torch.randn(images, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return case, pixels, torch.arange(images) % 5
