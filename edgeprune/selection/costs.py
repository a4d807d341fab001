"""Costs of a network at given widths: multiply-accumulates, bytes or milliseconds, layer by layer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import IndexArray
from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph


class LayerCost(Protocol):
    """Cost of one layer as a function of its widths."""

    def at(self, out: int, into: int) -> float:
        """Cost with ``out`` output channels of which each reads ``into`` input channels."""
        ...


@dataclass(frozen=True, kw_only=True)
class Product:
    """``per_weight`` for every pair of an output and an input channel, ``per_output`` for every output."""

    per_weight: float
    per_output: float = 0.0

    def at(self, out: int, into: int) -> float:
        """Cost at these widths."""
        return self.per_weight * out * into + self.per_output * out


@dataclass(frozen=True, kw_only=True)
class RooflineCost:
    """The longer of arithmetic and memory traffic, in milliseconds (Williams, Waterman, Patterson 2009).

    Kernels work on whole vectors of ``step`` channels, so arithmetic counts widths rounded up to it.
    Traffic is counted once each for weights, input and output.
    """

    macs_per_weight: float
    weight_bytes: float
    input_bytes: float
    output_bytes: float
    macs_per_ms: float
    bytes_per_ms: float
    step: int = 1
    overhead_ms: float = 0.0

    def at(self, out: int, into: int) -> float:
        """Milliseconds at these widths; bytes are those of one channel (or one pair of channels)."""
        work = self.macs_per_weight * _rounded(out, self.step) * _rounded(into, self.step)
        moved = self.weight_bytes * out * into + self.input_bytes * into + self.output_bytes * out
        return max(work / self.macs_per_ms, moved / self.bytes_per_ms) + self.overhead_ms


@dataclass(frozen=True, kw_only=True)
class TableCost:
    """Measured costs (a, b) at ascending output (a,) and input widths (b,), interpolated bilinearly.

    Kernels are built for widths that are multiples of ``step``, so others cost as much as the next multiple.
    Beyond the last width the last slope is extrapolated.
    """

    out_widths: tuple[int, ...]
    in_widths: tuple[int, ...]
    costs: tuple[tuple[float, ...], ...]
    step: int = 1

    def at(self, out: int, into: int) -> float:
        """Cost at these widths."""
        row, across = _between(self.out_widths, _rounded(out, self.step))
        column, along = _between(self.in_widths, _rounded(into, self.step))
        cost = 0.0
        for i, weight_out in ((row, 1.0 - across), (row + 1, across)):
            for j, weight_in in ((column, 1.0 - along), (column + 1, along)):
                if weight_out * weight_in != 0.0:
                    cost += weight_out * weight_in * self.costs[i][j]
        return max(0.0, cost)


def _rounded(width: int, step: int) -> int:
    return -(-width // step) * step


def _between(widths: tuple[int, ...], width: int) -> tuple[int, float]:
    """The place before ``width`` and the fraction of the way to the next place."""
    if len(widths) == 1:
        return 0, 0.0
    place = int(np.clip(np.searchsorted(widths, width, side="right") - 1, 0, len(widths) - 2))
    return place, (width - widths[place]) / (widths[place + 1] - widths[place])


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Costs of all layers, in the order of ``CouplingGraph.layers``, and ``fixed`` for the rest.

    ``products``: cost of an element of each of ``CouplingGraph.products``; none where ``fixed`` holds them.
    """

    name: str
    layers: tuple[LayerCost, ...]
    fixed: float = 0.0
    products: tuple[float, ...] = ()

    def term(self, index: int, sizes: Sequence[int]) -> float:
        """Cost of a layer at its output and input width, or behind the layers of a product at its sizes."""
        if index < len(self.layers):
            return self.layers[index].at(*sizes)
        return self.products[index - len(self.layers)] * math.prod(sizes) if self.products else 0.0


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The maximum cost of a network by a model."""

    model: CostModel
    most: float


def macs_model(coupling: CouplingGraph) -> CostModel:
    """Multiply-accumulates per image."""
    return CostModel(
        name="MACs",
        layers=tuple(Product(per_weight=x.macs_per_weight) for x in coupling.layers),
        products=tuple(float(x.macs_per_element) for x in coupling.products),
    )


@dataclass(frozen=True, kw_only=True)
class _Width:
    """How the sizes of a layer or product shrink with each removed player of a group."""

    term: int
    per_player: tuple[int, ...]


class Widths:
    """Widths of all layers as players of groups are removed, and the network's cost by each model.

    Its terms are the layers, by output and input width, and then the products of activations.
    """

    def __init__(self, coupling: CouplingGraph, models: Sequence[CostModel]) -> None:
        owner = coupling.group_of_player()
        terms: list[tuple[IndexArray, ...]] = [(x.out_players, x.in_players) for x in coupling.layers]
        terms += [x.dimensions for x in coupling.products]
        self._layers = len(coupling.layers)
        self._sizes = [[int(players.size) for players in term] for term in terms]
        self._models = tuple(models)
        self._costs = [[m.term(i, sizes) for i, sizes in enumerate(self._sizes)] for m in models]
        self._by_group: dict[int, list[_Width]] = defaultdict(list)
        members = [len(g.players) for g in coupling.groups]
        for index, term in enumerate(terms):
            counts = [_per_group(owner, players) for players in term]
            for group in sorted({group for each in counts for group in each}):
                shrinking = tuple(each.get(group, 0) // members[group] for each in counts)
                self._by_group[group].append(_Width(term=index, per_player=shrinking))

    def totals(self) -> tuple[float, ...]:
        """Current costs, by model."""
        return tuple(m.fixed + sum(c) for m, c in zip(self._models, self._costs, strict=True))

    def savings(self, group: int, count: int) -> tuple[float, ...]:
        """Savings, by model, of removing ``count`` more players of ``group``."""
        saved = [0.0] * len(self._models)
        for width in self._by_group[group]:
            sizes = self._without(width, count)
            for place, model in enumerate(self._models):
                saved[place] += self._costs[place][width.term] - model.term(width.term, sizes)
        return tuple(saved)

    def channels_per_player(self, group: int) -> int:
        """Least number of channels by which one player of ``group`` narrows a layer that it narrows."""
        widths = [w for w in self._by_group[group] if w.term < self._layers]
        return min((n for w in widths for n in w.per_player if n > 0), default=1)

    def remove(self, group: int, count: int) -> None:
        """Remove ``count`` players of ``group``; a negative number restores them."""
        for width in self._by_group[group]:
            self._sizes[width.term] = self._without(width, count)
            for place, model in enumerate(self._models):
                self._costs[place][width.term] = model.term(width.term, self._sizes[width.term])

    def _without(self, width: _Width, count: int) -> list[int]:
        return [n - count * less for n, less in zip(self._sizes[width.term], width.per_player, strict=True)]


def _per_group(owner: NDArray[np.int64], players: NDArray[np.int64]) -> dict[int, int]:
    groups, counts = np.unique(owner[players[players != NO_PLAYER]], return_counts=True)
    return dict(zip(groups.tolist(), counts.tolist(), strict=True))
