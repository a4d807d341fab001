"""Select which players go: least value per MAC first, over the whole network. Pure function, no torch."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph
from edgeprune.artifacts.pruning import GroupPlan, PruningPlan
from edgeprune.errors import NothingToPruneError

MIN_CHANNELS = 2
STEPS_PER_GROUP = 4
_MAX_EXCHANGES = 100
_LEAST_GAIN = 1e-9


@dataclass(frozen=True, kw_only=True)
class _Width:
    """How a layer's two widths shrink with each player of a group that goes."""

    layer: int
    out_per_player: int
    in_per_player: int


class _Costs:
    """MACs of the network as a function of how many players of each group are gone."""

    def __init__(self, coupling: CouplingGraph) -> None:
        owner = coupling.group_of_player()
        self._factor = np.array([x.macs_per_weight for x in coupling.layers], dtype=np.int64)
        self._out = np.array([x.out_players.size for x in coupling.layers], dtype=np.int64)
        self._in = np.array([x.in_players.size for x in coupling.layers], dtype=np.int64)
        self._widths: dict[int, list[_Width]] = defaultdict(list)
        sizes = [len(g.players) for g in coupling.groups]
        for index, layer in enumerate(coupling.layers):
            out_counts = _per_group(owner, layer.out_players)
            in_counts = _per_group(owner, layer.in_players)
            for group in sorted(out_counts.keys() | in_counts.keys()):
                width = _Width(
                    layer=index,
                    out_per_player=out_counts.get(group, 0) // sizes[group],
                    in_per_player=in_counts.get(group, 0) // sizes[group],
                )
                self._widths[group].append(width)

    def total(self) -> int:
        """MACs now."""
        return int((self._factor * self._out * self._in).sum())

    def saving(self, group: int, count: int) -> int:
        """MACs saved if ``count`` more players of ``group`` went."""
        saved = 0
        for w in self._widths[group]:
            out, into = int(self._out[w.layer]), int(self._in[w.layer])
            after = (out - count * w.out_per_player) * (into - count * w.in_per_player)
            saved += int(self._factor[w.layer]) * (out * into - after)
        return saved

    def channels_per_player(self, group: int) -> int:
        """Least number of channels by which one player of ``group`` narrows a layer that it narrows."""
        counts = {n for w in self._widths[group] for n in (w.out_per_player, w.in_per_player) if n > 0}
        return min(counts, default=1)

    def remove(self, group: int, count: int) -> None:
        """Let ``count`` players of ``group`` go."""
        for w in self._widths[group]:
            self._out[w.layer] -= count * w.out_per_player
            self._in[w.layer] -= count * w.in_per_player


def _per_group(owner: NDArray[np.int64], players: NDArray[np.int64]) -> dict[int, int]:
    groups, counts = np.unique(owner[players[players != NO_PLAYER]], return_counts=True)
    return dict(zip(groups.tolist(), counts.tolist(), strict=True))


def select(
    values: NDArray[np.float64],
    coupling: CouplingGraph,
    *,
    ratio: float,
    width_quantum: int = 1,
    adapt_quantum: bool = False,
    min_channels: int = MIN_CHANNELS,
) -> PruningPlan:
    """Remove players until ``ratio`` of the MACs is gone, those with the least value per MAC saved first.

    Then steps are given back, or exchanged between two groups, as long as that lowers the value lost and
    the ratio still holds: what greedy choice in coarse steps overshoots is not wasted.
    Widths shrink in steps that leave each group a multiple of ``width_quantum`` channels and at least
    ``min_channels``; a group smaller than that stays whole. A player that is several channels wide (an
    attention head, a norm group) counts as so many. With ``adapt_quantum`` the quantum is halved
    in groups of fewer than ``STEPS_PER_GROUP`` steps, where rounding would cost more than it gains.

    Args:
        values: cost of removing each player (n_players,), additive over players.

    Raises:
        NothingToPruneError: there are no players, or the ratio cannot be reached; says how far it goes.
    """
    if coupling.num_players == 0:
        raise NothingToPruneError(
            "no channel of the model can be removed: every layer's channels are part of the output or held "
            "by an operator; 'edgeprune inspect' lists what holds each layer"
        )
    costs = _Costs(coupling)
    before = costs.total()
    budget = before * (1.0 - ratio)
    orders = [
        np.array(g.players)[np.argsort(values[list(g.players)], kind="stable")] for g in coupling.groups
    ]
    gone = [0] * len(orders)
    channels = [costs.channels_per_player(g) for g in range(len(orders))]
    wanted = [width_quantum // math.gcd(width_quantum, c) for c in channels]
    quanta = [_group_quantum(len(o), q) if adapt_quantum else q for o, q in zip(orders, wanted, strict=True)]
    least = [max(1, -(-min_channels // c)) for c in channels]
    _take_cheapest(costs, values, orders, gone, quanta, least, budget)
    if costs.total() > budget:
        raise NothingToPruneError(
            f"a ratio of {ratio:g} of the MACs was asked for, but at most {1 - costs.total() / before:.3f} "
            f"can go with widths in steps of {width_quantum} and at least {min_channels} channels left in "
            "every group: ask for less, or for a smaller --width-quantum."
        )
    _exchange(costs, values, orders, gone, quanta, least, budget)
    notes = _lowered(quanta, wanted, channels, width_quantum)
    return _plan(coupling, orders, gone, ratio, before, costs.total(), width_quantum, notes)


def _take_cheapest(
    costs: _Costs,
    values: NDArray[np.float64],
    orders: list[NDArray[np.int64]],
    gone: list[int],
    quanta: list[int],
    least_players: list[int],
    budget: float,
) -> None:
    """Greedy removal in place, least value per MAC first, until ``budget`` holds or no step is left."""
    heap: list[tuple[float, int]] = []

    def price(group: int) -> float | None:
        step = _step(len(orders[group]), gone[group], quanta[group], least_players[group])
        if step == 0:
            return None
        loss = float(values[orders[group][gone[group] : gone[group] + step]].sum())
        return loss / costs.saving(group, step)

    for group in range(len(orders)):
        if (first := price(group)) is not None:
            heapq.heappush(heap, (first, group))
    while costs.total() > budget and heap:
        _, group = heapq.heappop(heap)
        now = price(group)
        if now is None:
            continue
        # Savings only shrink as other groups go, so prices only rise: a stale entry is pushed back.
        if heap and now > heap[0][0]:
            heapq.heappush(heap, (now, group))
            continue
        step = _step(len(orders[group]), gone[group], quanta[group], least_players[group])
        costs.remove(group, step)
        gone[group] += step
        if (again := price(group)) is not None:
            heapq.heappush(heap, (again, group))


def _exchange(
    costs: _Costs,
    values: NDArray[np.float64],
    orders: list[NDArray[np.int64]],
    gone: list[int],
    quanta: list[int],
    least_players: list[int],
    budget: float,
) -> None:
    """Local search in place from a plan within ``budget``: give a step back, for another one if need be."""
    lost = [np.concatenate([[0.0], np.cumsum(values[order])]) for order in orders]
    least = _LEAST_GAIN * float(np.abs(values).sum())

    def best_move() -> tuple[float, int, int, int, int] | None:
        best: tuple[float, int, int, int, int] | None = None
        for back in range(len(orders)):
            returned = min(quanta[back], gone[back])
            gain = float(lost[back][gone[back]] - lost[back][gone[back] - returned])
            if returned == 0 or gain <= (best[0] if best else least):
                continue
            costs.remove(back, -returned)
            over = costs.total() - budget
            if over <= 0:
                best = gain, back, returned, back, 0
            for ahead in range(len(orders)) if over > 0 else ():
                step = _step(len(orders[ahead]), gone[ahead], quanta[ahead], least_players[ahead])
                if step == 0 or ahead == back or costs.saving(ahead, step) < over:
                    continue
                net = gain - float(lost[ahead][gone[ahead] + step] - lost[ahead][gone[ahead]])
                if net > (best[0] if best else least):
                    best = net, back, returned, ahead, step
            costs.remove(back, returned)
        return best

    for _ in range(_MAX_EXCHANGES):
        if (move := best_move()) is None:
            return
        _, back, returned, ahead, step = move
        for group, count in ((back, -returned), (ahead, step)):
            costs.remove(group, count)
            gone[group] += count


def _group_quantum(size: int, quantum: int) -> int:
    """The quantum, halved until the group has at least ``STEPS_PER_GROUP`` steps."""
    while quantum > 1 and size < STEPS_PER_GROUP * quantum:
        quantum //= 2
    return quantum


def _lowered(
    quanta: list[int], wanted: list[int], channels: list[int], width_quantum: int
) -> tuple[str, ...]:
    lowered = [q * c for q, w, c in zip(quanta, wanted, channels, strict=True) if q < w]
    if not lowered:
        return ()
    return (
        f"{len(lowered)} of {len(quanta)} groups are too narrow for widths in steps of {width_quantum}; "
        f"there they go in steps of {min(lowered)} or more (--width-quantum sets one step for all)",
    )


def _step(size: int, gone: int, quantum: int, least_players: int) -> int:
    """Players in the next step: to the next lower multiple of the quantum; 0 if that leaves too few."""
    kept = size - gone
    step = kept % quantum or quantum
    return step if kept - step >= max(least_players, 1) else 0


def _plan(
    coupling: CouplingGraph,
    orders: list[NDArray[np.int64]],
    gone: list[int],
    ratio: float,
    before: int,
    after: int,
    width_quantum: int,
    notes: tuple[str, ...],
) -> PruningPlan:
    removed = sorted(int(p) for order, count in zip(orders, gone, strict=True) for p in order[:count])
    return PruningPlan(
        removed=tuple(removed),
        groups=tuple(
            GroupPlan(group=g.name, players=len(g.players), kept=len(g.players) - count)
            for g, count in zip(coupling.groups, gone, strict=True)
        ),
        ratio_asked=ratio,
        macs_before=before,
        macs_after=after,
        width_quantum=width_quantum,
        notes=notes,
    )
