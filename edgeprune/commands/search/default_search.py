"""Default search without limits: the fastest network within a drop of one point, in 32 and 8 bits."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from edgeprune.artifacts.budget import Candidate
from edgeprune.artifacts.quantization import Precision
from edgeprune.commands.run.state import Planned, Pruned, Run, runner_of
from edgeprune.commands.run.training.build import build_candidate
from edgeprune.commands.search.block_removal import shallower
from edgeprune.commands.search.budget_search import BudgetSearch, Built
from edgeprune.commands.search.default_goal import holds, is_faster
from edgeprune.commands.search.galloping import FIRST_CUT, gallop
from edgeprune.errors import NothingToPruneError

_MOST_PRUNED = 5
"""Candidates with all blocks: each costs a recovery, an export and a judgement."""
_DEEPER = 0.05
"""Share of the latency that a network without blocks is to save beyond the best that has them all."""


class DefaultSearch(BudgetSearch):
    """Few candidates, mild cuts first, since one point is lost early; the original if none is faster."""

    def _find(self) -> Built:
        """The fastest candidate within the limit, or the original."""
        asked, other = self._run.options.stored_in, self._other_precision()
        for precision in (asked, other):
            if precision is not None and precision is not Precision.FP32:
                self._without_cut(precision)
        self._cut_channels()
        self._drop_blocks()
        deepest = self._deepest_cut()
        if other is not None and deepest is not None and not self._time_is_up():
            self._stored_or_made(deepest.planned, deepest.aim, other, deepest.pruned)
        # A mixture without any piece in 8 bits is the 32-bit file measured once more.
        ways = [b for b in self._tried if b.figures.precision is asked or b.figures.fewer_bits]
        within = [b for b in ways if holds(b.figures) and is_faster(b.figures)]
        fastest = min(within, key=_speed_then_loss, default=None)
        self._say(fastest)
        return self._to_deliver(fastest or self._without_cut(asked))

    def _other_precision(self) -> Precision | None:
        """8 bits as a second precision, if their latency is known and no precision was asked for."""
        run, target = self._run, self._prepared.target
        if run.options.precision is not None:
            return None
        if joins := self._prepared.captured.joins:
            run.note(f"8 bits were not tried: the model takes several inputs ({', '.join(joins)})")
            return None
        if runner_of(run, target).knows(Precision.AUTO):
            return Precision.AUTO
        run.note(
            f"8 bits were not tried: their latency on {target.name} is not known here; on the device itself, "
            "with --target host, they are measured"
        )
        return None

    def _without_cut(self, precision: Precision) -> Built:
        """The original network in that precision; built once."""
        for known in self._tried:
            if not _is_cut(known) and known.figures.precision is precision:
                return known
        planned, pruned = self._untouched
        return self._stored_or_made(planned, 1.0, precision, pruned)

    @cached_property
    def _untouched(self) -> tuple[Planned, Pruned]:
        """The original network: nothing removed, nothing trained."""
        run, planned = self._run, self._planner.nothing()
        plain = Run(
            options=replace(run.options, finetune=None, recipe=None),
            notes=run.notes, times=run.times, clock=run.clock,
        )  # fmt: skip
        return planned, build_candidate(plain, self._prepared, planned)

    def _cut_channels(self) -> None:
        """Galloping search over channel cuts."""
        before, most = len(self._tried), self._planner.most_saved()

        def attempt(cut: float) -> float | None:
            built = self._cut(cut, most)
            return None if built is None else self._times_limit(built.figures)

        gallop(most, attempt, lambda: len(self._tried) - before < _MOST_PRUNED and not self._no_time())

    def _times_limit(self, figures: Candidate) -> float:
        """The points lost as a multiple of the limit; below 1 if every limit holds."""
        limit = self._budget.max_drop_points
        assert limit is not None, "the default goal limits the drop"
        times = (figures.drop_points or 0.0) / limit
        return min(times, 1.0) if holds(figures) else max(times, 1.0 + 1e-9)

    def _no_time(self) -> bool:
        """Whether --max-time forbids another candidate; the first is always tried."""
        return bool(self._tried) and self._time_is_up()

    def _cut(self, cut: float, most: float) -> Built | None:
        try:
            return self._build(1.0 - cut / most, self._prepared.variant)
        except NothingToPruneError:
            return None

    def _drop_blocks(self) -> None:
        """Drop more blocks as long as the network gets faster.

        Only if the first cut of channels held: a network that can spare less can spare no block, and each
        try costs as much as a cut.
        """
        most, best = self._planner.most_saved(), self._deepest_cut()
        if not self._run.options.drop_blocks or best is None or (1.0 - best.aim) * most < FIRST_CUT - 1e-9:
            return
        for variant in shallower(self._run, self._prepared, self._models[0][0]):
            if self._time_is_up():
                return
            aim = best.aim - min(_DEEPER / most, best.aim / 2)
            try:
                built = self._build(aim, variant)
            except NothingToPruneError:
                return
            if not holds(built.figures) or built.figures.latency_share >= best.figures.latency_share:
                return
            best = built

    def _deepest_cut(self) -> Built | None:
        """The fastest candidate within the limit that has something removed."""
        within = [b for b in self._tried if holds(b.figures) and _is_cut(b)]
        return min(within, key=_speed_then_loss, default=None)

    def _say(self, fastest: Built | None) -> None:
        device, limit = self._prepared.target.name, self._budget.max_drop_points
        if fastest is None:
            self._run.note(
                f"no limit was given, and nothing faster for {device} that loses at most {limit:g} "
                "point on the held-out images was found, so nothing was removed"
            )
        else:
            self._run.note(
                f"no limit was given, so this is the fastest network found for {device} that loses at "
                f"most {limit:g} point on the held-out images"
            )

    def _to_deliver(self, chosen: Built) -> Built:
        """Set the options of the run to the candidate: its precision, and no training of the original."""
        options = replace(self._run.options, precision=chosen.figures.precision)
        self._run.options = options if _is_cut(chosen) else replace(options, finetune=None, recipe=None)
        return chosen


def _is_cut(built: Built) -> bool:
    return bool(built.planned.plan.removed or built.planned.variant.dropped)


def _speed_then_loss(built: Built) -> tuple[float, float]:
    return built.figures.latency_share, built.figures.drop_points or 0.0
