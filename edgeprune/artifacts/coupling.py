"""Coupled channels: which are removed together, where to mask them, and their cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import IndexArray

NO_PLAYER = -1


@dataclass(frozen=True, kw_only=True)
class CoupledGroup:
    """Players that are structurally interchangeable: removing any of them changes the same dimensions.

    ``layers`` are the layers whose output channels they are, in graph order.
    """

    name: str
    players: tuple[int, ...]
    layers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BatchLayout:
    """Where the batch lies in an activation: dimension ``dim``, of size ``outer`` x batch x ``inner``."""

    dim: int = 0
    outer: int = 1
    inner: int = 1


@dataclass(frozen=True, kw_only=True)
class MaskPoint:
    """Where channels enter a consumer: multiplying ``source``'s ``dim`` there equals removing them.

    ``renormalises``: the consumer is a norm, which has to take its statistics over those present instead.
    ``inside``: the players are units inside the consumer, a recurrent op, which masks its states instead.
    """

    consumer: str
    source: str
    dim: int
    players: IndexArray
    batch: BatchLayout = BatchLayout()
    renormalises: bool = False
    inside: bool = False

    @property
    def replaces(self) -> bool:
        """Whether masking replaces the consumer instead of scaling what enters it."""
        return self.renormalises or self.inside


@dataclass(frozen=True, kw_only=True)
class WeightedLayer:
    """A convolution, linear layer or product of a recurrent one: ``macs_per_weight * out * in`` MACs as kept.

    ``out_players`` are those of its output channels, ``in_players`` those of the input channels that each
    output channel reads (the first group's), whichever dimension of the weight these are.
    """

    name: str
    node: str
    op: str
    weight: str
    macs_per_weight: int
    out_players: IndexArray
    in_players: IndexArray

    def macs(self, removed: NDArray[np.bool_]) -> int:
        """Multiply-accumulates per image once the players marked in ``removed`` are gone."""
        return (
            self.macs_per_weight
            * kept_count(self.out_players, removed)
            * kept_count(self.in_players, removed)
        )


@dataclass(frozen=True, kw_only=True)
class ActivationProduct:
    """A product of activations, as in attention: ``macs_per_element`` for each that is kept of all
    ``dimensions`` (players along each that may get smaller)."""

    node: str
    macs_per_element: int
    dimensions: tuple[IndexArray, ...]

    def macs(self, removed: NDArray[np.bool_]) -> int:
        """Multiply-accumulates per image once the players marked in ``removed`` are gone."""
        return self.macs_per_element * math.prod(kept_count(each, removed) for each in self.dimensions)


@dataclass(frozen=True, kw_only=True)
class FrozenChannels:
    """Output channels of a layer that stay, and the op that holds them."""

    layer: str
    channels: int
    op: str
    node: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CouplingGraph:
    """The result of the coupling analysis; index maps are computed once, here.

    ``parameter_players`` maps (parameter, dimension), ``node_players`` (node, dimension) to players;
    ``notes`` say what was asked for and could not be.
    """

    num_players: int
    groups: tuple[CoupledGroup, ...]
    mask_points: tuple[MaskPoint, ...]
    layers: tuple[WeightedLayer, ...]
    frozen: tuple[FrozenChannels, ...]
    parameter_players: dict[tuple[str, int], IndexArray]
    node_players: dict[tuple[str, int], IndexArray]
    unruled_ops: tuple[str, ...]
    products: tuple[ActivationProduct, ...] = ()
    notes: tuple[str, ...] = ()

    def removed_mask(self, removed: Sequence[int]) -> NDArray[np.bool_]:
        """Boolean mask (num_players,) of the players to remove."""
        mask = np.zeros(self.num_players, dtype=bool)
        mask[list(removed)] = True
        return mask

    def total_macs(self, removed: NDArray[np.bool_] | None = None) -> int:
        """Multiply-accumulates per image of all layers with weights, and of products of activations."""
        gone = np.zeros(self.num_players, dtype=bool) if removed is None else removed
        return sum(x.macs(gone) for x in self.layers) + sum(x.macs(gone) for x in self.products)

    def renormalised(self, removed: NDArray[np.bool_]) -> tuple[str, ...]:
        """Norms (nodes) that take their statistics over fewer channels once ``removed`` are gone."""
        points = [p for p in self.mask_points if p.renormalises and _gone(p.players, removed).any()]
        return tuple(dict.fromkeys(p.consumer for p in points))

    def group_of_player(self) -> NDArray[np.int64]:
        """Index into ``groups`` of every player (num_players,)."""
        owner = np.full(self.num_players, -1, dtype=np.int64)
        for index, group in enumerate(self.groups):
            owner[list(group.players)] = index
        return owner


def kept_positions(players: IndexArray, removed: NDArray[np.bool_]) -> IndexArray:
    """Positions of a dimension that stay, ascending."""
    return np.flatnonzero(~_gone(players, removed))


def kept_count(players: IndexArray, removed: NDArray[np.bool_]) -> int:
    """Number of positions of a dimension that stay."""
    return int(players.size - np.count_nonzero(_gone(players, removed)))


def player_origins(whole: CouplingGraph, part: CouplingGraph, removed: Sequence[int] = ()) -> IndexArray:
    """Player of the whole network for each player (n,) of a part of it; ``NO_PLAYER`` if none.

    The part is what is left without the players ``removed`` or without some layers. Parameters keep their
    names, so their kept positions identify the players.
    """
    gone = whole.removed_mask(removed)
    origins = np.full(part.num_players, NO_PLAYER, dtype=np.int64)
    for key, players in part.parameter_players.items():
        before = whole.parameter_players.get(key)
        if before is None:
            continue
        stayed = before[kept_positions(before, gone)]
        if stayed.size == players.size:
            mine = players != NO_PLAYER
            origins[players[mine]] = stayed[mine]
    return origins


def _gone(players: IndexArray, removed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of positions whose player is removed; also works for networks without players."""
    gone: NDArray[np.bool_] = players != NO_PLAYER
    gone[gone] = removed[players[gone]]
    return gone
