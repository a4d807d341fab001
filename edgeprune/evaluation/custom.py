"""The user's own measure: ``--metric file.py:function``, called as ``metric(outputs, images, labels)``."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import Float32Array, FloatArray
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.errors import UsageError
from edgeprune.evaluation.base import (
    Measure,
    MeasureFigure,
    Reference,
    bootstrap_weights,
    drawn_figure,
)
from edgeprune.notes import Fact
from edgeprune.parity import Outputs
from edgeprune.showing import in_short
from edgeprune.system.imports import UserFunction

Number = TypeVar("Number", bound=np.generic)

_GIVEN = "the outputs (a list of arrays), the images and the labels (an array or None)"
_ACCEPTED = "accepted is a finite number, or an array with one for every image, of which higher is better"


def find_metric(spec: str) -> UserFunction:
    """The function that ``--metric`` names, imported but not called.

    Raises:
        UsageError: there is no such module or function.
    """
    return UserFunction(spec, what="metric", error=UsageError, given=_GIVEN)


class CustomMeasure(Measure):
    """What the user's function returns: one number, or one for every image, which gives an interval.

    Args:
        reference: as for every measure.
        spec: where the function is.
        images: (n, c, h, w), as the network takes them; one array an input.
    """

    kind = AccuracyKind.METRIC

    def __init__(self, reference: Reference, spec: str, images: tuple[Float32Array, ...]) -> None:
        super().__init__(reference)
        self._spec = spec
        self._function = find_metric(spec)
        images = tuple(_read_only(each) for each in images)
        self._images = images[0] if len(images) == 1 else images
        before = self._values(reference.original)
        self._before = before
        self.counts_points = bool(np.all((before >= 0) & (before <= 1)))
        self._weights = bootstrap_weights(reference.images, reference.seed).astype(np.float64)
        self._weights /= reference.images
        interval = "" if before.ndim else "; it returns one number, not one for every image, so no interval"
        told = f"judged by the metric {spec!r}: {before.mean():.4g} for the original{interval}"
        self.notes = (Fact(told),)

    def figure(self, outputs: Outputs) -> MeasureFigure:
        """What the function returns; the mean over images where it returns one for each."""
        return drawn_figure(self._draws(self._values(outputs)), self.kind.value, higher_is_better=True)

    def loss(self, outputs: Outputs) -> MeasureFigure | None:
        """Share of the original's metric that is lost; ``None`` where that is 0."""
        before, after = self._draws(self._before), self._draws(self._values(outputs))
        if before[0] == 0:
            return None
        return drawn_figure((before - after) / abs(before[0]), "share of the original's metric")

    def drawn_points(self, outputs: Outputs) -> FloatArray | None:
        """Points of the metric lost, in draws of images; ``None`` where it is one number for all images."""
        after = self._values(outputs)
        if not after.ndim or not self._before.ndim:
            return None
        return 100 * (self._draws(self._before) - self._draws(after))

    def in_words(self, outputs: Outputs, loss: MeasureFigure) -> tuple[str, str]:  # noqa: ARG002
        """The share of the metric that is lost, and its interval."""
        lost = f"loses {loss.value:.1%} of the given metric"
        interval = f"{loss.low:.1%} to {loss.high:.1%}"
        return lost if loss.value > 0 else "no measurable loss of the given metric", interval

    def nothing_to_lose(self) -> str | None:
        """Why points cannot be counted."""
        before = float(self._before.mean())
        return None if before > 0 else f"the given metric is {before:g} for the original"

    def _draws(self, values: FloatArray) -> FloatArray:
        return np.asarray(self._weights @ values) if values.ndim else np.full(1, values)

    def _values(self, outputs: Outputs) -> FloatArray:
        """What the function returns, as one number () or one for every image (n,).

        Raises:
            UsageError: it fails, or returns something else.
        """
        labels = self.reference.labels.classes
        shown = [_read_only(output) for output in outputs]
        returned = self._function(shown, self._images, None if labels is None else _read_only(labels))
        try:
            values = np.asarray(returned, dtype=np.float64)
        except Exception as reason:
            raise self._no_number(returned) from reason
        if values.shape not in ((), (self.reference.images,)) or not np.isfinite(values).all():
            raise self._no_number(returned)
        return values

    def _no_number(self, returned: object) -> UsageError:
        shape = getattr(returned, "shape", None)
        if isinstance(returned, (int, float, np.number)):
            told = f"{float(returned):g}"
        elif shape is None:
            told = f"a value of type {type(returned).__name__}"
        else:
            told = f"an array of shape {in_short(tuple(shape))}"
            if tuple(shape) in ((), (self.reference.images,)):
                told += " with values that are not finite"
        return UsageError(
            f"metric {self._spec!r} returned {told} for {self.reference.images} images; {_ACCEPTED}"
        )


def _read_only(values: NDArray[Number]) -> NDArray[Number]:
    """A view that the function cannot write to."""
    view = values.view()
    view.flags.writeable = False
    return view
