"""Histograms in which a value counts by how much the outputs depend on it.

An error e of an activation moves the outputs y by J e. With r . y a random projection and g its gradient, the
expected square of r . J e is the sum of g^2 e^2 as far as errors are independent (the diagonal of Fisher's
information, as in Li et al., BRECQ, ICLR 2021, eq. 10). Where objects are rare, as in most images that a
detector sees, the values that make them are rare, too: counted alike, they are what a range leaves out.

Squared gradients add up to one in each image: few images, whose outputs are least saturated, have gradients
that are larger by orders of magnitude, and would decide alone.
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
from edgeprune.quantization.ranges.calibration import Histogram

COUNTED_ALIKE = 0.01
"""Share in which all values count alike: gradients of some images miss what others show."""

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


def weighted(
    counted: dict[str, Histogram],
    model: ModelProto,
    source: GradientSource,
    results: Mapping[str, str],
    advance: Advance = lambda _images: None,
) -> tuple[dict[str, Histogram], Weighing]:
    """``counted`` with every value weighed by its squared gradient.

    Of a tensor in ``results`` by that of the other one, which an activation makes of it. Tensors without a
    gradient stay as they are.
    """
    found = {name: Histogram(low=h.low, high=h.high) for name, h in counted.items()}
    try:
        for images, traced in source.trace(model):
            for name, histogram in found.items():
                own, behind = traced.get(name), traced.get(results.get(name, name))
                if own is not None and behind is not None and own[0].shape == behind[1].shape:
                    histogram.add(own[0], weights=_shares(behind[1]))
            advance(images)
    except EdgepruneError as error:
        return counted, Weighing(reason=str(error))
    return {n: _mixed(h, found[n]) for n, h in counted.items()}, Weighing(images=source.images)


def _shares(gradients: NDArray[np.float32]) -> FloatArray:
    """Squares (n, ...), of each image divided by their sum."""
    squares = np.square(gradients, dtype=np.float64).reshape(len(gradients), -1)
    sums = squares.sum(axis=1, keepdims=True)
    usable = np.isfinite(sums) & (sums > 0.0)
    return np.asarray(np.divide(squares, sums, out=np.zeros_like(squares), where=usable))


def _mixed(plain: Histogram, weighed: Histogram) -> Histogram:
    total, of_all = float(weighed.counts.sum()), float(plain.counts.sum())
    if not (total > 0.0 and of_all > 0.0):
        return plain
    counts = (1.0 - COUNTED_ALIKE) * weighed.counts / total + COUNTED_ALIKE * plain.counts / of_all
    return Histogram(plain.low, plain.high, counts)
