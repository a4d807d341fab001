"""How many detections small errors of scores take over a threshold, estimated from all scores around it.

In a few hundred images few scores lie so near to the threshold that they cross it, and whether one does is a
toss of a coin. The sizes of the errors are known well, from all detections around: each crosses where an
error of one of those sizes, in log-odds and of either sign, reaches so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.evaluation.base import Boxes
from edgeprune.evaluation.boxes import intersection_over_union

_LEAST_IOU = 0.5
_LEAST_SHARE = 0.25
"""Detections below this share of the threshold do not reach it."""
_AROUND = 1.5
"""Log-odds from the threshold within which the errors are taken."""
_FEWEST_PAIRS = 10
_EPSILON = 1e-6


def expected_changes(before: Sequence[Boxes], after: Sequence[Boxes], threshold: float) -> float:
    """Detections of ``threshold`` and more that are expected to come or go between two sets, image by image.

    Those with no counterpart of the same class (IoU .5) count whole. With fewer than ten pairs to tell errors
    by, those that cross are counted.
    """
    pairs, unmatched = _paired(before, after, threshold)
    first, second = pairs[:, 0], pairs[:, 1]
    at = _log_odds(np.array([threshold]))[0]
    errors, distances = _log_odds(second) - _log_odds(first), np.abs(_log_odds(first) - at)
    around = errors[distances < _AROUND]
    if len(around) < _FEWEST_PAIRS:
        return unmatched + float(((first >= threshold) != (second >= threshold)).sum())
    sizes = np.sort(np.abs(around))
    smaller = np.searchsorted(sizes, distances, side="left")
    return unmatched + float((len(sizes) - smaller).sum() / len(sizes) / 2)


def _paired(before: Sequence[Boxes], after: Sequence[Boxes], threshold: float) -> tuple[FloatArray, float]:
    """Scores (k, 2) of detections that are in both, and how many of the threshold and more are in one."""
    pairs, unmatched = [np.zeros((0, 2))], 0
    for old, new in zip(before, after, strict=True):
        assert old.scores is not None
        assert new.scores is not None
        free = np.ones(len(new), dtype=bool)
        overlaps = intersection_over_union(old.corners, new.corners)
        for place in np.argsort(-old.scores, kind="stable"):
            if old.scores[place] < _LEAST_SHARE * threshold:
                break
            near = free & (new.classes == old.classes[place]) & (overlaps[place] >= _LEAST_IOU)
            if near.any():
                best = int(np.where(near, new.scores, -1.0).argmax())
                free[best] = False
                pairs.append(np.array([[old.scores[place], new.scores[best]]]))
            else:
                unmatched += int(old.scores[place] >= threshold)
        unmatched += int((new.scores[free] >= threshold).sum())
    return np.concatenate(pairs), float(unmatched)


def _log_odds(scores: FloatArray) -> FloatArray:
    inside = np.clip(scores.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return np.asarray(np.log(inside / (1 - inside)))
