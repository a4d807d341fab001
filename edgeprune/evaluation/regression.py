"""Regression: mean absolute and root mean squared error in the output's unit, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.errors import CalibrationError
from edgeprune.evaluation.base import (
    Measure,
    MeasureFigure,
    Reference,
    accuracy_figures,
    bootstrap_weights,
    drawn_figure,
)
from edgeprune.notes import Fact
from edgeprune.outputs.units import units_of
from edgeprune.parity import Outputs


@dataclass(frozen=True, kw_only=True)
class _Errors:
    """Mean absolute and squared errors of every image and channel (n, c), and the worst channel."""

    absolute: FloatArray
    squared: FloatArray
    worst: int


class RegressionMeasure(Measure):
    """Mean absolute error of the output channel that is worst by its spread, in its own unit.

    Channels of several outputs are numbered on. The loss is the squared error (with labels: its increase)
    over the channel's variance.
    """

    counts_points = False

    def __init__(self, reference: Reference) -> None:
        super().__init__(reference)
        values = reference.labels.values
        self.kind = AccuracyKind.ABSOLUTE_DEVIATION if values is None else AccuracyKind.ABSOLUTE_ERROR
        self._truth: list[FloatArray] = [
            np.asarray(o, dtype=np.float64) for o in (reference.original if values is None else [values])
        ]
        shapes = [o.shape for o in self._truth], [o.shape for o in reference.original]
        if shapes[0] != shapes[1]:
            raise CalibrationError(
                f"labels are of shape {shapes[0]} and the network's outputs of {shapes[1]}; accepted is a "
                "label for every output value"
            )
        self._axes = [units_of(o).axis if o.ndim > 1 else 0 for o in reference.original]
        self._spread = np.concatenate([self._by_channel(o).std((0, 2)) for o in self._with_axes(self._truth)])
        self._weights = bootstrap_weights(reference.images, reference.seed).astype(np.float64)
        self._weights /= reference.images
        self._before = self._errors(reference.original)
        against = "the original's outputs" if values is None else "labels"
        channels = f"{len(self._spread)} output channel{'s' if len(self._spread) > 1 else ''}"
        self.notes = (Fact(f"regression: {channels}, judged by {against} in the outputs' unit"),)

    def figure(self, outputs: Outputs) -> MeasureFigure:
        """Mean absolute error of the worst channel."""
        errors = self._errors(outputs)
        return self._figure_of(errors, errors.worst)

    def stages(self, outputs: Mapping[str, Outputs]) -> tuple[AccuracyFigure, ...]:
        """Mean absolute error at every stage of the channel that is worst in the last one."""
        errors = {name: self._errors(of_stage) for name, of_stage in outputs.items()}
        worst = list(errors.values())[-1].worst
        figures = {name: self._figure_of(of_stage, worst) for name, of_stage in errors.items()}
        return accuracy_figures(figures, self.reference.images)

    def _figure_of(self, errors: _Errors, channel: int) -> MeasureFigure:
        return drawn_figure(self._weights @ errors.absolute[:, channel], "unit of the output")

    def loss(self, outputs: Outputs) -> MeasureFigure:
        """Squared error of the worst channel over its variance, beyond that of the original."""
        after = self._errors(outputs)
        more = after.squared[:, after.worst] - self._before.squared[:, after.worst]
        variance = float(self._counted[after.worst]) ** 2
        return drawn_figure(self._weights @ more / variance, "squared error over the variance")

    def more(self, outputs: Outputs) -> str:
        """The worst channel, its root mean squared error, and both over its spread."""
        errors = self._errors(outputs)
        absolute = errors.absolute[:, errors.worst].mean()
        rooted = np.sqrt(errors.squared[:, errors.worst].mean())
        spread = self._counted[errors.worst]
        return (
            f"worst in channel {errors.worst}: root mean squared error {rooted:.3g}, and over the spread of "
            f"{spread:.3g} mean absolute error {absolute / spread:.2g} and root mean squared error "
            f"{rooted / spread:.2g}"
        )

    def in_words(self, outputs: Outputs, loss: MeasureFigure) -> tuple[str, str]:
        """The mean absolute error and the channel that it is of, and the interval of its squared error."""
        errors = self._errors(outputs)
        absolute = float(errors.absolute[:, errors.worst].mean())
        labelled = self.kind is AccuracyKind.ABSOLUTE_ERROR
        against = "against the labels" if labelled else "against the original"
        return (
            f"mean absolute error of {absolute:.3g} {against} in the worst output channel ({errors.worst}), "
            f"a squared error of {loss.value:.2g} of its variance",
            f"{loss.low:.2g} to {loss.high:.2g}",
        )

    @property
    def _counted(self) -> FloatArray:
        """Spread of every channel; for constant ones their size, or 1."""
        size = np.concatenate(
            [np.abs(self._by_channel(o)).mean((0, 2)) for o in self._with_axes(self._truth)]
        )
        return np.where(self._spread > 1e-5 * size, self._spread, np.where(size > 0, size, 1.0))

    def _with_axes(self, outputs: list[FloatArray]) -> list[tuple[FloatArray, int]]:
        return list(zip(outputs, self._axes, strict=True))

    @staticmethod
    def _by_channel(output: tuple[FloatArray, int]) -> FloatArray:
        """Values as (n, channels, positions)."""
        values, axis = output
        if axis == 0:
            return values[:, None, None]
        moved = np.moveaxis(values, axis, 1)
        return moved.reshape(*moved.shape[:2], -1)

    def _errors(self, outputs: Outputs) -> _Errors:
        wide = [np.asarray(o, dtype=np.float64) for o in outputs]
        pairs = zip(self._with_axes(wide), self._with_axes(self._truth), strict=True)
        absolute, squared = [], []
        for given, wanted in pairs:
            error = self._by_channel(given) - self._by_channel(wanted)
            absolute.append(np.abs(error).mean(axis=2))
            squared.append(np.square(error).mean(axis=2))
        of_channels = np.concatenate(absolute, axis=1)
        relative = np.nan_to_num(of_channels.mean(axis=0) / self._counted, nan=np.inf)
        return _Errors(
            absolute=of_channels,
            squared=np.concatenate(squared, axis=1),
            worst=int(relative.argmax()),
        )
