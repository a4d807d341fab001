"""Grade the delivered network by its loss against the original, and advise if the loss is too high."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgeprune.artifacts.budget import PairedDrop
from edgeprune.artifacts.choices import HOST
from edgeprune.artifacts.pruning import PruningPlan
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.quantization import Precision
from edgeprune.artifacts.report import AnswerCounts, ChannelSummary, DeploymentSection, Grade, Usability
from edgeprune.evaluation.base import FEWEST_IMAGES, Measure
from edgeprune.intervals import wilson_interval
from edgeprune.parity import Outputs
from edgeprune.reporting.formatting import constant_channels

FEWEST_FOR_USABLE = 35
"""So many answers without a loss exclude, by Wilson's interval, that more than one in ten are lost."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Loss thresholds of the grades: the first two apply to the lower end of the interval, the last to its
    upper end."""

    not_usable: float
    degraded: float
    usable: float


ANSWER_LIMITS = Limits(not_usable=0.25, degraded=0.03, usable=0.10)
"""Shares of right answers. A quarter lost for sure is more than any cut is worth: a smaller network would
do better. Three in a hundred for sure are more than people give for speed (one to two points are usual).
Usable is said only where more than one in ten can be excluded, which takes 35 images without a loss."""
AGREEMENT_LIMITS = Limits(not_usable=0.25, degraded=0.05, usable=0.10)
"""Shares of answers where nobody knows which are right. Some that change were wrong: ResNet-20 without a
quarter of its MACs changes 4.1 of 100 and loses .9 of the right ones (decision 13 in docs/decisions)."""
ERROR_LIMITS = Limits(not_usable=0.50, degraded=0.05, usable=0.10)
"""Relative squared errors of outputs that are no class scores. At 1 an output of zeros would do as well, and
a half is not far from it; a twentieth is a signal-to-noise ratio of 13 dB."""

_MOST_TIMES_MORE = 64
_MOST_BEYOND = 0.02
"""Of all MACs, removed beyond what was asked for, without a warning."""
_CHECK_DATA = "check the labels and the preprocessing (--card, --mean, --std)"


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss with its 95% interval: a share of the original's quality, or a relative squared error."""

    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Inputs of the advice; ``float_loss`` is the loss of the 32-bit file beside a quantized one."""

    macs_removed_share: float
    in_budget: bool
    finetuned: bool
    recipe: str | None
    fitting_images: int
    precision: Precision
    float_loss: float | None = None


def loss_of_answers(counts: AnswerCounts) -> Loss | None:
    """Share of the original's right answers lost, minus those gained; ``None`` if it has none.

    The images that the original has right and the others are independent samples: the difference's interval
    adds the distances of their Wilson intervals in quadrature (Newcombe 1998; Zou and Donner 2008).
    """
    kept_from, others = counts.kept_from, counts.images - counts.kept_from
    if kept_from == 0:
        return None
    lost = counts.lost / kept_from
    lost_low, lost_high = wilson_interval(counts.lost, kept_from)
    if others == 0:
        return Loss(value=lost, low=lost_low, high=lost_high, images=counts.images)
    weight = others / kept_from
    gained = weight * counts.gained / others
    gained_low, gained_high = (weight * end for end in wilson_interval(counts.gained, others))
    value = lost - gained
    return Loss(
        value=value,
        low=value - math.hypot(lost - lost_low, gained_high - gained),
        high=value + math.hypot(lost_high - lost, gained - gained_low),
        images=counts.images,
    )


def loss_by(measure: Measure, outputs: Outputs) -> Loss | None:
    """Loss in the measure's unit: of answers if it counts them; ``None`` if there is nothing to lose."""
    counts = measure.answers(outputs)
    if counts is not None:
        return loss_of_answers(counts)
    lost = measure.loss(outputs)
    if lost is None:
        return None
    return Loss(value=lost.value, low=lost.low, high=lost.high, images=measure.reference.images)


def loss_value(measure: Measure, outputs: Outputs) -> float | None:
    """The value of :func:`loss_by`."""
    loss = loss_by(measure, outputs)
    return None if loss is None else loss.value


def grade(loss: Loss, limits: Limits) -> Grade:
    """The worst grade that the interval's lower end proves; else usable by its upper end, or inconclusive."""
    if not math.isfinite(loss.value):
        return Grade.NOT_USABLE
    if loss.images < FEWEST_IMAGES:
        return Grade.INCONCLUSIVE
    if loss.low > limits.not_usable:
        return Grade.NOT_USABLE
    if loss.low > limits.degraded:
        return Grade.DEGRADED
    return Grade.USABLE if loss.high <= limits.usable else Grade.INCONCLUSIVE


def grade_answers(counts: AnswerCounts, kind: AccuracyKind) -> Grade:
    """Grade of answers; inconclusive if the original has too few right."""
    loss = loss_of_answers(counts)
    if loss is None or counts.kept_from < FEWEST_IMAGES:
        return Grade.INCONCLUSIVE
    return grade(loss, AGREEMENT_LIMITS if kind is AccuracyKind.AGREEMENT else ANSWER_LIMITS)


def judge_usability(
    measure: Measure, outputs: Outputs, circumstances: Circumstances, channels: ChannelSummary | None = None
) -> Usability:
    """Grade the delivered network's outputs by their loss; ``channels`` of those without class scores."""
    counts = measure.answers(outputs)
    if counts is not None:
        return judge_answers(measure.kind, counts, circumstances)
    lost, why_not = measure.loss(outputs), measure.nothing_to_lose()
    if lost is None or why_not is not None:
        return replace(_not_to_be_judged(why_not or "there is nothing to lose", measure), by_channel=channels)
    loss = Loss(value=lost.value, low=lost.low, high=lost.high, images=measure.reference.images)
    verdict = grade(loss, ANSWER_LIMITS if measure.kind.is_share else ERROR_LIMITS)
    constant = channels is not None and channels.constant > 0
    if constant and verdict is not Grade.NOT_USABLE:
        verdict = Grade.DEGRADED
    headline = _words_of_loss(verdict, loss.images, *measure.in_words(outputs, lost))
    if channels is not None and constant:
        headline = f"{constant_channels(channels)}; {headline}"
    advice = _advice(measure.kind, verdict, loss, None, circumstances)
    return replace(_graded(verdict, headline, advice, loss, None), by_channel=channels)


def judge_points(
    kind: AccuracyKind, before: float, points: float, paired: PairedDrop, circumstances: Circumstances
) -> Usability:
    """Grade a network by its ``points`` lost, and their interval, of what is ``before`` for the original."""
    whole = 100 * before
    loss = Loss(
        value=points / whole,
        low=paired.low_points / whole,
        high=paired.high_points / whole,
        images=paired.images,
    )
    verdict = grade(loss, ANSWER_LIMITS if kind.is_share else ERROR_LIMITS)
    what = f"loses {points:.1f} points" if points > 0 else "no measurable loss"
    interval = f"{paired.low_points:.1f} to {paired.high_points:.1f} points"
    headline = _words_of_loss(verdict, paired.images, f"{what} of {kind.value}", interval)
    return _graded(verdict, headline, _advice(kind, verdict, loss, None, circumstances), loss, None)


def _not_to_be_judged(why: str, measure: Measure) -> Usability:
    """Verdict if the measure cannot tell a loss on these images."""
    return Usability(
        grade=Grade.INCONCLUSIVE, headline=f"cannot be judged: {why}", what_to_do=(_CHECK_DATA,),
        loss=None, low=None, high=None, images=measure.reference.images, answers=None,
    )  # fmt: skip


def with_speed(judged: Usability, deployment: DeploymentSection) -> Usability:
    """Add a warning if the network is slower than the original on its target."""
    slower = _slower(deployment)
    if slower is None:
        return judged
    ways = judged.what_to_do or ("ship the original", "cut more (--ratio, --max-latency)")
    return replace(judged, headline=f"{judged.headline}; {slower}", what_to_do=ways, slower=True)


def with_overshoot(judged: Usability, plan: PruningPlan, *, asked_for: bool) -> Usability:
    """Add a warning if far more MACs go than were asked for, since widths go in steps."""
    beyond = plan.macs_removed_share - plan.ratio_asked
    if not asked_for or beyond <= _MOST_BEYOND:
        return judged
    why = (
        f"widths go in steps of {plan.width_quantum} (--width-quantum 1 for less)"
        if plan.width_quantum > 1
        else "single channels are large shares of them"
    )
    told = f"REMOVES {plan.macs_removed_share:.0%} of the MACs where {plan.ratio_asked:.0%} were asked for"
    return replace(judged, headline=f"{judged.headline}; {told}, since {why}")


def _slower(deployment: DeploymentSection) -> str | None:
    before, after = deployment.original_prediction, deployment.compressed_prediction
    if before is not None and after is not None:
        slower = after.latency_ms > before.latency_ms
        return f"predicted SLOWER than the original on {deployment.target}" if slower else None
    ratio = deployment.latency_ratio
    if deployment.target != HOST or ratio is None or ratio.low <= 1.0:
        return None
    return f"SLOWER than the original ({ratio.ratio:.2f}x)"


def judge_answers(kind: AccuracyKind, counts: AnswerCounts, circumstances: Circumstances) -> Usability:
    """Grade a network by the answers that it keeps."""
    loss = loss_of_answers(counts)
    if loss is None or counts.images >= FEWEST_IMAGES > counts.kept_from:
        return _nothing_to_lose(loss, counts)
    verdict = grade_answers(counts, kind)
    advice = _advice(kind, verdict, loss, counts, circumstances)
    return _graded(verdict, _words_of_answers(verdict, loss), advice, loss, counts)


def _graded(
    verdict: Grade, headline: str, what_to_do: tuple[str, ...], loss: Loss, counts: AnswerCounts | None
) -> Usability:
    return Usability(
        grade=verdict,
        headline=headline,
        what_to_do=what_to_do,
        loss=loss.value,
        low=loss.low,
        high=loss.high,
        images=loss.images,
        answers=counts,
    )


def _nothing_to_lose(loss: Loss | None, counts: AnswerCounts) -> Usability:
    """Verdict if the original has too few right answers to judge by."""
    return Usability(
        grade=Grade.INCONCLUSIVE,
        headline=(
            f"cannot be judged: the original itself is right on only {counts.kept_from} of "
            f"{_images(counts.images)}"
        ),
        what_to_do=(_CHECK_DATA,),
        loss=None if loss is None else loss.value,
        low=None if loss is None else loss.low,
        high=None if loss is None else loss.high,
        images=counts.images,
        answers=counts,
    )


def _words_of_answers(verdict: Grade, loss: Loss) -> str:
    low, high = _hundredths(loss.low), _hundredths(loss.high)
    if verdict is Grade.INCONCLUSIVE:
        low, high = (_hundredths(max(0.0, end)) for end in (loss.low, loss.high))
        return (
            f"cannot be judged by {_images(loss.images)}: loses between {low} and {high} of 100 answers "
            "(95% interval)"
        )
    lost = f"loses {_hundredths(loss.value)} of 100 answers"
    if loss.value <= 0:
        lost = "no measurable loss of answers"
    return f"{lost}: {verdict.value} (95% interval {low} to {high} of 100; {_images(loss.images)})"


def _words_of_loss(verdict: Grade, images: int, lost: str, interval: str) -> str:
    if verdict is Grade.INCONCLUSIVE:
        return f"cannot be judged by {_images(images)}: {lost} (95% interval {interval})"
    return f"{lost}: {verdict.value} (95% interval {interval}; {_images(images)})"


def _images(count: int) -> str:
    return f"{count:,} held-out image{'' if count == 1 else 's'}"


def _hundredths(share: float) -> str:
    """Percent as text, without decimals from 10 on."""
    percent = 100 * share
    return f"{round(percent, 0 if abs(percent) >= 10 else 1) + 0.0:g}"


def _advice(
    kind: AccuracyKind,
    verdict: Grade,
    loss: Loss,
    counts: AnswerCounts | None,
    circumstances: Circumstances,
) -> tuple[str, ...]:
    if verdict is Grade.USABLE:
        return ()
    if verdict is Grade.INCONCLUSIVE:
        doubted = counts is not None and 2 * counts.kept_from < counts.images
        return (more_to_judge(counts, kind), *((_CHECK_DATA,) if doubted else ()))
    by_bits = _lost_by_bits(loss, circumstances)
    if by_bits is not None:
        return (by_bits,)
    return (
        _cut_less(circumstances),
        _train(circumstances),
        f"calibrate with more images than the {circumstances.fitting_images:,} that ranking and recovery had",
    )


def _lost_by_bits(loss: Loss, circumstances: Circumstances) -> str | None:
    """Advice if most of the loss comes from storing the network in fewer bits."""
    before = circumstances.float_loss
    if before is None or loss.value - before <= 0.5 * loss.value:
        return None
    how = "" if circumstances.precision is Precision.AUTO else "--precision auto "
    return (
        f"most of it goes with the fewer bits of --precision {circumstances.precision.value}: ship "
        f"model-fp32.onnx, which lies beside it, or limit the loss ({how}--max-drop 1)"
    )


def _cut_less(circumstances: Circumstances) -> str:
    if circumstances.in_budget:
        return "allow more latency, size or memory, or less loss (--max-drop 1)"
    return f"cut less (--ratio {max(0.01, circumstances.macs_removed_share / 2):.2g})"


def _train(circumstances: Circumstances) -> str:
    if circumstances.recipe is not None:
        return f"train longer in {circumstances.recipe}"
    if circumstances.finetuned:
        return "train longer after recovery (--finetune with more steps or time)"
    return "train after recovery (--finetune 2min)"


def more_to_judge(counts: AnswerCounts | None, kind: AccuracyKind) -> str:
    """Advice on how many held-out images would decide at unchanged shares."""
    options = "(--calibration, --held-out)"
    times = 2
    while counts is not None and times <= _MOST_TIMES_MORE:
        more = AnswerCounts(**{name: times * count for name, count in vars(counts).items()})
        if grade_answers(more, kind) is not Grade.INCONCLUSIVE:
            return f"judge by more images, about {more.images:,} held out would decide the grade {options}"
        times *= 2
    return f"judge by more images {options}"
