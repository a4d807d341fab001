"""Detections behind suppression, and how far two sets of them agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """Corners (k, 4), scores and classes (k,) of the objects in an image, by score."""

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]


def suppressed(rows: Floats, *, confidence: float, overlap: float = 0.45) -> Detections:
    """Objects of rows (anchors, 4 + classes) with centre and size, each class by itself."""
    scores, classes = rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)
    order = np.flatnonzero(scores >= confidence)
    order = order[np.argsort(-scores[order], kind="stable")]
    centre, half = rows[order, :2], rows[order, 2:4] / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    kept = kept_boxes(boxes, classes[order], overlap)
    return Detections(boxes[kept], scores[order][kept], classes[order][kept])


def kept_boxes(boxes: Floats, classes: NDArray[Any], overlap: float) -> list[int]:
    """Which boxes, best first, are covered by no better one of their class."""
    kept: list[int] = []
    for place in range(len(boxes)):
        same = [k for k in kept if classes[k] == classes[place]]
        if not same or overlaps(boxes[place], boxes[same]).max() <= overlap:
            kept.append(place)
    return kept


def overlaps(box: Floats, others: Floats) -> Floats:
    """Intersection over union of a box with others (k, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inside = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return np.asarray(inside / np.maximum(areas - inside, 1e-9))


def f1_of(wanted: list[Detections], found: list[Detections]) -> dict[str, Any]:
    """F1 of the detections over all images: a match has the class and an overlap of at least a half."""
    matched = sum(_matches(a, b) for a, b in zip(wanted, found, strict=True))
    objects, given = (sum(len(each.scores) for each in part) for part in (wanted, found))
    return {"agreement": 2 * matched / max(1, objects + given), "objects": objects, "given": given}


def _matches(wanted: Detections, found: Detections) -> int:
    free, matched = set(range(len(wanted.scores))), 0
    for box, kind in zip(found.boxes, found.classes, strict=True):
        own = [place for place in free if wanted.classes[place] == kind]
        if not own:
            continue
        shares = overlaps(box, wanted.boxes[own])
        if shares.max() >= 0.5:
            free.discard(own[int(shares.argmax())])
            matched += 1
    return matched
