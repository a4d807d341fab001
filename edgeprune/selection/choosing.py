"""Select players to remove: least value per MAC first, over the whole network. Pure functions, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.pruning import GroupPlan, PruningPlan
from edgeprune.errors import NothingToPruneError
from edgeprune.selection.costs import CostModel, Limit, Widths, macs_model
from edgeprune.selection.steps import Search, Steps

MIN_CHANNELS = 2
STEPS_PER_GROUP = 4


def select(
    values: NDArray[np.float64],
    coupling: CouplingGraph,
    *,
    ratio: float,
    width_quantum: int = 1,
    adapt_quantum: bool = False,
    min_channels: int = MIN_CHANNELS,
) -> PruningPlan:
    """Remove players until ``ratio`` of the MACs is saved, those with the least value per MAC saved first.

    Then steps are undone, or exchanged between two groups, as long as that lowers the value lost and the
    ratio still holds, to recover what greedy selection in coarse steps overshoots.
    Widths shrink in steps that leave each group a multiple of ``width_quantum`` channels and at least
    ``min_channels``; a smaller group is kept whole. A player of several channels (an attention head, a
    norm group) counts as that many. With ``adapt_quantum`` the quantum is halved
    in groups of fewer than ``STEPS_PER_GROUP`` steps, where rounding would cost more than it gains.

    Args:
        values: cost of removing each player (n_players,), additive over players.

    Raises:
        NothingToPruneError: there are no players, or the ratio cannot be reached; says how far it goes.
    """
    limit = Limit(model=macs_model(coupling), most=coupling.total_macs() * (1.0 - ratio))
    return within_limits(
        values, coupling, limits=(limit,), ratio_asked=ratio, width_quantum=width_quantum,
        adapt_quantum=adapt_quantum, min_channels=min_channels,
    )  # fmt: skip


def within_limits(
    values: NDArray[np.float64],
    coupling: CouplingGraph,
    *,
    limits: Sequence[Limit],
    ratio_asked: float = 0.0,
    width_quantum: int = 1,
    adapt_quantum: bool = False,
    min_channels: int = MIN_CHANNELS,
) -> PruningPlan:
    """Remove players until every limit holds, those with the least value per saving on exceeded limits first.

    A knapsack over coupled groups (cf. HALP, arXiv 2110.10811): up to 20,000 plans are all tried; beyond
    that, steps are taken by price, value lost per saved share of the exceeded limits, and are then undone
    or exchanged. The other arguments are those of :func:`select`.

    Raises:
        NothingToPruneError: there are no players, or a limit cannot be reached; says how far it goes.
    """
    if coupling.num_players == 0:
        raise NothingToPruneError(
            "no channel of the model can be removed: every layer's channels are part of the output or held "
            "by an operator; 'edgeprune inspect' lists what holds each layer"
        )
    widths = Widths(coupling, [limit.model for limit in limits])
    before = widths.totals()
    orders = [
        np.array(g.players)[np.argsort(values[list(g.players)], kind="stable")] for g in coupling.groups
    ]
    channels = [widths.channels_per_player(g) for g in range(len(orders))]
    wanted = [width_quantum // math.gcd(width_quantum, c) for c in channels]
    steps = _steps(orders, channels, width_quantum, min_channels, adapt_quantum=adapt_quantum)
    quanta = [s.quantum for s in steps]
    search = Search(values, steps, widths, limits)
    search.run()
    if not search.within():
        raise NothingToPruneError(_out_of_reach(limits, before, widths.totals(), width_quantum, min_channels))
    notes = _lowered(quanta, wanted, channels, width_quantum)
    return _plan(coupling, orders, search.gone, ratio_asked, width_quantum, notes)


def least_costs(
    coupling: CouplingGraph,
    models: Sequence[CostModel],
    *,
    width_quantum: int = 1,
    adapt_quantum: bool = False,
    min_channels: int = MIN_CHANNELS,
) -> tuple[float, ...]:
    """Costs of the narrowest network by each model; arguments as of :func:`select`."""
    widths = Widths(coupling, models)
    orders = [np.array(g.players) for g in coupling.groups]
    channels = [widths.channels_per_player(g) for g in range(len(orders))]
    steps = _steps(orders, channels, width_quantum, min_channels, adapt_quantum=adapt_quantum)
    for group, group_steps in enumerate(steps):
        widths.remove(group, group_steps.counts()[-1])
    return widths.totals()


def _steps(
    orders: Sequence[NDArray[np.int64]],
    channels: Sequence[int],
    width_quantum: int,
    min_channels: int,
    *,
    adapt_quantum: bool,
) -> list[Steps]:
    """Steps of every group; ``channels`` are the channels per player."""
    steps = []
    for order, wide in zip(orders, channels, strict=True):
        quantum = width_quantum // math.gcd(width_quantum, wide)
        quantum = _group_quantum(len(order), quantum) if adapt_quantum else quantum
        steps.append(Steps(order=order, quantum=quantum, least_players=max(1, -(-min_channels // wide))))
    return steps


def _out_of_reach(
    limits: Sequence[Limit],
    before: tuple[float, ...],
    least: tuple[float, ...],
    width_quantum: int,
    min_channels: int,
) -> str:
    limit, start, cost = max(
        zip(limits, before, least, strict=True),
        key=lambda item: item[2] / item[0].most if item[0].most else 0,
    )
    name = limit.model.name
    return (
        f"a ratio of {1 - limit.most / start:g} of the {name} was asked for, but at most "
        f"{1 - cost / start:.3f} can go with widths in steps of {width_quantum} and at least {min_channels} "
        "channels left in every group: ask for less, or for a smaller --width-quantum."
    )


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


def _plan(
    coupling: CouplingGraph,
    orders: list[NDArray[np.int64]],
    gone: list[int],
    ratio: float,
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
        macs_before=coupling.total_macs(),
        macs_after=coupling.total_macs(coupling.removed_mask(removed)),
        width_quantum=width_quantum,
        notes=notes,
    )
