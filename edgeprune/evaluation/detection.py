"""Detection: AP against labels, or against what the original itself detects."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.choices import BoxFormat
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.errors import CalibrationError
from edgeprune.evaluation.average_precision import (
    ClassMatches,
    average_precisions,
    f1_score,
    match_classes,
)
from edgeprune.evaluation.base import (
    Boxes,
    Measure,
    MeasureFigure,
    Reference,
    bootstrap_weights,
    drawn_figure,
    share_lost,
    too_few,
)
from edgeprune.evaluation.boxes import CONFIDENCE, infer_layout
from edgeprune.evaluation.overlays import Overlay
from edgeprune.evaluation.thresholds import expected_changes
from edgeprune.notes import Fact
from edgeprune.parity import Outputs
from edgeprune.reporting.formatting import count_words

_FEWEST_TRUTHS = 10
_LEAST_AP = 0.01
"""Below it the original has not a point to lose."""
_TIMES_MORE = 10
"""Times its AP that a detector has without regard to classes, where it is the classes that are wrong."""
_F1_POINTS = 2.0
"""Points of F1 that count as one of AP."""
_MOST_SHARE = 1.5
"""Corners are shares of the input, not pixels, where half of the boxes end before."""


class _Judged:
    """Detections matched with the truth."""

    def __init__(
        self, boxes: tuple[Boxes, ...], truth: tuple[Boxes, ...], weights: NDArray[np.float32]
    ) -> None:
        self.boxes = boxes
        self.matches: tuple[ClassMatches, ...] = match_classes(truth, boxes)
        self._weights = weights

    @cached_property
    def draws(self) -> FloatArray:
        """AP (1 + draws, 10) on all images, then in every draw."""
        return average_precisions(self.matches, self._weights)


class DetectionMeasure(Measure):
    """AP (IoU .50 to .95) of boxes; without labels, what the original detects at a confidence of .25 is the
    truth."""

    def __init__(self, reference: Reference, given: BoxFormat | None = None) -> None:
        super().__init__(reference)
        self._layout = infer_layout(reference.original, given)
        own = self._layout.decode(reference.original)
        labelled = reference.labels.boxes is not None
        self.kind = AccuracyKind.AP if labelled else AccuracyKind.AP_AGREEMENT
        _check_classes(reference, self._layout.classes(reference.original))
        scaled, self._in_shares = _like_detections(reference, own)
        self._truth = tuple(map(confident, own)) if scaled is None else scaled
        self._objects = sum(map(len, self._truth))
        if not self._objects:
            raise CalibrationError(_nothing(labelled))
        self._weights = bootstrap_weights(reference.images, reference.seed)
        self._before = _Judged(own, self._truth, self._weights)
        self._last: tuple[Outputs, _Judged] | None = None
        against = (
            "labels" if labelled else f"the original's own detections of confidence {CONFIDENCE} and more"
        )
        reading = "--boxes: another reading" + ("; in shares of the input" if self._in_shares else "")
        self.notes = (
            Fact(
                f"detection: {self._layout.in_words(reference.original)} ({reading}); judged by "
                f"{against}: {count_words(self._objects, 'box', 'boxes')} in "
                f"{count_words(reference.images, 'image')}"
            ),
        )

    def figure(self, outputs: Outputs) -> MeasureFigure:
        """AP of the outputs."""
        return drawn_figure(self._drawn(outputs), self.kind.value, higher_is_better=True)

    def value(self, outputs: Outputs) -> float:
        """AP of the outputs without an interval."""
        return float(average_precisions(self._judged(outputs).matches, self._weights[:1]).mean())

    def points_parted(self, outputs: Outputs) -> float:
        """Points lost of AP, or half of those expected of F1 against the original's detections from .25 on.

        AP hardly sees scores that cross the threshold. F1, which feels each of them, may lose twice as much.
        """
        own = self._before.boxes
        sure = sum(len(confident(boxes)) for boxes in own)
        changes = expected_changes(own, self._judged(outputs).boxes, CONFIDENCE)
        return max(self.points_lost(outputs), 100 * changes / (2 * max(1, sure)) / _F1_POINTS)

    def loss(self, outputs: Outputs) -> MeasureFigure | None:
        """Share of the original's AP that is lost."""
        return share_lost(self.kind.value, self._drawn(self.reference.original), self._drawn(outputs))

    def drawn_points(self, outputs: Outputs) -> FloatArray:
        """Points of AP lost, in draws of images."""
        return np.asarray(100 * (self._drawn(self.reference.original) - self._drawn(outputs)))

    def _drawn(self, outputs: Outputs) -> FloatArray:
        return np.asarray(self._judged(outputs).draws.mean(axis=1))

    def more(self, outputs: Outputs) -> str:
        """AP50, and F1 at a confidence of .25."""
        judged = self._judged(outputs)
        figure = drawn_figure(judged.draws[:, 0], "AP50", higher_is_better=True)
        return (
            f"AP50 {figure.value:.1%} (95% interval {figure.low:.1%} to {figure.high:.1%}), "
            f"F1 at confidence {CONFIDENCE} and IoU 0.5 {f1_score(judged.matches, CONFIDENCE):.1%}"
        )

    def overlays(self, outputs: Outputs) -> tuple[Overlay, ...]:
        """Detections of confidence .25 and more."""
        sides = np.ones(4)
        if self.reference.input_size is not None and not self._in_shares:
            height, width = self.reference.input_size
            sides = np.array([width, height, width, height], dtype=np.float64)
        found = map(confident, self._layout.decode(outputs))
        return tuple(Overlay(boxes=b.corners / sides, classes=b.classes) for b in found)

    def nothing_to_lose(self) -> str | None:
        """Why an AP of so few boxes, or of 0, tells nothing."""
        if self._objects < _FEWEST_TRUTHS:
            ends = "in the held-out images"
            return too_few(self._objects, f"box {ends}", f"boxes {ends}", _FEWEST_TRUTHS)
        value = self.value(self.reference.original)
        if value < _LEAST_AP:
            found = "hardly any" if value > 0 else "none"
            shown = f"AP {value:.4f}; " if value > 0 else ""
            return f"the original itself finds {found} of the labelled boxes ({shown}{self._why_none(value)})"
        return None

    def _why_none(self, value: float) -> str:
        """Whether only the classes are others than those of the labels."""
        own = self._layout.decode(self.reference.original)
        truth, found = (
            [replace(b, classes=np.zeros_like(b.classes)) for b in part] for part in (self._truth, own)
        )
        placed = average_precisions(match_classes(truth, found), self._weights[:1])[0, 0]
        if placed > max(value, 0.0) * _TIMES_MORE:
            return (
                f"AP50 is {placed:.1%} without regard to classes: check that labels number them from 0 as "
                "the network does"
            )
        return "check labels and preprocessing"

    def _judged(self, outputs: Outputs) -> _Judged:
        """The outputs, matched; the last ones are kept, since several figures are made of them."""
        if outputs is self.reference.original:
            return self._before
        if self._last is None or self._last[0] is not outputs:
            decoded = self._layout.decode(outputs)
            self._last = outputs, _Judged(decoded, self._truth, self._weights)
        return self._last[1]


def _check_classes(reference: Reference, classes: int | None) -> None:
    if reference.labels.boxes is None or classes is None:
        return
    highest = max((int(boxes.classes.max()) for boxes in reference.labels.boxes if len(boxes)), default=-1)
    if highest >= classes:
        raise CalibrationError(
            f"the labelled boxes have a class {highest}, but the model has scores of {classes} classes (0 to "
            f"{classes - 1}); number classes as the model does, or give the images without labels"
        )


def _like_detections(reference: Reference, own: tuple[Boxes, ...]) -> tuple[tuple[Boxes, ...] | None, bool]:
    """The labelled boxes in the unit of the detections, and whether that is shares of the input."""
    labels, size = reference.labels.boxes, reference.input_size
    farthest = [float(np.abs(corners).max()) for boxes in own for corners in boxes.corners]
    if not farthest or np.median(farthest) > _MOST_SHARE:
        return labels, False
    if labels is None or size is None:
        return labels, True
    sides = np.array([size[1], size[0], size[1], size[0]], dtype=np.float64)
    scaled = (replace(b, corners=b.corners / sides, crowds=b.crowds / sides) for b in labels)
    return tuple(scaled), True


def confident(boxes: Boxes) -> Boxes:
    """The detections of one image that count as truth."""
    assert boxes.scores is not None
    sure = boxes.scores >= CONFIDENCE
    return Boxes(boxes.corners[sure], boxes.classes[sure])


def _nothing(labelled: bool) -> str:
    if labelled:
        return (
            "--task detection was given, and no held-out image has a labelled box; give images with objects"
        )
    return (
        f"--task detection was given, and the original detects nothing of confidence {CONFIDENCE} in the "
        "held-out images, so that there is nothing to compare with; give images with objects, and check the "
        "preprocessing (--card, --mean, --std) and the layout of the boxes (--boxes)"
    )
