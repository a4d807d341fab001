"""Find the compressed model with the least loss within a budget: build candidates, measure, correct.

All costs fall as a network is cut, so the search has one variable: the aim, the share of every limit that a
plan has to meet by the cost models. A candidate is pruned, exported and measured (or predicted for another
device); the result sets the next aim, until the exported model is within the budget and nearly uses it up.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.fx import GraphModule

from edgeprune import parity
from edgeprune.artifacts.budget import BudgetSection, Candidate
from edgeprune.artifacts.quantization import Precision
from edgeprune.commands.compress.quantization_stage import put_in_fewer_bits, stores_fewer_bits
from edgeprune.commands.run.exports import write_onnx, write_surgery
from edgeprune.commands.run.resume import decisions, kept_values
from edgeprune.commands.run.state import Planned, Prepared, Pruned, Run, Variant, measure_of
from edgeprune.commands.run.time_limits import another_candidate_fits
from edgeprune.commands.run.training.build import build_candidate
from edgeprune.commands.search.block_removal import shallower
from edgeprune.commands.search.budget_aims import (
    Aims,
    binding_limit,
    budget_used,
    exceeded_limits,
    in_words,
)
from edgeprune.commands.search.budget_plans import BudgetPlanner
from edgeprune.commands.search.candidate_costs import CandidateCosts
from edgeprune.commands.search.candidate_records import CANDIDATES_FOLDER, StoredCandidate
from edgeprune.commands.search.candidates import CandidateStore, candidate_name, write_record
from edgeprune.commands.search.default_goal import WITHOUT_POINTS
from edgeprune.commands.search.paired_drop import Drop, drop_of
from edgeprune.errors import BudgetError, NothingToPruneError
from edgeprune.evaluation.registry import check_drop
from edgeprune.importance.journals import Journals
from edgeprune.pruning.surgery import prune
from edgeprune.reporting.budget_words import limits_in_words
from edgeprune.storage.files import scratch_folder

_log = logging.getLogger("edgeprune.commands")

_MAX_CANDIDATES = 7
_MAX_SHALLOWER = 3
"""Candidates of each network without some blocks."""
_MOST_IN_VAIN = 2
_MAX_AIMS = 40
_DROP_CANDIDATES = 5


@dataclass(frozen=True, kw_only=True)
class Built:
    """A candidate with everything needed to deliver it."""

    figures: Candidate
    planned: Planned
    pruned: Pruned
    aim: float


class BudgetSearch:
    """One search, started by :meth:`run`; :meth:`_find` defines its goal."""

    def __init__(self, run: Run, prepared: Prepared, journals: Journals, work: Path) -> None:
        self._run = run
        self._prepared = prepared
        self._journals = journals
        self._budget = budget = run.options.budget
        self._work = work
        self.store = CandidateStore(journals.place(CANDIDATES_FOLDER, "candidates"))
        self._tried: list[Built] = []
        self._last_s = 0.0
        self._ended_early = False
        self._measure = measure_of(run, prepared)
        check_drop(self._measure, budget.max_drop_points, WITHOUT_POINTS)
        known = self.store.baseline()
        self._costs = CandidateCosts(run, prepared, work, known)
        if known is None:
            self.store.keep_baseline(self._costs.baseline)
        points = 0.0 if self._measure.counts_points else None
        self._original = replace(self._costs.original, drop_points=points)
        self._models = self._costs.models()
        self._planner = BudgetPlanner(run, prepared, self._models, journals)

    def run(self) -> tuple[Planned, Pruned]:
        """The model to deliver, with the figures of all candidates.

        Raises:
            BudgetError: no candidate is within the budget; names the binding limit and the nearest one.
        """
        chosen = self._find()
        self._run.notes.extend(chosen.pruned.notes)
        section = BudgetSection(
            budget=self._budget,
            original=self._original,
            candidates=tuple(b.figures for b in self._tried),
            chosen=chosen.figures.name,
            binding=binding_limit(chosen.figures, self._original, self._budget),
            drop_of=self._measure.kind.value,
            by_default=self._run.limits_by_default,
            ended_early=self._ended_early,
        )
        return replace(chosen.planned, search=section), chosen.pruned

    def _find(self) -> Built:
        """The candidate to deliver."""
        if not self._budget.limits_costs:
            return self._deepest_within_drop()
        best = self._best_within_costs()
        limit = self._budget.max_drop_points
        if limit is not None and _lost(best) > limit:
            self._refuse_drop(best)
        return best

    def _best_within_costs(self) -> Built:
        """The best candidate with all blocks, or with fewer if that loses less."""
        if self._run.options.ratio is None and not exceeded_limits(self._costs.stored, self._budget):
            self._run.note("the original already holds the budget, so nothing is removed")
            return self._build(1.0, self._prepared.variant, nothing=True)
        best, reason = self._within_costs(self._prepared.variant, _MAX_CANDIDATES)
        nothing_lost = best is not None and _lost(best) <= 0.0
        judged = self._measure.counts_points
        if self._run.options.drop_blocks and judged and not nothing_lost:
            best = self._best_shallower(best)
        if best is None:
            raise self._out_of_reach(reason)
        return best

    def _best_shallower(self, best: Built | None) -> Built | None:
        """The best with successively fewer blocks, until two in a row do not pay or no channel has to go."""
        in_vain = 0
        for variant in shallower(self._run, self._prepared, self._models[0][0]):
            if best is not None and self._time_is_up():
                break
            candidate, _ = self._within_costs(variant, _MAX_SHALLOWER)
            if candidate is not None and (best is None or _lost(candidate) < _lost(best)):
                best, in_vain = candidate, 0
            elif best is not None:
                in_vain += 1
            whole_fits = candidate is not None and not candidate.planned.plan.removed
            if in_vain == _MOST_IN_VAIN or whole_fits:
                break
        return best

    def _within_costs(self, variant: Variant, most: int) -> tuple[Built | None, str]:
        """The best candidate of ``variant`` within the limits, by corrected aims, or why there is none."""
        aims, built_before = Aims(), len(self._tried)
        best: Built | None = None
        for _ in range(_MAX_AIMS):
            if len(self._tried) - built_before == most or (best is not None and self._time_is_up()):
                break
            try:
                built = self._build(aims.next, variant)
            except NothingToPruneError as error:
                if not aims.unreachable():
                    return best, str(error)
                continue
            used = budget_used(built.figures, self._original, self._budget)
            _log.info("%s uses %.1f%% of the budget", built.figures.name, 100 * used)
            if used <= 1.0 and (best is None or _merit(built) > _merit(best)):
                best = built
            if aims.found(used):
                break
        return best, "no plan came within the limits"

    def _deepest_within_drop(self) -> Built:
        """Without cost limits: the fastest candidate within the drop limit, with all blocks or fewer."""
        best = self._deepest(self._prepared.variant, _DROP_CANDIDATES)
        if best is None:
            nearest = min(self._tried, key=_lost)
            self._refuse_drop(nearest)
            raise AssertionError
        return self._deepest_shallower(best) if self._run.options.drop_blocks else best

    def _deepest_shallower(self, best: Built) -> Built:
        """The fastest with successively fewer blocks, until two in a row are no faster."""
        in_vain = 0
        for variant in shallower(self._run, self._prepared, self._models[0][0]):
            if self._time_is_up():
                break
            candidate = self._deepest(variant, _MAX_SHALLOWER, within=best.aim)
            if candidate is not None and candidate.figures.latency_share < best.figures.latency_share:
                best, in_vain = candidate, 0
            else:
                in_vain += 1
            if in_vain == _MOST_IN_VAIN:
                break
        return best

    def _deepest(self, variant: Variant, most: int, within: float | None = None) -> Built | None:
        """Bisect for the deepest cut of ``variant`` within the drop limit.

        ``within``: the aim that another variant reached; ``variant`` is given up if it loses too much there.
        """
        limit = self._budget.max_drop_points
        assert limit is not None
        best, good, bad = None, 1.0 if within is None else within, 0.0
        aim = (good + bad) / 2 if within is None else within
        for _ in range(most):
            if best is not None and self._time_is_up():
                break
            built = self._build(aim, variant)
            if _lost(built) <= limit:
                best, good = built, aim
            elif aim == within:
                return None
            else:
                bad = aim
            aim = (good + bad) / 2
        return best

    def _time_is_up(self) -> bool:
        """Whether --max-time leaves no time for one more candidate."""
        if another_candidate_fits(self._run, self._last_s):
            return False
        if not self._ended_early:
            self._run.note("--max-time: the search ended early, and more candidates might have lost less")
        self._ended_early = True
        return True

    def _build(self, aim: float, variant: Variant, *, nothing: bool = False) -> Built:
        """Select for ``aim`` times the limits, prune, recover, export, measure; reuses an equal one."""
        planned = self._planner.nothing() if nothing else self._planner.plan(aim, variant)
        for known in self._tried:
            if _same(known.planned, planned) and known.figures.precision is self._run.options.stored_in:
                return replace(known, aim=aim)
        return self._stored_or_made(planned, aim, self._run.options.stored_in)

    def _stored_or_made(
        self, planned: Planned, aim: float, precision: Precision, pruned: Pruned | None = None
    ) -> Built:
        """The next candidate, stored or built now; ``pruned`` is its network if that exists already."""
        number = len(self._tried) + 1
        stored = self.store.find(number)
        wanted = (planned.plan.removed, _names(planned), precision)
        if stored is not None and (stored.plan.removed, stored.dropped, stored.figures.precision) == wanted:
            built = self._restore(number, stored, planned, aim)
        else:
            built = self._make(number, planned, aim, precision, pruned)
        self._tried.append(built)
        return built

    def _make(
        self, number: int, planned: Planned, aim: float, precision: Precision, pruned: Pruned | None
    ) -> Built:
        name, blocks = candidate_name(number), _names(planned)
        began_s = self._run.elapsed_s
        pruned = pruned or build_candidate(self._run, self._prepared, planned)
        with self._run.stage(name), self.store.building(number) as folder:
            write_onnx(self._run, self._prepared, pruned.final, folder / "model.onnx", self._work, planned)
            drop = self._drop(self._in_torch(pruned.final))
            quantization = put_in_fewer_bits(
                self._run, self._prepared, folder, precision, max_drop_points=self._left_to_lose(drop.points)
            )
            if quantization is not None:
                drop = self._drop(self._in_onnx(folder / "model.onnx"))
            figures = self._costs.measure(name, planned.plan, folder)
            in_fewer = quantization is not None and stores_fewer_bits(quantization)
            figures = replace(figures, dropped=blocks, precision=precision, fewer_bits=in_fewer)
            figures = replace(figures, drop_points=drop.points, paired=drop.paired)
            figures = replace(figures, exceeded=exceeded_limits(figures, self._budget))
            write_surgery(self._prepared, planned, pruned, folder)
            record = StoredCandidate(
                figures=figures,
                plan=planned.plan,
                recovery=pruned.recovery,
                parity=pruned.parity,
                distillation=pruned.distillation,
                dropped=blocks,
                quantization=quantization,
                notes=pruned.notes,
            )
            write_record(record, pruned, folder)
        gc.collect()  # graphs hold reference cycles
        self._last_s = self._run.elapsed_s - began_s
        return Built(figures=figures, planned=planned, pruned=pruned, aim=aim)

    def _restore(self, number: int, stored: StoredCandidate, planned: Planned, aim: float) -> Built:
        """A stored candidate of an interrupted run."""
        _log.info("%s is on file", stored.figures.name)
        bare = prune(planned.variant.captured, planned.variant.coupling, stored.plan.removed)
        return Built(
            figures=stored.figures,
            planned=planned,
            pruned=self.store.restored(number, bare, stored),
            aim=aim,
        )

    def _drop(self, outputs: parity.Outputs) -> Drop:
        """Points lost on the held-out images in the measure's unit, with their interval."""
        return drop_of(self._measure, outputs, self._budget.max_drop_points)

    def _left_to_lose(self, points: float | None) -> float | None:
        """Points left for quantization to lose; ``None`` (no limit) if the drop exceeds the limit already."""
        limit = self._budget.max_drop_points
        return None if limit is None or points is None or points > limit else limit - points

    def _in_torch(self, module: GraphModule) -> parity.Outputs:
        return parity.run_torch(module, self._prepared.calibration.held_out.images)

    def _in_onnx(self, path: Path) -> parity.Outputs:
        held = self._prepared.calibration.held_out
        return parity.run_onnx(path, held.images, threads=self._run.threads)

    def _out_of_reach(self, reason: str) -> BudgetError:
        if not self._tried:
            return BudgetError(f"the budget is out of reach: {reason}")
        nearest = min(self._tried, key=lambda b: budget_used(b.figures, self._original, self._budget)).figures
        binding = binding_limit(nearest, self._original, self._budget)
        return BudgetError(
            f"the budget is out of reach, {binding} binds: {limits_in_words(self._budget)} was asked, and "
            f"the nearest of {len(self._tried)} candidates has {in_words(nearest)}; set a wider limit, "
            "or give another target"
        )

    def _refuse_drop(self, best: Built) -> None:
        limit, drop = self._budget.max_drop_points, best.figures.drop_points
        raise BudgetError(
            f"the budget is out of reach, the drop binds: within the other limits the best candidate has "
            f"{in_words(best.figures)} and loses {drop:.2f} points where {limit:g} were allowed; allow more "
            "loss or cost, or give more calibration images"
        )


@contextmanager
def search(
    run: Run, prepared: Prepared, kind: type[BudgetSearch] = BudgetSearch
) -> Iterator[tuple[Planned, Pruned, CandidateStore]]:
    """Search within the budget of the options; candidates are stored until the block succeeds.

    Raises:
        BudgetError: see :class:`BudgetSearch`.
        UsageError: the existing journal belongs to another model, other data, budget or options.
    """
    with (
        kept_values(run, prepared, decisions(run, prepared)) as journals,
        scratch_folder() as scratch,
    ):
        assert journals is not None
        with torch.no_grad():
            budget_search = kind(run, prepared, journals, scratch)
            planned, pruned = budget_search.run()
        yield planned, pruned, budget_search.store


def _merit(built: Built) -> tuple[float, float]:
    """Sort key: least loss on the held-out images, then the milder cut."""
    return -_lost(built), built.aim


def _lost(built: Built) -> float:
    return built.figures.drop_points or 0.0


def _names(planned: Planned) -> tuple[str, ...]:
    """Names of the dropped blocks."""
    return tuple(block.name for block in planned.variant.dropped)


def _same(one: Planned, two: Planned) -> bool:
    return (one.plan.removed, one.variant.dropped) == (two.plan.removed, two.variant.dropped)
