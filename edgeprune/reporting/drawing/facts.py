"""Content of a network drawing: numbered groups with colours, layers, reasons why channels stay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from edgeprune.artifacts.arrays import IndexArray
from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph, WeightedLayer

_GOLDEN_ANGLE_DEGREES = 137.508
_FIRST_HUE_DEGREES = 250.0
_LIGHTNESSES = (0.80, 0.70, 0.88)
_CHROMA = 0.115


class StepKind(Enum):
    """Kind of a step in a network's data flow."""

    INPUT = "input"
    LAYER = "layer"
    JOIN = "join"
    OUTPUT = "output"


@dataclass(frozen=True, kw_only=True)
class FlowStep:
    """An input, a weighted layer, a point where branches meet, or an output.

    ``label`` is the layer's name or the op's; ``fed_by`` names earlier steps. ``players`` are those along
    the channels that enter a layer or leave a join, ``None`` where none of them can go.
    """

    name: str
    kind: StepKind
    label: str
    fed_by: tuple[str, ...]
    players: IndexArray | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkDrawing:
    """Everything that a drawing shows; layers in ``flow`` are named as their graph node."""

    source: str
    inputs: str
    parameters: int
    coupling: CouplingGraph
    flow: tuple[FlowStep, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Share:
    """Number of a layer's channels in one group; ``group`` is ``None`` for those that stay."""

    group: int | None
    channels: int


@dataclass(frozen=True, kw_only=True)
class GroupFacts:
    """A coupled group by number (from 1); ``macs`` are those saved if the whole group is removed.

    ``units`` can be removed one by one; ``channels`` are the minimum and maximum in one of its layers, more
    than the units if several are removed together, such as those of a whole head.
    """

    number: int
    name: str
    colour: str
    units: int
    channels: tuple[int, int]
    macs: int
    layers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReasonFacts:
    """Why channels stay: a letter, the op that holds them, and where."""

    letter: str
    op: str
    reason: str
    channels: int
    layers: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The op and the reason in words."""
        return f"held by {self.op}: {self.reason}" if self.op not in ("", "output") else self.reason


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """A weighted layer; ``leaving`` are its output channels by group, ``entering`` those that it reads."""

    name: str
    op: str
    channels: int
    removable: int
    macs: int
    leaving: tuple[Share, ...]
    entering: tuple[Share, ...]
    reason: ReasonFacts | None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A network in figures; ``layers`` by graph node, ``carried`` the channels that leave each join."""

    macs: int
    groups: tuple[GroupFacts, ...]
    reasons: tuple[ReasonFacts, ...]
    layers: dict[str, LayerFacts]
    carried: dict[str, tuple[Share, ...]]


def gather(drawing: NetworkDrawing) -> Facts:
    """Collect the figures of a coupling analysis."""
    coupling = drawing.coupling
    owner = coupling.group_of_player()
    reasons = _reasons(coupling)
    held = {layer: reason for reason in reasons for layer in reason.layers}
    steps = {step.name: step for step in drawing.flow}
    nothing = np.zeros(coupling.num_players, dtype=bool)
    layers = {}
    for layer in coupling.layers:
        step = steps.get(layer.node)
        entering = step.players if step is not None else None
        layers[layer.node] = LayerFacts(
            name=layer.name,
            op=layer.op,
            channels=int(layer.out_players.size),
            removable=int(np.count_nonzero(layer.out_players != NO_PLAYER)),
            macs=layer.macs(nothing),
            leaving=shares(layer.out_players, owner),
            entering=shares(layer.in_players if entering is None else entering, owner),
            reason=held.get(layer.name),
        )
    return Facts(
        macs=coupling.total_macs(),
        groups=_groups(coupling, owner),
        reasons=reasons,
        layers=layers,
        carried={
            s.name: shares(s.players, owner)
            for s in drawing.flow
            if s.kind is StepKind.JOIN and s.players is not None
        },
    )


def shares(players: IndexArray, owner: IndexArray) -> tuple[Share, ...]:
    """Number of positions of each group, in group order; those that stay come last."""
    groups, counts = np.unique(owner[players[players != NO_PLAYER]], return_counts=True)
    parts = [Share(group=g + 1, channels=c) for g, c in zip(groups.tolist(), counts.tolist(), strict=True)]
    stay = int(np.count_nonzero(players == NO_PLAYER))
    return (*parts, Share(group=None, channels=stay)) if stay else tuple(parts)


def group_colour(number: int) -> str:
    """Colour of a group by its number: hues a golden angle apart, so neighbours differ most; ``#rrggbb``."""
    hue = math.radians(_FIRST_HUE_DEGREES + _GOLDEN_ANGLE_DEGREES * (number - 1))
    lightness = _LIGHTNESSES[(number - 1) // 8 % len(_LIGHTNESSES)]
    return _oklch_to_hex(lightness, _CHROMA, hue)


def _oklch_to_hex(lightness: float, chroma: float, hue: float) -> str:
    """Oklab to sRGB with the published matrices (Björn Ottosson, 2020), clipped to the sRGB gamut."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{_encode(value):02x}" for value in linear)


def _encode(linear: float) -> int:
    value = min(max(linear, 0.0), 1.0)
    encoded = 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
    return round(255 * encoded)


def _groups(coupling: CouplingGraph, owner: IndexArray) -> tuple[GroupFacts, ...]:
    by_name: dict[str, WeightedLayer] = {layer.name: layer for layer in coupling.layers}
    total = coupling.total_macs()
    rows = []
    for index, group in enumerate(coupling.groups):
        players = [by_name[name].out_players for name in group.layers]
        counts = [int(np.count_nonzero(owner[p[p != NO_PLAYER]] == index)) for p in players]
        rows.append(
            GroupFacts(
                number=index + 1,
                name=group.name,
                colour=group_colour(index + 1),
                units=len(group.players),
                channels=(min(counts), max(counts)),
                macs=total - coupling.total_macs(coupling.removed_mask(group.players)),
                layers=group.layers,
                consumers=group.consumers,
            )
        )
    return tuple(rows)


def _reasons(coupling: CouplingGraph) -> tuple[ReasonFacts, ...]:
    """Distinct reasons in the order of the first layer that each holds."""
    by_reason: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for row in coupling.frozen:
        by_reason.setdefault((row.op, row.reason), []).append((row.layer, row.channels))
    return tuple(
        ReasonFacts(
            letter=_letter(index),
            op=op,
            reason=reason,
            channels=sum(count for _, count in held),
            layers=tuple(layer for layer, _ in held),
        )
        for index, ((op, reason), held) in enumerate(by_reason.items())
    )


def _letter(index: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    text = ""
    while index >= 0:
        text = chr(ord("A") + index % 26) + text
        index = index // 26 - 1
    return text
