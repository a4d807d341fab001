"""Random networks from a grammar, pruned at random: the pruned network says what the masked one says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import networks as nets
import torch
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.choices import AttentionUnit, CouplingOptions

SIZE = 6
WIDTHS = st.integers(2, 6)


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor of the network: its channels and its height (and width)."""

    channels: int
    size: int


Step = tuple[Callable[[nn.ModuleDict, list[Tensor]], Tensor], str]


class Drawn(nn.Module):
    """Steps on a growing list of values; the last one goes through a classifier."""

    def __init__(self, steps: list[Step], layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self._steps = [run for run, _ in steps]
        self.description = "; ".join(text for _, text in steps)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for run in self._steps:
            values.append(run(self.layers, values))
        return values[-1]


class _Builder:
    """Draws one step after another, each on values that fit."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.values = [Value(channels=3, size=SIZE)]
        self.steps: list[Step] = []
        self.layers: dict[str, nn.Module] = {}

    def _pick(self, fits: Callable[[Value], bool] = lambda _v: True) -> int | None:
        # Value 0 is the image: only the first step reads it, so that most of the network can be pruned.
        found = [i for i, v in enumerate(self.values) if fits(v) and (i > 0 or len(self.values) == 1)]
        return self.draw(st.sampled_from(found)) if found else None

    def _step(self, run: Callable[[nn.ModuleDict, list[Tensor]], Tensor], text: str, out: Value) -> None:
        self.steps.append((run, f"{len(self.values)} = {text}"))
        self.values.append(out)

    def _layer(self, kind: str, at: int, layer: nn.Module, out: Value) -> None:
        name = f"{kind}{len(self.layers)}"
        self.layers[name] = layer
        self._step(lambda m, v: m[name](v[at]), f"{layer}({at})", out)

    def convolution(self) -> None:
        at = self._pick()
        value, out = self.values[at], self.draw(WIDTHS)
        kernel, stride = self.draw(st.sampled_from([(1, 1), (3, 1), (3, 2)]))
        layer = nn.Conv2d(
            value.channels, out, kernel, stride, padding=kernel // 2, bias=self.draw(st.booleans())
        )
        self._layer("conv", at, layer, Value(channels=out, size=math.ceil(value.size / stride)))

    def depthwise(self) -> None:
        at = self._pick()
        value, times = self.values[at], self.draw(st.integers(1, 2))
        layer = nn.Conv2d(value.channels, times * value.channels, 3, padding=1, groups=value.channels)
        self._layer("depthwise", at, layer, Value(channels=times * value.channels, size=value.size))

    def grouped(self) -> None:
        at = self._pick(lambda v: v.channels % 2 == 0 and v.channels > 2)
        if at is None:
            return
        value, out = self.values[at], 2 * self.draw(st.integers(1, 3))
        self._layer(
            "grouped", at, nn.Conv2d(value.channels, out, 1, groups=2), Value(channels=out, size=value.size)
        )

    def norm(self) -> None:
        at = self._pick()
        self._layer("norm", at, nn.BatchNorm2d(self.values[at].channels), self.values[at])

    def relu(self) -> None:
        at = self._pick()
        self._layer("relu", at, nn.ReLU(), self.values[at])

    def pool(self) -> None:
        at = self._pick(lambda v: v.size >= 2)
        if at is None:
            return
        value = self.values[at]
        kind = self.draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
        self._layer(
            "pool",
            at,
            kind(2, ceil_mode=True),
            Value(channels=value.channels, size=math.ceil(value.size / 2)),
        )

    def _pair(self, fits: Callable[[Value, Value], bool]) -> tuple[int, int] | None:
        left = self._pick()
        right = self._pick(lambda v: fits(self.values[left], v))
        return None if right is None else (left, right)

    def add(self) -> None:
        pair = self._pair(lambda a, b: a == b)
        if pair is not None:
            left, right = pair
            self._step(lambda m, v: v[left] + v[right], f"{left} + {right}", self.values[left])

    def concatenate(self) -> None:
        pair = self._pair(lambda a, b: a.size == b.size)
        if pair is not None:
            left, right = pair
            channels = self.values[left].channels + self.values[right].channels
            out = Value(channels=channels, size=self.values[left].size)
            self._step(lambda m, v: torch.cat([v[left], v[right]], 1), f"cat({left}, {right})", out)

    def layer_norm(self) -> None:
        at = self._pick()
        channels = self.values[at].channels
        self._layer("layernorm", at, nn.GroupNorm(1, channels), self.values[at])

    def gate(self) -> None:
        at = self._pick()
        value = self.values[at]
        name = f"gate{len(self.layers)}"
        self.layers[name] = nn.Conv2d(value.channels, value.channels, 1)
        self._step(
            lambda m, v: v[at] * torch.sigmoid(m[name](v[at].mean((2, 3), keepdim=True))),
            f"gate({at})",
            value,
        )

    def stack(self) -> None:
        pair = self._pair(lambda a, b: a == b)
        if pair is not None:
            left, right = pair
            self._step(
                lambda m, v: torch.stack([v[left], v[right]], 2).amax(2),
                f"stack({left}, {right})",
                self.values[left],
            )

    def shuffle(self) -> None:
        at = self._pick(lambda v: v.channels % 2 == 0)
        if at is not None:
            value = self.values[at]

            def run(_: nn.ModuleDict, v: list[Tensor]) -> Tensor:
                split = v[at].view(-1, 2, value.channels // 2, value.size, value.size)
                return split.transpose(1, 2).reshape(-1, value.channels, value.size, value.size)

            self._step(run, f"shuffle({at})", value)

    def part(self) -> None:
        at = self._pick(lambda v: v.channels > 3)
        if at is not None:
            value = self.values[at]
            first = self.draw(st.integers(1, value.channels - 2))
            out = Value(channels=value.channels - first, size=value.size)
            self._step(lambda m, v: v[at][:, first:], f"{at}[{first}:]", out)

    def attention(self) -> None:
        at = self._pick(lambda v: v.channels in (4, 6) and v.size > 1)
        if at is None:
            return
        value = self.values[at]
        heads = self.draw(st.sampled_from([1, 2, value.channels // 2]))
        name = f"attention{len(self.layers)}"
        self.layers[name] = nn.Linear(value.channels, 3 * value.channels)
        width, tokens = value.channels // heads, value.size**2

        def run(m: nn.ModuleDict, v: list[Tensor]) -> Tensor:
            split = m[name](v[at].flatten(2).transpose(1, 2)).view(-1, tokens, 3, heads, width)
            q, k, values = split.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = functional.scaled_dot_product_attention(q, k, values).transpose(1, 2)
            return mixed.reshape(-1, tokens, value.channels).transpose(1, 2).unflatten(2, (value.size, -1))

        self._step(run, f"attention({at}, {heads} heads)", value)

    def finish(self) -> None:
        """Everything that nobody read yet is joined; then flatten or pool, and linear layers."""
        size = min(v.size for v in self.values[1:])
        channels = sum(v.channels for v in self.values[1:])
        flat = self.draw(st.booleans())
        inner = self.draw(WIDTHS)
        width = channels * size**2 if flat else channels
        self.layers["hidden"], self.layers["classifier"] = nn.Linear(width, inner), nn.Linear(inner, 3)

        def run(m: nn.ModuleDict, values: list[Tensor]) -> Tensor:
            joined = torch.cat([functional.adaptive_avg_pool2d(v, size) for v in values[1:]], 1)
            features = joined.flatten(1) if flat else joined.mean((2, 3))
            return m["classifier"](functional.relu(m["hidden"](features)))

        self.steps.append((run, f"{'flatten' if flat else 'mean'}, linear {inner}, linear 3"))


STEPS = ("convolution", "norm", "relu", "depthwise", "grouped", "add", "concatenate", "pool")
MIXING = ("layer_norm", "gate", "stack", "shuffle", "part", "attention")
OPTIONS = st.builds(CouplingOptions, attention=st.sampled_from(AttentionUnit), prune_normalized=st.booleans())


@st.composite
def drawn_networks(draw: st.DrawFn, kinds: tuple[str, ...] = STEPS) -> Drawn:
    builder = _Builder(draw)
    builder.convolution()
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=9)):
        getattr(builder, kind)()
    builder.finish()
    return Drawn(builder.steps, builder.layers)


@settings(max_examples=examples(40))
@given(drawn_networks(), st.randoms(use_true_random=False))
def test_masked_equals_pruned(module, random):
    torch.manual_seed(random.randrange(2**31))
    case = nets.make_case(module, (3, SIZE, SIZE))
    groups = case.coupling.groups
    assert case.coupling.unruled_ops == ()
    removed = []
    for group in groups:
        stays = random.randrange(1, len(group.players) + 1)
        removed += random.sample(group.players, len(group.players) - stays)
    removals = [tuple(sorted(removed)), *case.removals()[-1:]]
    for row in nets.compare(case, removals):
        assert row.deviation < 1e-10, (module.description, row)
        pruned = nets.prune(case.captured, case.coupling, row.removed)
        macs = case.coupling.total_macs(case.coupling.removed_mask(row.removed))
        assert macs == nets.counted_macs(pruned, case.images), module.description


@settings(max_examples=examples(30))
@given(drawn_networks((*STEPS, *MIXING)), OPTIONS, st.randoms(use_true_random=False))
def test_masked_equals_pruned_with_ops_that_mix_channels_whatever_was_chosen(module, options, random):
    torch.manual_seed(random.randrange(2**31))
    case = nets.make_case(module, (3, SIZE, SIZE), options=options)
    assert case.coupling.unruled_ops == ()
    removed = []
    for group in case.coupling.groups:
        stays = random.randrange(1, len(group.players) + 1)
        removed += random.sample(group.players, len(group.players) - stays)
    for row in nets.compare(case, [tuple(sorted(removed)), *case.removals()[-1:]]):
        assert row.deviation < 1e-10, (module.description, options, row)


@settings(max_examples=examples(10))
@given(drawn_networks())
def test_the_hidden_layer_can_always_be_pruned(module):
    coupling = nets.make_case(module, (3, SIZE, SIZE)).coupling
    hidden = [g for g in coupling.groups if g.layers == ("layers.hidden",)]
    assert len(hidden) == 1
    assert len(hidden[0].players) == module.layers["hidden"].out_features
