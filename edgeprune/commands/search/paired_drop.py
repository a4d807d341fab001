"""Confidence that a network loses at most a given number of points, from the held-out images.

Answers are paired by image: only images that one network has right and the other wrong contribute to the
difference, so it has a far smaller error than either accuracy. Where answers cannot be counted (AP, mean IoU)
both networks are judged on the same draws of images, with the same effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.budget import PairedDrop
from edgeprune.artifacts.report import AnswerCounts
from edgeprune.evaluation.base import Measure
from edgeprune.intervals import wilson_interval
from edgeprune.parity import Outputs

DECIDED = 0.95
"""Confidence, for or against, at which a question counts as decided."""
_MOST_TIMES_MORE = 100.0
_ONE_SIDED = 1.645
"""Standard errors of a one-sided confidence of 95%."""
_GROWTH = 1.1
_GRID = 801
_GRID_DEVIATIONS = 10.0


def paired_drop(counts: AnswerCounts, limit_points: float | None) -> PairedDrop:
    """The drop with its 95% interval, and the confidence that the true drop is within the limit.

    The interval adds the distances of two Wilson intervals in quadrature: answers lost among those that the
    original has right and answers gained among the others, both as shares of all images (Newcombe 1998; Zou
    and Donner 2008).
    """
    lost, lost_low, lost_high = _points(counts.lost, counts.kept_from, counts.images)
    gained, gained_low, gained_high = _points(counts.gained, counts.images - counts.kept_from, counts.images)
    return PairedDrop(
        images=counts.images,
        lost=counts.lost,
        gained=counts.gained,
        low_points=lost - gained - math.hypot(lost - lost_low, gained_high - gained),
        high_points=lost - gained + math.hypot(lost_high - lost, gained - gained_low),
        confidence=None if limit_points is None else confidence_within(counts, limit_points),
        images_to_decide=None if limit_points is None else _images_to_decide(counts, limit_points),
    )


@dataclass(frozen=True)
class Drop:
    """Points lost, ``None`` where the measure has none, and their interval where it has one."""

    points: float | None
    paired: PairedDrop | None = None


def drop_of(measure: Measure, outputs: Outputs, limit_points: float | None) -> Drop:
    """The drop of the outputs in the measure's unit."""
    counts = measure.answers(outputs)
    if counts is not None:
        return Drop(points_of(counts), paired_drop(counts, limit_points))
    if not measure.counts_points:
        return Drop(None)
    drawn = measure.drawn_points(outputs)
    paired = None if drawn is None else drawn_drop(drawn, measure.reference.images, limit_points)
    return Drop(measure.points_lost(outputs), paired)


def drawn_drop(drawn: FloatArray, images: int, limit_points: float | None) -> PairedDrop | None:
    """The drop from points lost (1 + draws,) on all images and in draws of them; ``None`` if it has no value.

    The interval is the percentile one (Efron 1979). The confidence is the share of draws within the limit,
    but at most that of as many images without a loss, since draws cannot show what no image did.
    """
    value, draws = float(drawn[0]), drawn[1:][np.isfinite(drawn[1:])]
    if not np.isfinite(value) or not draws.size:
        return None
    low, high = map(float, np.quantile(draws, [0.025, 0.975]))
    found = PairedDrop(
        images=images, lost=None, gained=None, low_points=min(low, value), high_points=max(high, value),
        confidence=None, images_to_decide=None,
    )  # fmt: skip
    if limit_points is None:
        return found
    within, share = float((draws <= limit_points).mean()), min(1.0, limit_points / 100)
    confidence = min(within, 1.0 - (1.0 - share) ** images)
    more = None
    if 1.0 - DECIDED < confidence < DECIDED:
        apart = limit_points - value
        more = _images_for(apart, float(draws.std()) * math.sqrt(images), share)
    enough = more is not None and more <= _MOST_TIMES_MORE * images
    return replace(found, confidence=confidence, images_to_decide=more if enough else None)


def _images_for(apart: float, deviation: float, share: float) -> int | None:
    """About how many images tell a drop from a limit that is so far ``apart``, in one direction or the other.

    Args:
        deviation: of a single image, in points; the error of n images is its share of the square root of n.
        share: the limit. Below it, so many images are needed that one would show such a loss.
    """
    if apart == 0.0 or (apart > 0 and share == 0.0):
        return None
    unseen = math.log(1.0 - DECIDED) / math.log(1.0 - min(share, 0.99)) if apart > 0 else 0.0
    return _two_digits(math.ceil(max((_ONE_SIDED * deviation / apart) ** 2, unseen)))


def points_of(counts: AnswerCounts) -> float:
    """The drop on these images in percentage points; exact if it is a whole number of points."""
    return 100 * (counts.lost - counts.gained) / counts.images


def confidence_within(counts: AnswerCounts, limit_points: float) -> float:
    """Confidence that the true drop is at most the limit.

    Without gained answers it is the exact one-sided Clopper-Pearson confidence: the probability of more
    lost answers than observed if the true drop were the limit. Gained answers enter through the distribution
    of their lower bound, so both errors are on the safe side.
    """
    others = counts.images - counts.kept_from
    gained, weights = _gained(counts.gained, others)
    allowed = (limit_points / 100 * counts.images + gained * others) / max(1, counts.kept_from)
    return float(weights @ (1.0 - _share_at_most(counts.lost, counts.kept_from, allowed)))


def _points(hits: int, count: int, images: int) -> tuple[float, float, float]:
    if count == 0:
        return 0.0, 0.0, 0.0
    low, high = wilson_interval(hits, count)
    return 100 * hits / images, 100 * low * count / images, 100 * high * count / images


def _gained(hits: int, count: int) -> tuple[FloatArray, FloatArray]:
    """True shares of gained answers and their weights: Beta(hits, count - hits + 1), or 0 without hits."""
    if hits == 0:
        return np.zeros(1), np.ones(1)
    mean = hits / (count + 1)
    width = _GRID_DEVIATIONS * math.sqrt(mean * (1 - mean) / (count + 2))
    edges = np.linspace(max(0.0, mean - width), min(1.0, mean + width), _GRID + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    logs = (hits - 1) * np.log(middles) + (count - hits) * np.log1p(-middles)
    weights = np.exp(logs - logs.max())
    return middles, weights / weights.sum()


def _share_at_most(hits: int, count: int, shares: FloatArray) -> FloatArray:
    """Probability of at most ``hits`` of ``count`` for each true share; 0 for shares of 1 or more."""
    inside = np.clip(shares, 1e-300, 1.0 - 1e-15)
    numbers = np.arange(hits + 1)[:, None]
    choices = np.array(
        [math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in range(hits + 1)]
    )
    logs = choices[:, None] + numbers * np.log(inside) + (count - numbers) * np.log1p(-inside)
    chances = np.clip(np.exp(logs).sum(axis=0), 0.0, 1.0)
    return np.asarray(np.where(shares >= 1.0, 0.0, chances))


def _images_to_decide(counts: AnswerCounts, limit_points: float) -> int | None:
    times = 1.0
    if _decided(counts, limit_points):
        return None
    while (times := times * _GROWTH) <= _MOST_TIMES_MORE:
        more = replace(
            counts,
            images=round(times * counts.images),
            kept_from=min(round(times * counts.images), round(times * counts.kept_from)),
            lost=round(times * counts.lost),
            gained=round(times * counts.gained),
        )
        if _decided(more, limit_points):
            return _two_digits(more.images)
    return None


def _decided(counts: AnswerCounts, limit_points: float) -> bool:
    confidence = confidence_within(counts, limit_points)
    return confidence >= DECIDED or confidence <= 1.0 - DECIDED


def _two_digits(count: int) -> int:
    """Rounded up to two significant digits."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / step) * step
