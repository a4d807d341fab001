"""What the values of a run's ranking stand for, at a small part of the effort of ``edgeprune rank``."""

from __future__ import annotations

import torch

from edgeprune.artifacts.quality import RankingCurves
from edgeprune.commands.rank.removal_curves import (
    POINTS,
    removal_curves,
    removal_orders,
    scope_of_network,
    size_curves,
)
from edgeprune.commands.run.scoring import original_outputs, scoring_context
from edgeprune.commands.run.shared.cached_curves import cached_curves
from edgeprune.commands.run.state import Planned, Prepared, Run, Variant
from edgeprune.commands.run.time_limits import RESERVE_SHARE, time_left_s
from edgeprune.errors import EdgepruneError
from edgeprune.system.imports import first_line

_SIZES_MACS = 3e10
"""Of all random coalitions, down to eight of each size on 16 images."""
_REMOVAL_MACS = 1e11
"""Of all points of the removal curves, down to the least number of images."""
_IMAGES = (256, 32)
"""On which removal is followed: at most, and at least where as many are held out."""


def ranking_curves(run: Run, prepared: Prepared, planned: Planned) -> RankingCurves | None:
    """Curves of the delivered plan's ranking.

    ``None`` where the ranking was given, which has curves of its own, where nothing can be removed or no
    image judges, where the time is over, and where they fail, of which a note tells.
    """
    if planned.ranking.origin is not None:
        return None
    limit = run.options.max_time_s
    if limit is not None and time_left_s(run) < RESERVE_SHARE * limit:
        run.note("--max-time: curves of coalition sizes and of removal are left out of the report")
        return None
    # A ranking of the whole network remains where blocks were dropped later.
    ranked = planned.ranking.values.size
    variant = planned.variant if planned.variant.coupling.num_players == ranked else prepared.variant
    if not variant.coupling.groups or not len(prepared.calibration.held_out):
        return None
    try:
        with run.stage("curves of the ranking"), torch.no_grad():
            return cached_curves(run, prepared, planned, lambda: _curves(run, prepared, planned, variant))
    except (EdgepruneError, MemoryError, RuntimeError, ValueError) as error:
        # Nothing that is delivered depends on them.
        run.note(f"coalition sizes and removal could not be followed for the report ({first_line(error)})")
        return None


def _curves(run: Run, prepared: Prepared, planned: Planned, variant: Variant) -> RankingCurves:
    coupling = variant.coupling
    most = max(_IMAGES[1], min(_IMAGES[0], int(_REMOVAL_MACS // (2 * POINTS * coupling.total_macs()))))
    context = scoring_context(run, prepared, variant, ratio=planned.plan.ratio_asked)
    held = prepared.calibration.held_out.first(most)
    orders = removal_orders(coupling, coupling.groups, (planned.ranking,))
    lost, _ = removal_curves(context, coupling.groups, orders, held, original_outputs(prepared.running, held))
    return RankingCurves(
        loss=context.game.loss_description,
        coalition_sizes=size_curves(
            context, [scope_of_network(coupling.groups)], seed=run.options.seed, most_macs=_SIZES_MACS
        ),
        removal=lost,
    )
