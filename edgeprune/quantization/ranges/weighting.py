"""What an error of an activation's value counts: by how much the outputs depend on it.

An error e of an activation moves the outputs y by J e. With r . y a random projection and g its gradient, the
expected square of r . J e = g . e is how far they move (the diagonal of g g' is Fisher's information, as in
Li et al., BRECQ, ICLR 2021, eq. 10). Errors of rounding are as often up as down: their squares add, by the
sum of g^2 at each value. What is cut off at an end of the range is all too small or all too large: there
g . e is summed first and squared then. Where objects are rare, as in most images that a detector sees, the
values that make them are rare, too: counted alike, they are what a range leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgeprune.artifacts.arrays import Advance, FloatArray
from edgeprune.errors import EdgepruneError
from edgeprune.quantization.ranges.calibration import BINS, Histogram

COUNTED_ALIKE = 0.01
"""Share in which all values count alike: gradients of some images miss what others show."""
MEMORY_BYTES = 256 * 2**20
_LEAST_SUMS = 8

Traced = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Values of activations on a batch, and the gradient of a random projection of the outputs by each."""


class GradientSource(Protocol):
    """What differentiates a 32-bit model."""

    @property
    def images(self) -> int:
        """Number of images that are traced."""

    def trace(self, model: ModelProto) -> Iterator[tuple[int, Traced]]:
        """Number of images and their activations, a batch at a time.

        Raises:
            EdgepruneError: the model cannot be differentiated.
        """


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """Number of images whose gradients weigh, or why all values count alike where gradients were to."""

    images: int = 0
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of one tensor, by the bins of its histogram.

    ``squares`` (bins,): sums of squared gradients; ``sums`` (k, bins): those of gradients in k parts of the
    images, each with projections of its own.
    """

    squares: FloatArray
    sums: NDArray[np.float32]


def weights_of(
    counted: Mapping[str, Histogram],
    model: ModelProto,
    source: GradientSource,
    results: Mapping[str, str],
    advance: Advance = lambda _images: None,
) -> tuple[dict[str, Weights], Weighing]:
    """Weights of all tensors that have a gradient.

    Those of a tensor in ``results`` are by the gradient of the other one, which an activation makes of it.
    """
    row_bytes = BINS * np.dtype(np.float32).itemsize * max(1, len(counted))
    rows = max(_LEAST_SUMS, MEMORY_BYTES // row_bytes)
    squares = {name: Histogram(low=h.low, high=h.high) for name, h in counted.items()}
    sums: dict[str, list[NDArray[np.float32]]] = {name: [] for name in counted}
    try:
        for images, traced in source.trace(model):
            for name, histogram in squares.items():
                own, behind = traced.get(name), traced.get(results.get(name, name))
                if own is None or behind is None or own[0].shape != behind[1].shape:
                    continue
                gradients = behind[1].astype(np.float64)
                histogram.add(own[0], weights=np.square(gradients))
                _add_row(sums[name], _summed(histogram, own[0], gradients), rows)
            advance(images)
    except EdgepruneError as error:
        return {}, Weighing(reason=str(error))
    found = {
        name: Weights(squares=histogram.counts, sums=np.stack(sums[name]))
        for name, histogram in squares.items()
        if 0.0 < histogram.counts.sum() < np.inf
    }
    return found, Weighing(images=source.images)


def _summed(bins: Histogram, values: NDArray[np.float32], gradients: FloatArray) -> NDArray[np.float32]:
    summed = Histogram(low=bins.low, high=bins.high)
    summed.add(values, weights=gradients)
    return summed.counts.astype(np.float32)


def _add_row(known: list[NDArray[np.float32]], row: NDArray[np.float32], most: int) -> None:
    """As a part of its own, or to the first one once there are too many, which goes to the end."""
    if len(known) < most:
        known.append(row)
    else:
        known.append(known.pop(0) + row)
