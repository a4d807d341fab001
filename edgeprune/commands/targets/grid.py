"""The grid of blocks that a calibration measures: families, widths over the staircase."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from edgeprune.commands.targets.grid_networks import ACTIVATIONS, NetworkBuilder

_WIDTHS = (
    *(8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 240, 256, 320, 384, 512),
    *(640, 768, 960, 1280),
)
_ODD_SHARE = 0.3
_SIZES = (7, 10, 14, 20, 28, 28, 40, 56, 56, 80, 112)
_LEAST_MACS, _MOST_MACS = 2e5, 1.2e8
"""Of a convolution of the grid."""
_MOST_VALUES = 1_200_000
"""Of an image: what the widest layers of mobile networks write, far beyond a cache."""


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """One block of the grid, by name; ``in_8_bits``: measured in 8 bits, too."""

    name: str
    family: str
    seed: int
    in_8_bits: bool

    def model(self) -> onnx.ModelProto:
        """The same network of this block every time."""
        rng = np.random.default_rng([self.seed, *self.family.encode()])
        builder = NetworkBuilder(rng=rng, shape=_FAMILIES[self.family][2](rng))
        _FAMILIES[self.family][3](builder)
        return builder.model()


def grid() -> tuple[GridPoint, ...]:
    """All points; fixed, so that every device measures the same."""
    return tuple(_points())


def _points() -> Iterator[GridPoint]:
    for name, (plain, integer, _, _) in _FAMILIES.items():
        for number in range(plain):
            yield GridPoint(name=f"{name}-{number}", family=name, seed=number, in_8_bits=number < integer)


def _width(rng: np.random.Generator, least: int = 8, most: int = 1280) -> int:
    between = [w for w in _WIDTHS if least <= w <= most] or [max(8, min(least, most))]
    chosen = int(rng.choice(between))
    return chosen - int(rng.integers(1, 8)) if rng.random() < _ODD_SHARE and chosen > 8 else chosen


def _image(rng: np.random.Generator, least: int = 8, most: int = 1280) -> tuple[int, ...]:
    size = int(rng.choice(_SIZES))
    channels = _width(rng, least, min(most, max(16, _MOST_VALUES // size**2)))
    return channels, size, size


def _out(b: NetworkBuilder, kernel: int, most: int = 1280, groups: int = 1) -> int:
    """A width that keeps the multiply-accumulates of a convolution between bounds."""
    channels, high, wide = b.shape
    each = channels // groups * kernel * kernel * high * wide
    low, high_width = max(8, math.ceil(_LEAST_MACS / each)), max(8, int(_MOST_MACS / each))
    return _width(b.rng, min(low, 256), max(16, min(most, high_width)))


def _act(b: NetworkBuilder) -> str:
    return str(b.rng.choice(ACTIVATIONS))


def _dense(b: NetworkBuilder) -> None:
    for _ in range(2):
        kernel = int(b.rng.choice([3, 3, 3, 5, 7]))
        b.convolution(_out(b, kernel), kernel, stride=int(b.rng.choice([1, 1, 2])), act=_act(b))


def _first(b: NetworkBuilder) -> None:
    kernel, step = ((3, 2), (7, 2), (4, 4), (3, 1))[int(b.rng.integers(4))]
    b.convolution(_width(b.rng, 8, 64), kernel, stride=step, act=_act(b))
    b.pool("MaxPool", 3, 2)


def _pointwise(b: NetworkBuilder) -> None:
    for _ in range(3):
        b.convolution(_out(b, 1), 1, act=_act(b))


def _depthwise(b: NetworkBuilder) -> None:
    for _ in range(2):
        kernel = int(b.rng.choice([3, 3, 5, 7]))
        b.convolution(b.shape[0], kernel, stride=int(b.rng.choice([1, 1, 2])), groups=b.shape[0], act=_act(b))


def _inverted(b: NetworkBuilder) -> None:
    kernel, step, function = int(b.rng.choice([3, 3, 5])), int(b.rng.choice([1, 1, 2])), _act(b)

    def inside() -> None:
        narrow = b.shape[0]
        wide = max(16, int(narrow * b.rng.choice([2, 3, 4, 6])))
        wide = min(wide, max(16, _MOST_VALUES // math.prod(b.shape[1:])))
        b.convolution(wide, 1, act=function)
        b.convolution(wide, kernel, stride=step, groups=wide, act=function)
        if b.rng.random() < 0.4:
            b.squeeze_excite()
        b.convolution(narrow, 1, act="")

    b.residual(inside)


def _grouped(b: NetworkBuilder) -> None:
    parts = int(b.rng.choice([2, 4, 8]))
    width = max(1, b.shape[0] // parts) * parts
    b.convolution(width, 1)
    for _ in range(2):
        b.convolution(width, 3, groups=parts, stride=int(b.rng.choice([1, 1, 2])), act=_act(b))


def _bottleneck(b: NetworkBuilder) -> None:
    def inside() -> None:
        wide = b.shape[0]
        narrow = max(8, min(wide // int(b.rng.choice([1, 2, 4])), 160))
        b.convolution(narrow, 1)
        b.convolution(narrow, 3)
        b.convolution(wide, 1, act="")

    b.residual(inside)
    b.activation("Relu")


def _pools(b: NetworkBuilder) -> None:
    b.convolution(b.shape[0], 1)
    for _ in range(2):
        kernel, stride = ((2, 2), (3, 1), (5, 1), (3, 2))[int(b.rng.integers(4))]
        b.pool(str(b.rng.choice(["MaxPool", "AveragePool"])), kernel, stride)
    b.add("GlobalAveragePool", shape=(b.shape[0], 1, 1))


def _elementwise(b: NetworkBuilder) -> None:
    for _ in range(3):
        given = b.value
        functions = ["Relu", "HardSwish", "SiLU", "Gelu", "Sigmoid", "HardSigmoid", "Clip"]
        b.activation(str(b.rng.choice(functions)))
        b.add(str(b.rng.choice(["Add", "Mul"])), given, b.value)


def _linear(b: NetworkBuilder) -> None:
    b.add("GlobalAveragePool", shape=(b.shape[0], 1, 1))
    b.add("Flatten", shape=(b.shape[0],))
    for _ in range(2):
        weight, bias = b.random(_width(b.rng, 64) * int(b.rng.choice([1, 2, 3])), b.shape[-1]), b.random(1)
        out = int(b.weights[-2].dims[0])
        b.add("Gemm", b.value, weight, bias, shape=(out,), transB=1)


def _resized(b: NetworkBuilder) -> None:
    b.convolution(_width(b.rng, 8, 64), 1)
    b.resize(2, str(b.rng.choice(["nearest", "nearest", "linear"])))
    b.convolution(_width(b.rng, 8, 48), 3)


def _joined(b: NetworkBuilder) -> None:
    b.joined(
        partial(b.convolution, _out(b, 1, 128), 1), partial(b.convolution, _out(b, 3, 96), 3, act=_act(b))
    )
    b.convolution(_out(b, 1, 128), 1)


def _shuffled(b: NetworkBuilder) -> None:
    width = max(8, b.shape[0] // 4 * 4)
    b.convolution(width, 1)
    second = b.split()
    b.convolution(b.shape[0], 3, groups=b.shape[0], act="")
    b.convolution(b.shape[0], 1)
    b.add("Concat", b.value, second, shape=(width, *b.shape[1:]), axis=1)
    b.shuffle(2)


def _sliced(b: NetworkBuilder) -> None:
    b.convolution(_out(b, 1, 256), 1)
    b.slice(0, b.shape[0] // 2)
    b.convolution(_out(b, 3, 128), 3, act=_act(b))
    if b.rng.random() < 0.5:
        b.border(1)
    else:
        b.slice(1, b.shape[1] - 1)
    b.convolution(b.shape[0], 3, groups=b.shape[0], act="")


def _transformer(b: NetworkBuilder) -> None:
    b.tokens()
    heads = int(b.rng.choice([2, 3, 4]))
    b.linear(max(24, min(384, b.shape[-1] // (8 * heads) * 8 * heads)) // heads * heads)
    for inside in (partial(b.attention, heads), partial(_feed_forward, b)):
        given = b.value
        b.norm()
        inside()
        b.add("Add", given, b.value)


def _feed_forward(b: NetworkBuilder) -> None:
    width = b.shape[-1]
    b.linear(width * int(b.rng.choice([2, 4])), "Gelu")
    b.linear(width)


def _pictures(rng: np.random.Generator) -> tuple[int, ...]:
    return (3, *[int(rng.choice([64, 96, 128, 160, 224]))] * 2)


def _few_positions(rng: np.random.Generator) -> tuple[int, ...]:
    return (_width(rng, 48, 384), *[int(rng.choice([7, 8, 10, 14]))] * 2)


_Sizes = Callable[[np.random.Generator], tuple[int, ...]]
_FAMILIES: dict[str, tuple[int, int, _Sizes, Callable[[NetworkBuilder], None]]] = {
    "dense": (48, 30, _image, _dense),
    "first": (24, 12, _pictures, _first),
    "pointwise": (42, 24, _image, _pointwise),
    "depthwise": (30, 24, _image, _depthwise),
    "inverted": (48, 30, partial(_image, most=128), _inverted),
    "grouped": (21, 12, partial(_image, least=16), _grouped),
    "bottleneck": (24, 15, partial(_image, least=32), _bottleneck),
    "pools": (15, 6, _image, _pools),
    "elementwise": (24, 12, _image, _elementwise),
    "linear": (15, 6, partial(_image, least=64), _linear),
    "resized": (15, 9, partial(_image, most=128), _resized),
    "joined": (18, 9, _image, _joined),
    "shuffled": (15, 9, _image, _shuffled),
    "sliced": (12, 9, partial(_image, least=16, most=256), _sliced),
    "transformer": (21, 9, _few_positions, _transformer),
}
"""Blocks in 32 bits, how many of these in 8 bits as well, the size of the input, and what they are of."""
