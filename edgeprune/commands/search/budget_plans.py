"""Plans of a budget search: channels selected with all limits scaled by one factor."""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

import numpy as np

from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.pruning import PruningPlan
from edgeprune.commands.run.iterative_pruning import RoundsRanker
from edgeprune.commands.run.stages import quantum_of
from edgeprune.commands.run.state import Planned, Prepared, Run, Variant
from edgeprune.commands.search.block_removal import projected, restricted
from edgeprune.commands.search.budget_aims import latency_share
from edgeprune.importance.journals import Journals
from edgeprune.selection import CostModel, Limit, Widths, least_costs, macs_model, within_limits

RATIO_LEVELS = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Shares of MACs removed for which channels are ranked: the laws of coalitions follow the cut. Each lies
``rounds.ROUND_STEP`` beyond the one before, which it continues."""


class _Rounding(TypedDict):
    """How widths are rounded."""

    width_quantum: int
    adapt_quantum: bool


class BudgetPlanner:
    """Ranks at the level nearest to a cut and selects within cost models, each with the share it may keep."""

    def __init__(
        self,
        run: Run,
        prepared: Prepared,
        models: list[tuple[CostModel, float]],
        journals: Journals | None = None,
    ) -> None:
        self._run = run
        self._prepared = prepared
        self._models = models
        self._ranker = RoundsRanker(run, prepared, journals)
        self._asked_by = "default" if run.limits_by_default else "budget"

    def nothing(self) -> Planned:
        """The plan that removes nothing."""
        return Planned(
            variant=self._prepared.variant,
            ranking=self._ranker.at(RATIO_LEVELS[0]),
            plan=empty_plan(self._prepared.coupling),
            ratio_asked_by=self._asked_by,
        )

    def plan(self, aim: float, variant: Variant | None = None) -> Planned:
        """The least-loss plan for ``variant`` with all costs within ``aim`` times their limits.

        Channels are ranked in the whole network, at the level nearest to the removed share of all MACs.

        Raises:
            NothingToPruneError: no plan reaches the limits.
        """
        variant = variant or self._prepared.variant
        whole, coupling = self._prepared.coupling, variant.coupling
        limits = [
            Limit(model=restricted(m, whole, coupling), most=self._aimed(aim, m, share))
            for m, share in self._models
        ]
        if (ratio := self._run.options.ratio) is not None:
            limits.append(Limit(model=macs_model(coupling), most=(1 - ratio) * whole.total_macs()))

        def select(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> PruningPlan:
            selected = within_limits(values, coupling, limits=limits, **self._rounding())
            return replace(selected, macs_before=whole.total_macs())

        level = _level(select(np.ones(coupling.num_players)).macs_removed_share)
        ranking = projected(self._ranker.at(level), whole, coupling)
        plan = select(ranking.removal_costs)
        if (better := _level(plan.macs_removed_share)) != level:
            ranking = projected(self._ranker.at(better), whole, coupling)
            plan = select(ranking.removal_costs)
        plan = replace(plan, ratio_asked=plan.macs_removed_share)
        return Planned(variant=variant, ranking=ranking, plan=plan, ratio_asked_by=self._asked_by)

    def predicted(self, plan: PruningPlan) -> dict[str, tuple[float, float]]:
        """By name of cost model: the share of the total that a plan keeps, and the share allowed."""
        coupling = self._prepared.coupling
        widths = Widths(coupling, [model for model, _ in self._models])
        before = widths.totals()
        groups, counts = np.unique(coupling.group_of_player()[list(plan.removed)], return_counts=True)
        for group, count in zip(groups.tolist(), counts.tolist(), strict=True):
            widths.remove(group, count)
        kept = [after / whole for after, whole in zip(widths.totals(), before, strict=True)]
        return {m.name: (ratio, share) for (m, share), ratio in zip(self._models, kept, strict=True)}

    def most_saved(self) -> float:
        """Share of the first cost saved by the narrowest network."""
        model = self._models[0][0]
        return 1.0 - self._least(model) / self._total(model)

    def _least(self, model: CostModel) -> float:
        (least,) = least_costs(self._prepared.coupling, [model], **self._rounding())
        return least

    def _aimed(self, aim: float, model: CostModel, share: float) -> float:
        """The limit of a model: ``aim`` times its share of the total; without cost limits ``aim``
        interpolates from the narrowest network (0) to the whole one (1)."""
        if self._run.options.budget.limits_costs:
            return aim * share * self._total(model)
        least = self._least(model)
        return least + aim * (self._total(model) - least)

    def _rounding(self) -> _Rounding:
        quantum = quantum_of(self._run, self._prepared.target)
        adapt = self._run.options.width_quantum is None and not (
            self._limits_latency() and self._has_steps(quantum)
        )
        return {"width_quantum": quantum, "adapt_quantum": adapt}

    def _limits_latency(self) -> bool:
        budget = self._run.options.budget
        return latency_share(budget, None) is not None or not budget.limits_costs

    def _has_steps(self, quantum: int) -> bool:
        """Whether any group is wide enough for a step of the quantum.

        Kernels are optimized for its multiples, and a smaller width can cost more than the quantum itself: on
        x86 a convolution of 8 channels took longer than one of 16, and ResNet-20 with 58% of its MACs in such
        widths 126% of its time. So if latency is limited, the quantum is not halved in narrow groups.
        """
        coupling = self._prepared.coupling
        widths = Widths(coupling, [])
        sizes = [len(g.players) * widths.channels_per_player(i) for i, g in enumerate(coupling.groups)]
        return max(sizes, default=0) >= 2 * quantum

    def _total(self, model: CostModel) -> float:
        return Widths(self._prepared.coupling, [model]).totals()[0]


def empty_plan(coupling: CouplingGraph) -> PruningPlan:
    """The plan that removes nothing."""
    limit = Limit(model=macs_model(coupling), most=coupling.total_macs())
    return within_limits(np.ones(coupling.num_players), coupling, limits=[limit])


def _level(ratio: float) -> float:
    return min(RATIO_LEVELS, key=lambda level: abs(level - ratio))
