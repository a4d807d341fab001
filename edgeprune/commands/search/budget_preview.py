"""Dry run of a budget search: its first plan and the predicted costs; nothing is built or evaluated."""

from __future__ import annotations

import torch

from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.pruning import PruningPlan
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.commands.search.budget_aims import exceeded_limits
from edgeprune.commands.search.budget_plans import BudgetPlanner, empty_plan
from edgeprune.commands.search.candidate_costs import CandidateCosts
from edgeprune.commands.search.galloping import Gallop
from edgeprune.errors import NothingToPruneError, UsageError
from edgeprune.results import PredictedCost
from edgeprune.storage.files import scratch_folder


def check_preview(budget: Budget) -> None:
    """Check that the limits can be predicted without a search.

    Raises:
        UsageError: only the drop is limited.
    """
    if not budget.is_empty and not budget.limits_costs:
        raise UsageError(
            "a dry run was asked for with a limit on the drop alone, and what is lost only shows when "
            "candidates are built; accepted are limits on latency, size or memory, or a ratio"
        )


def preview(run: Run, prepared: Prepared) -> tuple[PruningPlan, tuple[PredictedCost, ...]]:
    """The first plan of a search, and its predicted costs beside the limits.

    Raises:
        NothingToPruneError: no plan is within the limits by the cost models.
    """
    budget, by_default = run.options.budget, run.limits_by_default
    if by_default:
        run.note(
            f"no limit was given, so compress would look for the fastest network that loses at most "
            f"{budget.max_drop_points:g} point, and begin with this plan; what is lost only shows when "
            "candidates are built, so it may end with a deeper cut, a milder one or the original"
        )
    elif budget.max_drop_points is not None:
        run.note("what is lost is not predicted: a search measures it on images that are kept back")
    with scratch_folder() as scratch, torch.no_grad():
        costs = CandidateCosts(run, prepared, scratch)
        planner = BudgetPlanner(run, prepared, costs.models())
        if by_default:
            return _first_of_default(planner)
        if run.options.ratio is None and not exceeded_limits(costs.stored, budget):
            run.note("the original already holds the budget, so nothing would be removed")
            plan = empty_plan(prepared.coupling)
        else:
            plan = planner.plan(1.0).plan
    predicted = planner.predicted(plan)
    rows = (
        PredictedCost(cost=name, share=kept, limit_share=limit) for name, (kept, limit) in predicted.items()
    )
    return plan, tuple(rows)


def _first_of_default(planner: BudgetPlanner) -> tuple[PruningPlan, tuple[PredictedCost, ...]]:
    """The first plan of a default search, and its predicted costs beside the share of its cut."""
    most = planner.most_saved()
    cut = Gallop(most).next
    if cut <= 0.0:
        raise NothingToPruneError(
            "no channel of the model can be removed in steps of the width quantum; give a smaller "
            "--width-quantum"
        )
    plan = planner.plan(1.0 - cut / most).plan
    rows = (
        PredictedCost(cost=name, share=kept, limit_share=1.0 - cut)
        for name, (kept, _) in planner.predicted(plan).items()
    )
    return plan, tuple(rows)
