"""Segmentation: mean IoU over classes, and the share of pixels that agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.truth import NOWHERE
from edgeprune.errors import CalibrationError
from edgeprune.evaluation.base import (
    Measure,
    MeasureFigure,
    Reference,
    bootstrap_weights,
    drawn_figure,
    misfit,
    shapes_in_words,
    share_lost,
)
from edgeprune.evaluation.overlays import Overlay
from edgeprune.notes import Fact
from edgeprune.parity import Outputs
from edgeprune.reporting.formatting import count_words

_FEWEST_PIXELS = 100
_LEAST_SHARE = 0.01
"""Maps with fewer pixels than either beside their most frequent class have nothing to be judged by."""


class SegmentationMeasure(Measure):
    """Mean IoU over the classes that occur; without labels, the original's own segmentation is the truth."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(reference)
        maps = [place for place, output in enumerate(reference.original) if output.ndim == 4]
        if not maps:
            raise misfit(
                "segmentation",
                reference.original,
                "are scores for every pixel, (n, classes, h, w), (n, h, w, classes) or (n, 1, h, w)",
                "name what the network is for, or measure with --metric FILE.py:FUNCTION",
            )
        self._place = maps[0]
        scores = reference.original[self._place]
        self._last = scores.shape[3] < min(scores.shape[1:3])
        count = scores.shape[3 if self._last else 1]
        inside = bool(np.all((scores >= 0) & (scores <= 1)))
        self._threshold = 0.5 if inside else 0.0
        self._classes = max(2, count)
        own, labels = self._decide(reference.original), reference.labels.maps
        self.kind = AccuracyKind.MEAN_IOU_AGREEMENT if labels is None else AccuracyKind.MEAN_IOU
        self._truth = own if labels is None else _resized(labels, own.shape[1:])
        self._check_labels(own.shape)
        self._weights = bootstrap_weights(reference.images, reference.seed)
        self._before = self._draws(reference.original)
        decided = f"the greatest of {count} classes" if count > 1 else f"above {self._threshold:g}"
        against = "the original's own segmentation" if labels is None else "label maps"
        if labels is not None and labels.shape != own.shape:
            against += f" of {labels.shape[1:]}, brought to {own.shape[1:]}"
        self.notes = (
            Fact(
                f"segmentation: output {self._place}, {shapes_in_words([scores])}, has its classes along "
                f"axis {3 if self._last else 1} and each pixel {decided}; judged by {against}"
            ),
        )

    def figure(self, outputs: Outputs) -> MeasureFigure:
        """Mean IoU of the outputs."""
        return drawn_figure(self._draws(outputs), self.kind.value, higher_is_better=True)

    def value(self, outputs: Outputs) -> float:
        """Mean IoU of the outputs without an interval."""
        common, union = self._counts(outputs)
        return float(_mean_iou(common, union, self._weights[:1])[0])

    def loss(self, outputs: Outputs) -> MeasureFigure | None:
        """Share of the original's mean IoU that is lost."""
        return share_lost(self.kind.value, self._before, self._draws(outputs))

    def drawn_points(self, outputs: Outputs) -> FloatArray:
        """Points of mean IoU lost, in draws of images."""
        return np.asarray(100 * (self._before - self._draws(outputs)))

    def more(self, outputs: Outputs) -> str:
        """Share of pixels whose class is the same as in the truth."""
        counted = self._truth != NOWHERE
        agree = (self._decide(outputs) == self._truth)[counted].mean()
        return f"pixels of the same class {agree:.2%}"

    def overlays(self, outputs: Outputs) -> tuple[Overlay, ...]:
        """Class maps."""
        return tuple(Overlay(map=each) for each in self._decide(outputs))

    def nothing_to_lose(self) -> str | None:
        """Why a mean IoU of 0, or of maps with hardly more than one class, tells nothing."""
        if not self._before[0] > 0:
            return "the original's own mean IoU is 0 (check the label maps)"
        pixels = np.bincount(self._truth[self._truth != NOWHERE], minlength=self._classes)
        most = int(pixels.argmax())
        others = int(pixels.sum() - pixels[most])
        truth = "the original's own segmentation" if self._own else "the truth (label maps)"
        if others < min(_FEWEST_PIXELS, _LEAST_SHARE * pixels.sum()) or not others:
            found = f"{count_words(others, 'pixel')} of classes other" if others else "no class other"
            return (
                f"{truth} has {found} than {most} in the held-out images, so that a network which finds "
                "nothing else would seem to lose nothing; give images that show more (--calibration, "
                "--held-out)"
            )
        right = self._counts(self.reference.original)[0].sum(axis=0)
        if not right.sum() > right[most]:
            return (
                f"the original itself gets no pixel right of classes other than {most} (check the label maps "
                "and the preprocessing)"
            )
        return None

    @property
    def _own(self) -> bool:
        return self.kind is AccuracyKind.MEAN_IOU_AGREEMENT

    def _check_labels(self, shape: tuple[int, ...]) -> None:
        counted = self._truth[self._truth != NOWHERE]
        if self._truth.shape != shape or not counted.size:
            raise CalibrationError(
                f"label maps are {self._truth.shape} and the network's maps are {shape}; accepted are label "
                f"maps of that size with a class for some pixels ({NOWHERE}: counts nowhere)"
            )
        if self.kind is AccuracyKind.MEAN_IOU and not counted.any() and counted.size < self._truth.size:
            raise CalibrationError(
                f"label maps have the class 0 alone beside {NOWHERE}, which counts nowhere; accepted are "
                f"several classes: where {NOWHERE} is the object, save it as class 1"
            )
        if counted.min() < 0 or counted.max() >= self._classes:
            raise CalibrationError(
                f"label maps have classes {counted.min()} to {counted.max()}, and the network has "
                f"{self._classes}; accepted are 0 to {self._classes - 1}, and {NOWHERE} for pixels that "
                "count nowhere"
            )

    def _decide(self, outputs: Outputs) -> NDArray[np.int64]:
        """Class maps (n, h, w)."""
        scores: NDArray[Any] = outputs[self._place]
        axis = 3 if self._last else 1
        if scores.shape[axis] == 1:
            return np.asarray(scores.take(0, axis) > self._threshold, dtype=np.int64)
        return np.asarray(scores.argmax(axis), dtype=np.int64)

    def _counts(self, outputs: Outputs) -> tuple[FloatArray, FloatArray]:
        """Pixels of every image and class (n, classes) in both maps, and in either."""
        decided = self._decide(outputs)
        common, union = (np.zeros((len(decided), self._classes)) for _ in range(2))
        for image, counted in enumerate(self._truth != NOWHERE):
            given, wanted = decided[image][counted], self._truth[image][counted]
            both = np.bincount(wanted[given == wanted], minlength=self._classes)
            either = sum(np.bincount(m, minlength=self._classes) for m in (given, wanted)) - both
            common[image], union[image] = both, either
        return common, union

    def _draws(self, outputs: Outputs) -> FloatArray:
        return _mean_iou(*self._counts(outputs), self._weights)


def _resized(maps: NDArray[np.int64], size: tuple[int, ...]) -> NDArray[np.int64]:
    """Maps (n, h, w) at the size of the network's, each pixel by the class at its centre."""
    rows, columns = (
        ((np.arange(to) + 0.5) * of / to).astype(np.int64)
        for of, to in zip(maps.shape[1:], size, strict=True)
    )
    return maps[:, rows[:, None], columns[None, :]]


def _mean_iou(common: FloatArray, union: FloatArray, weights: NDArray[np.float32]) -> FloatArray:
    """Mean IoU (b,) over classes that occur, for weights of the images (b, n)."""
    common, union = weights.astype(np.float64) @ common, weights.astype(np.float64) @ union
    present = union > 0
    ratios = np.divide(common, union, out=np.zeros_like(common), where=present)
    return np.asarray(ratios.sum(axis=1) / np.maximum(1, present.sum(axis=1)))
