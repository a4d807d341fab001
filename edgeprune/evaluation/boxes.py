"""Detections from a detector's output tensors: layout, scores, and suppression of duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import BoolArray, FloatArray
from edgeprune.artifacts.choices import BoxFormat
from edgeprune.errors import UsageError
from edgeprune.evaluation.base import Boxes, misfit, shapes_in_words
from edgeprune.parity import Outputs

CONFIDENCE = 0.25
"""Score from which a detection counts as one."""
MOST_DETECTIONS = 100
"""Of one image, best first, as in COCO."""
_LEAST_SCORE = 1e-3
_MOST_CANDIDATES = 1000
_DUPLICATE_IOU = 0.7
_ROUNDING = 1e-3
_FINAL_COLUMNS = 6

_ACCEPTED = (
    "is one tensor (n, 4 + classes, anchors) or (n, anchors, 4 + classes), with or without an objectness, "
    "boxes (n, k, 4) beside scores (n, k, classes), or (n, k, 6) with x1 y1 x2 y2 score class, with scores "
    "in 0..1"
)
_REMEDY = "export the network with its decoding of boxes, or measure with --metric FILE.py:FUNCTION"


class BoxTensors(Enum):
    """Which tensors hold boxes, scores and classes."""

    ONE = "one tensor of boxes and class scores"
    TWO = "boxes beside class scores"
    FINAL = "final boxes with score and class"


@dataclass(frozen=True, kw_only=True)
class BoxLayout:
    """How boxes are read: ``corners`` says x1 y1 x2 y2 rather than centre and size; ``anchors_last``: the
    numbers of an anchor are along axis 1; ``boxes_at``: the output with boxes of two."""

    tensors: BoxTensors
    corners: bool
    objectness: bool = False
    anchors_last: bool = False
    boxes_at: int = 0

    def in_words(self, outputs: Outputs) -> str:
        """The layout with the shapes that it was inferred from."""
        numbers = "x1 y1 x2 y2" if self.corners else "centre and size"
        more = " behind an objectness" if self.objectness else ""
        several = "s are" if len(outputs) > 1 else " is"
        return (
            f"the output{several} {shapes_in_words(outputs)}, read as {self.tensors.value}{more}, {numbers}"
        )

    def classes(self, outputs: Outputs) -> int | None:
        """Number of classes that have scores; ``None`` where rows name theirs."""
        if self.tensors is BoxTensors.FINAL:
            return None
        if self.tensors is BoxTensors.TWO:
            return int(_wide(outputs[1 - self.boxes_at][:1], self.anchors_last).shape[-1])
        return int(_wide(outputs[0][:1], self.anchors_last).shape[-1]) - 4 - self.objectness

    def decode(self, outputs: Outputs) -> tuple[Boxes, ...]:
        """Detections of every image, best first, without duplicates."""
        corners, scores, classes = self._columns(outputs)
        final = self.tensors is BoxTensors.FINAL
        return tuple(
            detections(c, s, k, suppress=not final) for c, s, k in zip(corners, scores, classes, strict=True)
        )

    def _columns(self, outputs: Outputs) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
        """Corners (n, k, 4), scores (n, k) and classes (n, k)."""
        if self.tensors is BoxTensors.TWO:
            boxes = _wide(outputs[self.boxes_at], self.anchors_last)
            by_class = _wide(outputs[1 - self.boxes_at], self.anchors_last)
        else:
            rows = _wide(outputs[0], self.anchors_last)
            boxes, by_class = rows[..., :4], rows[..., 4:]
        corners = boxes if self.corners else _corners(boxes)
        if self.tensors is BoxTensors.FINAL:
            return corners, by_class[..., 0], np.nan_to_num(by_class[..., 1]).astype(np.int64)
        if self.objectness:
            by_class = by_class[..., 1:] * by_class[..., :1]
        by_class = np.nan_to_num(by_class, nan=0.0, posinf=0.0, neginf=0.0)
        return corners, by_class.max(axis=-1), by_class.argmax(axis=-1)


def _wide(values: NDArray[Any], anchors_last: bool) -> FloatArray:
    wide = np.asarray(values, dtype=np.float64)
    wide = wide[..., None] if wide.ndim == 2 else wide
    return wide.swapaxes(1, 2) if anchors_last else wide


def _corners(boxes: FloatArray) -> FloatArray:
    """Corners from centre and size."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def infer_layout(outputs: Outputs, given: BoxFormat | None = None) -> BoxLayout:
    """Layout by shapes and ranges of values; ``given`` decides about the four numbers and the objectness.

    Raises:
        UsageError: the outputs have none of the layouts.
    """
    told = None if given is None else given in (BoxFormat.XYXY, BoxFormat.XYXY_OBJECTNESS)
    if len(outputs) == 2:
        return _layout_of_two(outputs, told)
    if len(outputs) != 1 or outputs[0].ndim != 3:
        raise misfit("detection", outputs, _ACCEPTED, _REMEDY)
    whole = np.asarray(outputs[0], dtype=np.float64)
    behind_given = given is not None and given.value.endswith("objectness")
    if not behind_given and _is_final(whole):
        return BoxLayout(tensors=BoxTensors.FINAL, corners=told is not False)
    ways = []
    for anchors_last in (False, True):
        rows = whole.swapaxes(1, 2) if anchors_last else whole
        if rows.shape[2] >= 5 and _are_scores(rows[..., 4:]):
            ways.append((rows.shape[2], anchors_last, rows))
    if not ways:
        raise misfit("detection", outputs, _ACCEPTED, _REMEDY)
    numbers, anchors_last, rows = min(ways, key=lambda way: way[0])
    behind = _has_objectness(rows[..., 4:]) if given is None else behind_given
    if behind and numbers < _FINAL_COLUMNS:
        raise UsageError(
            f"--boxes {'' if given is None else given.value} was given, and the output "
            f"{shapes_in_words(outputs)} has five numbers a box, which leaves no class score behind an "
            "objectness; accepted are xyxy and xywh"
        )
    return BoxLayout(
        tensors=BoxTensors.ONE,
        corners=_are_corners(rows[..., :4]) if told is None else told,
        anchors_last=anchors_last,
        objectness=behind,
    )


def _layout_of_two(outputs: Outputs, told: bool | None) -> BoxLayout:
    """Layout of boxes beside scores, in either order."""
    for anchors_last in (False, True):
        for at in (0, 1):
            boxes, scores = outputs[at], outputs[1 - at]
            if boxes.ndim != 3 or scores.ndim not in (2, 3):
                continue
            rows, by_class = _wide(boxes, anchors_last), _wide(scores, anchors_last and scores.ndim == 3)
            fits = rows.shape[2] == 4 and rows.shape[1] == by_class.shape[1] and _are_scores(by_class)
            if fits:
                return BoxLayout(
                    tensors=BoxTensors.TWO,
                    corners=_are_corners(rows) if told is None else told,
                    anchors_last=anchors_last and scores.ndim == 3,
                    boxes_at=at,
                )
    raise misfit("detection", outputs, _ACCEPTED, _REMEDY)


def _are_scores(values: FloatArray) -> bool:
    return bool(np.all((values >= -_ROUNDING) & (values <= 1 + _ROUNDING)))


def _are_corners(boxes: FloatArray) -> bool:
    """Whether the second corner is never before the first."""
    return bool(np.all(boxes[..., 2:] >= boxes[..., :2] - _ROUNDING))


def _is_final(rows: FloatArray) -> bool:
    if rows.shape[2] != _FINAL_COLUMNS or not _are_corners(rows[..., :4]):
        return False
    classes = rows[..., 5]
    return _are_scores(rows[..., 4]) and bool(np.all(classes == np.round(classes)))


def _has_objectness(scores: FloatArray) -> bool:
    """Whether the first score is an objectness.

    Class scores behind one say which class a box would have; they are high where there is nothing, too. Class
    scores without one are all low there.
    """
    if scores.shape[2] < 2:
        return False
    background = scores[..., 0] < CONFIDENCE
    others = scores[..., 1:].max(axis=2)[background]
    return bool(background.mean() > 0.5 and others.size and (others >= CONFIDENCE).mean() > 0.5)


def detections(
    corners: FloatArray, scores: FloatArray, classes: NDArray[np.int64], *, suppress: bool
) -> Boxes:
    """Boxes of one image with an area and a score, best first, at most 100.

    Args:
        corners: (k, 4) as x1 y1 x2 y2; scores: (k,); classes: (k,).
        suppress: leave out boxes that overlap a better one of their class by an IoU above .7.
    """
    areal = np.isfinite(corners).all(axis=1) & (corners[:, 2:] > corners[:, :2]).all(axis=1)
    kept = np.flatnonzero(areal & (scores >= _LEAST_SCORE))
    kept = kept[np.argsort(-scores[kept], kind="stable")][:_MOST_CANDIDATES]
    corners, scores, classes = corners[kept], scores[kept], classes[kept]
    if suppress:
        best = _without_duplicates(corners, classes)
        corners, scores, classes = corners[best], scores[best], classes[best]
    most = slice(MOST_DETECTIONS)
    return Boxes(corners[most], classes[most], scores[most])


def _without_duplicates(corners: FloatArray, classes: NDArray[np.int64]) -> list[int]:
    """Places of the boxes (best first) that stay, class by class."""
    open_: BoolArray = np.ones(len(corners), dtype=bool)
    kept: list[int] = []
    for place in range(len(corners)):
        if not open_[place]:
            continue
        kept.append(place)
        if len(kept) == MOST_DETECTIONS:
            break
        rivals = np.flatnonzero(open_[place + 1 :] & (classes[place + 1 :] == classes[place])) + place + 1
        overlaps = intersection_over_union(corners[place : place + 1], corners[rivals])[0]
        open_[rivals[overlaps > _DUPLICATE_IOU]] = False
    return kept


def intersection_over_union(first: FloatArray, second: FloatArray) -> FloatArray:
    """IoU (a, b) of every pair of boxes (a, 4) and (b, 4), given by corners; 0 without any area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0.0, None).prod(axis=2)
    areas = [np.clip(b[:, 2:] - b[:, :2], 0.0, None).prod(axis=1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))
