"""Find the compressed model that loses least within a budget: build candidates, measure them, correct.

Costs fall together as a network is cut, so one number is searched: the share of every limit that a plan
aims at by the cost models. A candidate is pruned, exported and measured (or predicted for a device
elsewhere); what is found tells where to aim next, until the budget holds on the artefact itself and is nearly
used up.
"""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.fx import GraphModule

from edgeprune import parity
from edgeprune.artifacts.budget import Budget, BudgetSection, Candidate, Constraint
from edgeprune.artifacts.latency import Provenance
from edgeprune.artifacts.pruning import PruningPlan, Ranking
from edgeprune.artifacts.report import AccuracyKind
from edgeprune.errors import BudgetError, NothingToPruneError, UsageError
from edgeprune.graph.surgery import prune
from edgeprune.latency.memory import peak_memory_bytes
from edgeprune.latency.prediction import predict
from edgeprune.latency.timing import compare, measure
from edgeprune.latency.work import size_bytes
from edgeprune.pipeline import stages
from edgeprune.pipeline.cost_models import measured_model, roofline_model, size_model
from edgeprune.pipeline.exports import write_onnx
from edgeprune.pipeline.state import Planned, Prepared, Pruned, Run
from edgeprune.selection import CostModel, Limit, macs_model, within_limits

_log = logging.getLogger("edgeprune.pipeline")

PAIRS = 100
RATIO_LEVELS = (0.15, 0.25, 0.4, 0.5, 0.65, 0.8)
"""Shares of MACs removed for which channels are ranked anew: the laws of coalitions follow the cut."""
_NEARLY_USED = 0.97
_MAX_CANDIDATES = 7
_DROP_CANDIDATES = 5
_DEEPEST = 0.1
_SAME = 1.005


@dataclass(frozen=True, kw_only=True)
class _Built:
    """A candidate with what it takes to deliver it."""

    figures: Candidate
    planned: Planned
    pruned: Pruned | None
    aim: float


class _Aims:
    """Where to aim next: below some aim nothing can be selected, above another the budget is exceeded."""

    def __init__(self) -> None:
        self.next = 1.0
        self._floor, self._low, self._high = 0.0, 0.0, math.inf

    def unreachable(self) -> bool:
        """No plan goes as low as the last aim; whether there is a higher one to try."""
        self._floor = max(self._floor, self.next)
        if math.isinf(self._high):
            self.next *= 1.5
            return True
        self.next = math.sqrt(self._floor * self._high)
        return not self._settled(self._floor)

    def found(self, used: float) -> bool:
        """What the last aim used of the budget; whether that is as good as it gets."""
        if used <= 1.0:
            self._low = max(self._low, self.next)
        else:
            self._high = min(self._high, self.next)
        least = max(self._floor, self._low)
        if _NEARLY_USED <= used <= 1.0 or self._settled(least):
            return True
        # Where the budget would be just used if costs were proportional, kept inside what is known.
        wanted = self.next * 0.985 / used
        inside = least * 1.002 < wanted < self._high * 0.998
        self.next = (
            wanted if inside or math.isinf(self._high) else math.sqrt(max(least, 0.5 * wanted) * self._high)
        )
        return False

    def _settled(self, least: float) -> bool:
        return least > 0.0 and self._high / least < _SAME


class BudgetSearch:
    """One search; :meth:`run` does it."""

    def __init__(self, run: Run, prepared: Prepared, budget: Budget, work: Path) -> None:
        self._run = run
        self._prepared = prepared
        self._budget = budget
        self._work = work
        self._rankings: dict[float, Ranking] = {}
        self._tried: list[_Built] = []
        held = prepared.calibration.held_out
        self._original_outputs = parity.run_torch(prepared.captured.graph_module, held.images)
        self._labels = None if held.labels is None else held.labels.numpy()
        self._kind = parity.accuracy_kind(self._original_outputs, self._labels is not None)
        if budget.max_drop_points is not None and self._kind is AccuracyKind.RELATIVE_ERROR:
            raise UsageError(
                "--max-drop was given for a model whose outputs are no class scores; accepted there are "
                "--max-latency, --max-size, --max-memory and --ratio"
            )
        with run.stage("measure the original"):
            write_onnx(run, prepared, prepared.captured.graph_module, work / "original.onnx", work)
            self._original = self._measure_original()
        with run.stage("cost models"):
            self._models = self._cost_models()

    def run(self) -> tuple[Planned, Pruned]:
        """The model to deliver and all that was tried.

        Raises:
            BudgetError: nothing that was reached holds the budget; names what binds and the nearest.
        """
        if self._budget.limits_costs:
            found = self._within_costs()
            found = self._with_drop(found)
            limit = self._budget.max_drop_points
            if limit is not None and (found.figures.drop_points or 0.0) > limit:
                self._refuse_drop(found)
        else:
            found = self._deepest_within_drop()
        assert found.pruned is not None
        section = BudgetSection(
            budget=self._budget,
            original=self._original,
            candidates=tuple(b.figures for b in self._tried),
            chosen=found.figures.name,
            binding=_binding(found.figures, self._original, self._budget),
            drop_of=self._kind.value,
        )
        return replace(found.planned, search=section), found.pruned

    def _within_costs(self) -> _Built:
        """The candidate that uses the cost limits best, by aiming and correcting."""
        if self._run.options.ratio is None and not _exceeded(self._original, self._budget, with_drop=False):
            self._run.note("the original already holds the budget, so nothing is removed")
            return self._build(1.0, nothing=True)
        aims = _Aims()
        best: _Built | None = None
        for _ in range(_MAX_CANDIDATES):
            try:
                built = self._build(aims.next)
            except NothingToPruneError as error:
                if not aims.unreachable():
                    raise self._out_of_reach(str(error)) from error
                continue
            used = _used(built.figures, self._original, self._budget)
            _log.info("%s uses %.1f%% of the budget", built.figures.name, 100 * used)
            if used <= 1.0 and (best is None or built.aim > best.aim):
                best = built
            if aims.found(used):
                break
        if best is None:
            raise self._out_of_reach("no plan came within the limits")
        return best

    def _deepest_within_drop(self) -> _Built:
        """Without limits on costs: the fastest candidate whose drop is accepted."""
        limit = self._budget.max_drop_points
        assert limit is not None
        best, good, bad, aim = None, 1.0, _DEEPEST, 0.75
        for _ in range(_DROP_CANDIDATES):
            try:
                built = self._with_drop(self._build(aim))
            except NothingToPruneError:
                bad, aim = max(bad, aim), (max(bad, aim) + good) / 2
                continue
            if (built.figures.drop_points or 0.0) <= limit:
                best, good = built, aim
            else:
                bad = aim
            aim = (good + bad) / 2
        if best is None:
            nearest = min(self._tried, key=lambda b: b.figures.drop_points or 0.0)
            self._refuse_drop(nearest)
            raise AssertionError
        return best

    def _build(self, aim: float, *, nothing: bool = False) -> _Built:
        """Select for ``aim`` times the limits, prune, export and measure; not yet recovered."""
        name = f"candidate {len(self._tried) + 1}"
        planned = self._plan(aim, nothing=nothing)
        captured, coupling = self._prepared.captured, self._prepared.coupling
        with self._run.stage(name):
            bare = prune(captured, coupling, planned.plan.removed)
            path = self._work / "candidate.onnx"
            write_onnx(self._run, self._prepared, bare, path, self._work)
            figures = self._measure(name, planned.plan, path)
        found = replace(figures, exceeded=_exceeded(figures, self._budget, with_drop=True))
        built = _Built(figures=found, planned=planned, pruned=None, aim=aim)
        self._tried.append(built)
        return built

    def _with_drop(self, built: _Built) -> _Built:
        """Recover the candidate and judge it on the images that are kept back."""
        pruned = stages.prune_and_recover(self._run, self._prepared, built.planned)
        drop = self._drop(pruned.recovered)
        figures = replace(built.figures, drop_points=drop)
        figures = replace(figures, exceeded=_exceeded(figures, self._budget, with_drop=True))
        found = replace(built, figures=figures, pruned=pruned)
        self._tried[self._tried.index(built)] = found
        return found

    def _drop(self, module: GraphModule) -> float | None:
        if self._kind is AccuracyKind.RELATIVE_ERROR:
            return None
        outputs = parity.run_torch(module, self._prepared.calibration.held_out.images)
        before, after = (
            parity.accuracy(
                "", found, original=self._original_outputs, labels=self._labels, kind=self._kind
            ).value
            for found in (self._original_outputs, outputs)
        )
        return 100 * (before - after)

    def _plan(self, aim: float, *, nothing: bool) -> Planned:
        coupling = self._prepared.coupling
        asked_by = "budget"
        if nothing:
            flat = [Limit(model=macs_model(coupling), most=coupling.total_macs())]
            plan = within_limits(np.ones(coupling.num_players), coupling, limits=flat)
            return Planned(ranking=self._ranking(RATIO_LEVELS[0]), plan=plan, ratio_asked_by=asked_by)
        limits = [Limit(model=m, most=aim * share * self._total(m)) for m, share in self._models]
        if (ratio := self._run.options.ratio) is not None:
            limits.append(Limit(model=macs_model(coupling), most=(1 - ratio) * coupling.total_macs()))
        quantum = self._run.options.width_quantum or self._prepared.target.width_quantum
        adapt = self._run.options.width_quantum is None

        def select(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> PruningPlan:
            return within_limits(values, coupling, limits=limits, width_quantum=quantum, adapt_quantum=adapt)

        flat_plan = select(np.ones(coupling.num_players))
        ranking = self._ranking(_level(flat_plan.macs_removed_share))
        plan = select(ranking.removal_costs)
        better = self._ranking(_level(plan.macs_removed_share))
        if better is not ranking:
            ranking, plan = better, select(better.removal_costs)
        return Planned(
            ranking=ranking,
            plan=replace(plan, ratio_asked=plan.macs_removed_share),
            ratio_asked_by=asked_by,
        )

    def _total(self, model: CostModel) -> float:
        layers = self._prepared.coupling.layers
        return model.fixed + sum(
            cost.at(int(x.out_players.size), int(x.in_players.size))
            for cost, x in zip(model.layers, layers, strict=True)
        )

    def _ranking(self, level: float) -> Ranking:
        if level not in self._rankings:
            self._rankings[level] = stages.rank_for(self._run, self._prepared, level)
        return self._rankings[level]

    def _cost_models(self) -> list[tuple[CostModel, float]]:
        """A model for every limited cost (latency where only the drop is limited), and its share of now."""
        budget, original = self._budget, self._original
        captured, coupling = self._prepared.captured, self._prepared.coupling
        found = []
        share = _latency_share(budget, original)
        if share is not None or not budget.limits_costs:
            found.append((self._latency_model(), share if share is not None else 1.0))
        if budget.max_size_bytes is not None:
            model = size_model(captured, coupling, original.size_bytes)
            found.append((model, budget.max_size_bytes / original.size_bytes))
        if budget.max_memory_bytes is not None and original.memory_bytes:
            # Weights and activations shrink with the widths; multiply-accumulates with their product.
            found.append((macs_model(coupling), budget.max_memory_bytes / original.memory_bytes))
        return found

    def _latency_model(self) -> CostModel:
        captured, coupling, target = self._prepared.captured, self._prepared.coupling, self._prepared.target
        if not target.is_host:
            return roofline_model(captured, coupling, target, self._original.latency_ms)
        return measured_model(
            captured, coupling, threads=self._run.threads, step=target.width_quantum,
            total_ms=self._cpu_ms, note=self._run.note,
        )  # fmt: skip

    def _measure_original(self) -> Candidate:
        path, target = self._work / "original.onnx", self._prepared.target
        self._cpu_ms = 0.0
        if target.is_host:
            found = measure(path, threads=self._run.threads, batch_size=self._run.options.batch_size or 1)
            self._cpu_ms, latency = found.cpu_time_p50_ms, found.latency_p50_ms
        else:
            latency = predict(path, target).latency_ms
        return Candidate(
            name="original",
            macs_share=1.0,
            latency_ms=latency,
            latency_share=1.0,
            latency_provenance=Provenance.MEASURED_ON_HOST if target.is_host else Provenance.PREDICTED,
            size_bytes=size_bytes(path),
            memory_bytes=self._memory(path),
            drop_points=None if self._kind is AccuracyKind.RELATIVE_ERROR else 0.0,
            exceeded=(),
        )

    def _memory(self, path: Path) -> int | None:
        if self._budget.max_memory_bytes is None:
            return None
        return peak_memory_bytes(path, self._run.threads, self._run.options.batch_size or 1)

    def _measure(self, name: str, plan: PruningPlan, path: Path) -> Candidate:
        target, original = self._prepared.target, self._original
        if target.is_host:
            share = compare(
                self._work / "original.onnx", path, threads=self._run.threads,
                batch_size=self._run.options.batch_size or 1, pairs=PAIRS, seed=self._run.options.seed,
            ).ratio  # fmt: skip
        else:
            share = predict(path, target).latency_ms / original.latency_ms
        return Candidate(
            name=name,
            macs_share=1.0 - plan.macs_removed_share,
            latency_ms=share * original.latency_ms,
            latency_share=share,
            latency_provenance=original.latency_provenance,
            size_bytes=size_bytes(path),
            memory_bytes=self._memory(path),
            drop_points=None,
            exceeded=(),
        )

    def _out_of_reach(self, reason: str) -> BudgetError:
        if not self._tried:
            return BudgetError(f"the budget is out of reach: {reason}")
        nearest = min(self._tried, key=lambda b: _used(b.figures, self._original, self._budget)).figures
        binding = _binding(nearest, self._original, self._budget)
        return BudgetError(
            f"the budget is out of reach, {binding} binds: the nearest of {len(self._tried)} candidates has "
            f"{_words(nearest)}; give more, or another target"
        )

    def _refuse_drop(self, found: _Built) -> None:
        limit, drop = self._budget.max_drop_points, found.figures.drop_points
        raise BudgetError(
            f"the budget is out of reach, the drop binds: within the other limits the best candidate has "
            f"{_words(found.figures)} and loses {drop:.2f} points where {limit:g} were allowed; allow more "
            "loss or cost, or give more calibration images"
        )


def search(run: Run, prepared: Prepared) -> tuple[Planned, Pruned]:
    """Search for the budget of the options; see :class:`BudgetSearch`."""
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch, torch.no_grad():
        return BudgetSearch(run, prepared, run.options.budget, Path(scratch)).run()


def _level(ratio: float) -> float:
    return min(RATIO_LEVELS, key=lambda level: abs(level - ratio))


def _latency_share(budget: Budget, original: Candidate) -> float | None:
    shares = [] if budget.max_latency_share is None else [budget.max_latency_share]
    if budget.max_latency_ms is not None:
        shares.append(budget.max_latency_ms / original.latency_ms)
    return min(shares, default=None)


def _uses(figures: Candidate, original: Candidate, budget: Budget) -> dict[Constraint, float]:
    """Share of every cost limit that a candidate uses."""
    found = {}
    if (share := _latency_share(budget, original)) is not None:
        found[Constraint.LATENCY] = figures.latency_share / share
    if budget.max_size_bytes is not None:
        found[Constraint.SIZE] = figures.size_bytes / budget.max_size_bytes
    if budget.max_memory_bytes is not None and figures.memory_bytes is not None:
        found[Constraint.MEMORY] = figures.memory_bytes / budget.max_memory_bytes
    return found


def _used(figures: Candidate, original: Candidate, budget: Budget) -> float:
    return max(_uses(figures, original, budget).values(), default=0.0)


def _binding(figures: Candidate, original: Candidate, budget: Budget) -> str | None:
    uses = _uses(figures, original, budget)
    if not uses:
        return Constraint.DROP.value
    return max(uses, key=lambda c: uses[c]).value


def _exceeded(figures: Candidate, budget: Budget, *, with_drop: bool) -> tuple[str, ...]:
    reference = replace(figures, latency_ms=figures.latency_ms / max(figures.latency_share, 1e-12))
    found = [c.value for c, use in _uses(figures, reference, budget).items() if use > 1.0]
    limit = budget.max_drop_points
    if with_drop and limit is not None and figures.drop_points is not None and figures.drop_points > limit:
        found.append(Constraint.DROP.value)
    return tuple(found)


def _words(figures: Candidate) -> str:
    memory = "" if figures.memory_bytes is None else f", {figures.memory_bytes / 1e6:.2f} MB of memory"
    return (
        f"{figures.latency_ms:.3g} ms ({figures.latency_share:.0%} of the original, "
        f"{figures.latency_provenance.value}), {figures.size_bytes / 1e6:.3g} MB{memory}"
    )
