"""Placement of labels beside the lines of a plot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Place = tuple[float, float]

_CHARACTER = 6.6
_HEIGHT = 11.0
_AWAY = 7.0
_CLEAR = 3.0
_SAMPLES = 8
_LEAST_DISTANCE = 16.0


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels; ``bottom`` is below ``top``."""

    left: float
    top: float
    right: float
    bottom: float

    def distance(self, place: Place) -> float:
        """Distance of a point from the box; 0 inside."""
        dx = max(self.left - place[0], 0.0, place[0] - self.right)
        dy = max(self.top - place[1], 0.0, place[1] - self.bottom)
        return math.hypot(dx, dy)

    def overlaps(self, other: Box) -> bool:
        """Whether the two have a point in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Box) -> bool:
        """Whether ``other`` is inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


def label_boxes(curves: Sequence[Sequence[Place]], labels: Sequence[str], frame: Box) -> list[Box | None]:
    """For each curve, in pixels, the box of its label beside one of its points; ``None`` if none is free.

    A box lies within ``frame``, touches no line and no other label, and is as far from other curves as
    possible.
    """
    dense = [_dense(curve) for curve in curves]
    taken: list[Box] = []
    boxes: list[Box | None] = []
    for index, label in enumerate(labels):
        others = [p for i, curve in enumerate(dense) if i != index for p in curve]
        best, farthest = None, _LEAST_DISTANCE
        for box in _candidates(curves[index], label) if label else ():
            if not frame.holds(box) or any(box.overlaps(t) for t in taken):
                continue
            if min(box.distance(p) for p in dense[index]) < _CLEAR:
                continue
            away = min((box.distance(p) for p in others), default=math.inf)
            if away > farthest:
                best, farthest = box, away
        boxes.append(best)
        taken += [] if best is None else [best]
    return boxes


def _candidates(curve: Sequence[Place], label: str) -> list[Box]:
    """Boxes above and below, to the left and to the right of every point."""
    width = _CHARACTER * len(label)
    return [
        Box(left=left, top=top, right=left + width, bottom=top + _HEIGHT)
        for x, y in curve
        for left in (x + _AWAY, x - _AWAY - width)
        for top in (y - _HEIGHT - 1.0, y + 1.0)
    ]


def _dense(curve: Sequence[Place]) -> list[Place]:
    """The points of a curve with interpolated points between them."""
    between = [
        (a[0] + (b[0] - a[0]) * i / _SAMPLES, a[1] + (b[1] - a[1]) * i / _SAMPLES)
        for a, b in itertools.pairwise(curve)
        for i in range(_SAMPLES)
    ]
    return [*between, *curve[-1:]]
