"""Networks cut by a share of the MACs in a criterion's order, recovered and judged on held-out images."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
import torch

from edgeprune import parity
from edgeprune.artifacts.arrays import Advance, IndexArray
from edgeprune.artifacts.coupling import CoupledGroup, CouplingGraph
from edgeprune.artifacts.quality import RecoveredNetworks, RemovalPoint
from edgeprune.commands.rank.removal_curves import RemovalJudge
from edgeprune.commands.run.state import Prepared, Run, split_for_recovery
from edgeprune.errors import UsageError
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.system import progress


def check_reachable(cuts: Sequence[float], coupling: CouplingGraph, groups: Sequence[CoupledGroup]) -> None:
    """Check that removing all but one channel of each group reaches every share of the MACs.

    Raises:
        UsageError: a share is out of reach.
    """
    leaving = np.array([p for g in groups for p in sorted(g.players)[:-1]], dtype=np.int64)
    for cut in cuts:
        removed_at(cut, leaving, coupling)


def removed_at(cut: float, order: IndexArray, coupling: CouplingGraph) -> int:
    """Number of players of ``order`` to remove to save a share ``cut`` of the MACs.

    Raises:
        UsageError: removing all of them saves less.
    """
    whole = coupling.total_macs()

    def saved(count: int) -> float:
        return 1.0 - coupling.total_macs(coupling.removed_mask(order[:count].tolist())) / whole

    if saved(len(order)) < cut:
        raise UsageError(
            f"--recover-at {cut:g} was given, and without all but one channel of each group that is ranked "
            f"{saved(len(order)):.3f} of the MACs are gone; accepted is a share up to that"
        )
    return bisect.bisect_left(range(len(order) + 1), cut, key=saved)


def recovered_networks(
    run: Run,
    prepared: Prepared,
    judge: RemovalJudge,
    orders: Sequence[tuple[str, IndexArray]],
    players: int,
    cuts: Sequence[float],
) -> tuple[RecoveredNetworks, ...]:
    """The networks at the ``cuts`` of each named order, out of ``players`` in total; empty without cuts."""
    if not cuts:
        return ()
    total = len(cuts) * len(orders)
    with run.stage("recover"), progress.task("recovering networks", total) as advance:
        return tuple(
            RecoveredNetworks(
                criterion=name,
                points=tuple(
                    _recovered(run, prepared, judge, order, players, cut, advance=advance) for cut in cuts
                ),
            )
            for name, order in orders
        )


def _recovered(
    run: Run,
    prepared: Prepared,
    judge: RemovalJudge,
    order: IndexArray,
    players: int,
    cut: float,
    *,
    advance: Advance,
) -> RemovalPoint:
    """One network, recovered on the fitting images and judged on the held-out images."""
    captured, coupling = prepared.captured, prepared.coupling
    count = removed_at(cut, order, coupling)
    removed = tuple(sorted(order[:count].tolist()))
    network, report = reconstruct(
        captured.graph_module,
        prune(captured, coupling, removed),
        coupling,
        removed,
        split_for_recovery(run, prepared),
        generator=torch.Generator().manual_seed(run.options.seed),
        device=prepared.device,
    )
    run.notes.extend(report.notes)
    outputs = parity.run_torch(network, prepared.calibration.held_out.images)
    advance(1)
    return judge.judged(order, count, players, outputs)
