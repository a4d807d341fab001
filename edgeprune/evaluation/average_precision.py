"""Average precision as COCO defines it: 101 recall points, IoU .50 to .95, all areas, 100 boxes an image.

Detections are matched once; a bootstrap over images then only weighs the matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import BoolArray, FloatArray, IndexArray
from edgeprune.evaluation.base import Boxes
from edgeprune.evaluation.boxes import MOST_DETECTIONS, intersection_over_union

IOUS = tuple((50 + 5 * step) / 100 for step in range(10))
_RECALL_POINTS = 101
_VALUES_AT_ONCE = 2_000_000
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ClassMatches:
    """Detections (d,) of one class over all images, best first.

    ``images``: the image of each; ``hits``: (10, d), whether each matches a box of the truth at every IoU;
    ``ignored``: (10, d), whether it is of a crowd there and so no error; ``truths``: boxes of the truth in
    each image (n,).
    """

    scores: FloatArray
    images: IndexArray
    hits: BoolArray
    ignored: BoolArray
    truths: FloatArray


def match_classes(truth: Sequence[Boxes], predicted: Sequence[Boxes]) -> tuple[ClassMatches, ...]:
    """Match detections with the truth, image by image, for every class that occurs.

    The best detection first takes the box of the truth that it overlaps most, of those still free.
    """
    names = sorted({int(c) for boxes in (*truth, *predicted) for c in boxes.classes})
    return tuple(_match_class(name, truth, predicted) for name in names)


def _match_class(name: int, truth: Sequence[Boxes], predicted: Sequence[Boxes]) -> ClassMatches:
    scores, images, hits, ignored, truths = [], [], [], [], np.zeros(len(truth))
    for image, (wanted, given) in enumerate(zip(truth, predicted, strict=True)):
        boxes = wanted.corners[wanted.classes == name]
        truths[image] = len(boxes)
        assert given.scores is not None
        own = np.flatnonzero(given.classes == name)
        own = own[np.argsort(-given.scores[own], kind="stable")][:MOST_DETECTIONS]
        if own.size:
            scores.append(given.scores[own])
            images.append(np.full(len(own), image))
            hits.append(_match_image(boxes, given.corners[own]))
            crowds = wanted.crowds[wanted.crowd_classes == name]
            ignored.append(_of_crowds(crowds, given.corners[own]) & ~hits[-1])
    if not scores:
        none = np.zeros((len(IOUS), 0), dtype=bool)
        return ClassMatches(np.zeros(0), np.zeros(0, np.int64), none, none, truths)
    joined = np.concatenate(scores)
    order = np.argsort(-joined, kind="stable")
    return ClassMatches(
        joined[order],
        np.concatenate(images)[order],
        np.concatenate(hits, axis=1)[:, order],
        np.concatenate(ignored, axis=1)[:, order],
        truths,
    )


def _of_crowds(crowds: FloatArray, predicted: FloatArray) -> BoolArray:
    """Whether detections (d, 4) lie in a crowd (m, 4) by as much as every IoU asks for: (10, d).

    As COCO does: by the share of the detection that is inside.
    """
    if not len(crowds):
        return np.zeros((len(IOUS), len(predicted)), dtype=bool)
    upper = np.maximum(predicted[:, None, :2], crowds[None, :, :2])
    lower = np.minimum(predicted[:, None, 2:], crowds[None, :, 2:])
    inside = np.prod(np.clip(lower - upper, 0, None), axis=2)
    area = np.prod(np.clip(predicted[:, 2:] - predicted[:, :2], 0, None), axis=1)
    share = np.divide(inside.max(axis=1), area, out=np.zeros(len(predicted)), where=area > 0)
    return np.asarray(share >= np.array(IOUS)[:, None] - _ROUNDING)


def _match_image(truth: FloatArray, predicted: FloatArray) -> BoolArray:
    """Whether detections (d, 4), best first, match boxes of the truth (t, 4): (10, d)."""
    hits = np.zeros((len(IOUS), len(predicted)), dtype=bool)
    if not len(truth):
        return hits
    free = np.ones((len(IOUS), len(truth)), dtype=bool)
    least, levels = np.array(IOUS) - _ROUNDING, np.arange(len(IOUS))
    for place, overlaps in enumerate(intersection_over_union(predicted, truth)):
        offered = np.where(free, overlaps, -1.0)
        best = offered.argmax(axis=1)
        hits[:, place] = offered[levels, best] >= least
        free[levels[hits[:, place]], best[hits[:, place]]] = False
    return hits


def average_precisions(matches: Sequence[ClassMatches], weights: NDArray[np.float32]) -> FloatArray:
    """AP (b, 10) at every IoU, averaged over classes that the truth has; NaN where it has none.

    Args:
        matches: of every class.
        weights: how often every image counts in each of b draws (b, n).
    """
    total, classes = np.zeros((len(weights), len(IOUS))), np.zeros(len(weights))
    for of_class in matches:
        truths = weights @ of_class.truths
        classes += truths > 0
        total += _of_class(of_class, weights, truths)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / classes[:, None])


def _of_class(matches: ClassMatches, weights: NDArray[np.float32], truths: FloatArray) -> FloatArray:
    """AP (b, 10) of one class; 0 where the truth has none of it."""
    areas = np.zeros((len(weights), len(IOUS)))
    step = max(1, _VALUES_AT_ONCE // max(1, len(matches.images)))
    for start in range(0, len(weights), step):
        rows = slice(start, start + step)
        drawn = weights[rows][:, matches.images]
        crowds = matches.ignored.any()
        seen = np.cumsum(drawn, axis=1, dtype=np.float64)
        for level, matched in enumerate(matches.hits):
            # Precision is greatest, and recall grows, at hits alone.
            places = np.flatnonzero(matched)
            if places.size:
                if crowds:
                    seen = np.cumsum(drawn * ~matches.ignored[level], axis=1, dtype=np.float64)
                hits = np.cumsum(drawn[:, places], axis=1, dtype=np.float64)
                areas[rows, level] = _area(hits, seen[:, places], truths[rows, None])
    return np.where(truths[:, None] > 0, areas, 0.0)


def _area(hits: FloatArray, seen: FloatArray, truths: FloatArray) -> FloatArray:
    """Mean precision (b,) at 101 recalls from hits and detections (b, h) up to every hit."""
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = np.divide(hits, truths, out=np.zeros_like(hits), where=truths > 0)
    reached = np.floor((_RECALL_POINTS - 1) * recall + _ROUNDING) + 1
    gained = np.diff(reached, axis=1, prepend=0.0)
    return np.asarray((envelope * gained).sum(axis=1) / _RECALL_POINTS)


def f1_score(matches: Sequence[ClassMatches], confidence: float) -> float:
    """F1 of detections from ``confidence`` on at IoU .5, over all classes; 1 if there is nothing at all."""
    sure = [m.scores >= confidence for m in matches]
    hits = sum(int(m.hits[0][s].sum()) for m, s in zip(matches, sure, strict=True))
    sure_count = sum(int((s & ~m.ignored[0]).sum()) for m, s in zip(matches, sure, strict=True))
    truths = sum(float(m.truths.sum()) for m in matches)
    return 2 * hits / (sure_count + truths) if sure_count + truths else 1.0
