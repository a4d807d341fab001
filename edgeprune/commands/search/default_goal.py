"""Default goal of compress: a drop of at most one point, or a share of the MACs if none can be counted."""

from __future__ import annotations

import math
from dataclasses import replace

from edgeprune.artifacts.budget import Budget, BudgetSection, Candidate
from edgeprune.artifacts.quantization import Precision
from edgeprune.artifacts.report import Grade, Usability
from edgeprune.commands.run.stages import DEFAULT_RATIO
from edgeprune.commands.run.state import Prepared, Run, measure_of
from edgeprune.commands.run.usability import FEWEST_FOR_USABLE
from edgeprune.commands.search.budget_plans import empty_plan
from edgeprune.commands.search.galloping import LEAST_CUT
from edgeprune.evaluation.base import FEWEST_IMAGES, too_few
from edgeprune.evaluation.registry import by_task, check_drop
from edgeprune.reporting.formatting import count_words

MAX_DROP_POINTS = 1.0
WITHOUT_POINTS = (
    "accepted there are --max-latency, --max-size, --max-memory and --ratio, or a --task that says what "
    "they are"
)
NO_CLASSES = "the outputs are no class scores (--task says what they are)"


def check_measure(run: Run, prepared: Prepared) -> None:
    """Make the measure of a task that was named before minutes of work, and check a limit on its drop.

    Raises:
        UsageError, CalibrationError: outputs or images do not fit the task, or there are no points to lose.
    """
    limit = run.options.budget.max_drop_points
    if by_task(run.options):
        check_drop(measure_of(run, prepared), limit, WITHOUT_POINTS)


def with_default_goal(run: Run, prepared: Prepared) -> None:
    """Limit the drop if no ratio or limit was given; note the reason if points cannot be counted.

    Raises:
        NothingToPruneError: no channel of the model can be removed.
    """
    options = run.options
    if options.ratio is not None or not options.budget.is_empty:
        return
    empty_plan(prepared.coupling)  # a model without channels to remove must fail before minutes of ranking
    reason = _nothing_to_count(run, prepared)
    if reason is not None:
        run.note(
            f"no --ratio or limit was given, and a loss of one point cannot be told: {reason}; so "
            f"{DEFAULT_RATIO:.0%} of the MACs are removed, whatever that loses (--ratio: another share)"
        )
        return
    caution_about_a_point(run, len(prepared.calibration.held_out))
    run.options = replace(options, budget=Budget(max_drop_points=MAX_DROP_POINTS))
    run.limits_by_default = True


def caution_about_judging(run: Run, prepared: Prepared) -> None:
    """Note before minutes of work that the images are too few to call a result usable."""
    held_out = len(prepared.calibration.held_out)
    if held_out >= FEWEST_FOR_USABLE or run.limits_by_default:
        return
    measure = measure_of(run, prepared)
    if measure.answers(measure.reference.original) is not None:
        run.note(
            f"{count_words(held_out, 'image')} will judge the result, and {FEWEST_FOR_USABLE} without a loss "
            "are the fewest that show it to be usable (--calibration, --held-out)"
        )


def caution_about_a_point(run: Run, held_out: int) -> None:
    """Note before minutes of work that the images are too few to resolve one point."""
    of_one = 100 / held_out
    if of_one > MAX_DROP_POINTS:
        run.note(
            f"one of {held_out} held-out images is {of_one:.2g} points, so {MAX_DROP_POINTS:g} point allows "
            f"no loss at all; {math.ceil(100 / MAX_DROP_POINTS)} held-out images are the fewest that can "
            f"show a loss of {MAX_DROP_POINTS:g} point at all (--calibration, --held-out)"
        )


def _nothing_to_count(run: Run, prepared: Prepared) -> str | None:
    """Why points cannot be counted on the held-out images; ``None`` if they can."""
    measure = measure_of(run, prepared)
    if not measure.counts_points:
        return f"it is measured by {measure.kind.value}" if by_task(run.options) else NO_CLASSES
    images = measure.reference.images
    if images < FEWEST_IMAGES:
        return too_few(images, "held-out image", "held-out images", FEWEST_IMAGES)
    counts = measure.answers(measure.reference.original)
    if counts is None:
        return measure.nothing_to_lose()
    if counts.kept_from < FEWEST_IMAGES:
        return (
            f"the original is right on only {counts.kept_from} of {counts.images} held-out images (check the "
            "labels and the preprocessing)"
        )
    return None


def delivered(section: BudgetSection) -> Candidate:
    """The candidate that a search chose."""
    return next(c for c in section.candidates if c.name == section.chosen)


def is_original(candidate: Candidate) -> bool:
    """Whether nothing was removed and nothing stored in fewer bits."""
    return candidate.macs_share == 1.0 and not candidate.dropped and candidate.precision is Precision.FP32


def holds(candidate: Candidate) -> bool:
    """Whether no limit is exceeded."""
    return not candidate.exceeded


def is_faster(candidate: Candidate) -> bool:
    """Whether it is faster than the original by at least ``LEAST_CUT``, significantly so if measured."""
    high = candidate.latency_share_high
    return candidate.latency_share <= 1.0 - LEAST_CUT and (high is None or high < 1.0)


def nearest(candidates: tuple[Candidate, ...]) -> Candidate | None:
    """Of the candidates that are faster but exceed a limit, the one with the least loss."""
    beyond = [c for c in candidates if not holds(c) and is_faster(c)]
    return min(beyond, key=lambda c: (c.drop_points or 0.0, c.latency_share), default=None)


def usability_of_original(section: BudgetSection, judged: Usability) -> Usability:
    """The verdict if a default search ended with the original: nothing gained, and options to try."""
    if not section.by_default or not is_original(delivered(section)):
        return judged
    limit, closest = section.budget.max_drop_points, nearest(section.candidates)
    if closest is None:
        what = "the original: no candidate was faster"
        ways: tuple[str, ...] = ("cut without regard to the speed predicted or measured (--ratio 0.25)",)
    else:
        what = (
            f"the original: nothing faster within {limit:g} point was found (nearest: "
            f"{closest.latency_share:.1%} of the latency, {_loss(closest)})"
        )
        ways = (f"accept its loss ({_asking_for(closest)})",)
        if closest.precision is Precision.FP32:
            ways = (*ways, "train after recovery (--finetune 2min)")
        if closest.paired is not None and closest.paired.low_points <= (limit or 0.0):
            ways = (
                *ways,
                "judge by more images, which may find it within the point (--calibration, --held-out)",
            )
    if section.ended_early:
        what = f"{what}; no time was left for milder cuts"
        ways = ("give it more time (--max-time)", *ways)
    return replace(judged, grade=Grade.USABLE, headline=what, what_to_do=ways)


def _loss(candidate: Candidate) -> str:
    """Points lost with their interval."""
    paired, lost = candidate.paired, f"{candidate.drop_points or 0.0:.2f}"
    if paired is not None:
        lost = f"{lost} ({paired.low_points:.1f} to {paired.high_points:.1f})"
    return f"{lost} points lost"


def _asking_for(candidate: Candidate) -> str:
    """Options that request such a network."""
    drop = f"--max-drop {-(-(candidate.drop_points or 0.0) // 0.1) / 10:.1f}"
    removed = round(1.0 - candidate.macs_share, 2)
    if candidate.precision is not Precision.FP32:
        return f"--precision {candidate.precision.value} {drop}"
    return drop if removed <= 0.0 else f"{drop} or --ratio {removed:g}"
