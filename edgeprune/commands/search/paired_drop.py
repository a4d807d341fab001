"""How sure it is that a network loses no more than so many points, by the images that are kept back.

Answers are compared image by image: only those that one network has and the other has not tell anything of
the difference, so that it is known far better than either accuracy.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.budget import PairedDrop
from edgeprune.artifacts.report import AnswerCounts
from edgeprune.intervals import wilson_interval

DECIDED = 0.95
"""Confidence, for or against, at which a question counts as decided."""
_MOST_TIMES_MORE = 100.0
_GROWTH = 1.1
_GRID = 801
_GRID_DEVIATIONS = 10.0


def paired_drop(counts: AnswerCounts, limit_points: float | None) -> PairedDrop:
    """The drop with its 95% interval, and how sure it is that the true one is within the limit.

    The interval squares and adds the distances of two Wilson intervals, of answers lost among those that the
    original has and of answers gained among the others, both as shares of all images (Newcombe 1998; Zou and
    Donner 2008).
    """
    lost, lost_low, lost_high = _points(counts.lost, counts.kept_from, counts.images)
    gained, gained_low, gained_high = _points(counts.gained, counts.images - counts.kept_from, counts.images)
    confidence = None if limit_points is None else confidence_within(counts, limit_points)
    return PairedDrop(
        images=counts.images,
        lost=counts.lost,
        gained=counts.gained,
        low_points=lost - gained - math.hypot(lost - lost_low, gained_high - gained),
        high_points=lost - gained + math.hypot(lost_high - lost, gained - gained_low),
        confidence=confidence,
        images_to_decide=None if limit_points is None else _images_to_decide(counts, limit_points),
    )


def points_of(counts: AnswerCounts) -> float:
    """The drop on these very images in percentage points; exact where it is a whole number of them."""
    return 100 * (counts.lost - counts.gained) / counts.images


def confidence_within(counts: AnswerCounts, limit_points: float) -> float:
    """Confidence that the true drop is at most the limit.

    Without answers gained it is the exact one-sided confidence of Clopper and Pearson: the chance to see more
    answers lost than were seen if the true drop were the limit. Answers gained count by the distribution of
    the lower end of theirs, so that it errs to the safe side in both.
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
    """True shares of answers gained and their weights: Beta(hits, count - hits + 1), or none for sure."""
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
    """Chance of at most ``hits`` of ``count`` for each true share; 0 from a share of 1 on."""
    inside = np.clip(shares, 1e-300, 1.0 - 1e-15)
    numbers = np.arange(hits + 1)[:, None]
    choices = np.array(
        [math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in range(hits + 1)]
    )
    logs = choices[:, None] + numbers * np.log(inside) + (count - numbers) * np.log1p(-inside)
    found = np.clip(np.exp(logs).sum(axis=0), 0.0, 1.0)
    return np.asarray(np.where(shares >= 1.0, 0.0, found))


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
    found = confidence_within(counts, limit_points)
    return found >= DECIDED or found <= 1.0 - DECIDED


def _two_digits(count: int) -> int:
    """Rounded up to two significant digits."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / step) * step
