"""Embeddings: whether images keep their nearest neighbours, and the cosine to the original's embeddings."""

from __future__ import annotations

import numpy as np

from edgeprune.artifacts.arrays import FloatArray, IndexArray
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.errors import CalibrationError
from edgeprune.evaluation.base import Measure, MeasureFigure, Reference, bootstrap_weights
from edgeprune.intervals import wilson_interval
from edgeprune.notes import Fact
from edgeprune.parity import Outputs

_FEWEST_IMAGES = 3
_ROWS_AT_ONCE = 512


class EmbeddingMeasure(Measure):
    """Share of images whose nearest neighbour among the others, by cosine, is the original's."""

    kind = AccuracyKind.RETRIEVAL

    def __init__(self, reference: Reference) -> None:
        super().__init__(reference)
        if reference.images < _FEWEST_IMAGES:
            raise CalibrationError(
                f"--task embedding was given with {reference.images} held-out images; at least "
                f"{_FEWEST_IMAGES} are needed for an image to have a nearest neighbour: give more "
                "(--calibration, --held-out)"
            )
        self._embedded = embeddings(reference.original)
        self._nearest = nearest_neighbours(self._embedded)
        self.notes = (
            Fact(
                f"embedding: {self._embedded.shape[1]} numbers an image; judged by the nearest neighbours "
                f"among {reference.images:,} held-out images, and the cosine to the original's"
            ),
        )

    def figure(self, outputs: Outputs) -> MeasureFigure:
        """Share of images that keep their nearest neighbour, with Wilson's interval."""
        kept = int((nearest_neighbours(embeddings(outputs)) == self._nearest).sum())
        low, high = wilson_interval(kept, self.reference.images)
        share = kept / self.reference.images
        return MeasureFigure(share, low, high, self.kind.value, higher_is_better=True)

    def loss(self, outputs: Outputs) -> MeasureFigure:
        """Share of images with another nearest neighbour."""
        kept = self.figure(outputs)
        unit = "share of images with another nearest neighbour"
        return MeasureFigure(1 - kept.value, 1 - kept.high, 1 - kept.low, unit)

    def drawn_points(self, outputs: Outputs) -> FloatArray:
        """Percentage points of images with another nearest neighbour, in draws of images."""
        weights = bootstrap_weights(self.reference.images, self.reference.seed)
        kept = nearest_neighbours(embeddings(outputs)) == self._nearest
        return np.asarray(100 * (1.0 - weights @ kept.astype(np.float64) / self.reference.images))

    def more(self, outputs: Outputs) -> str:
        """Mean cosine to the original's embeddings."""
        mean = cosines(self._embedded, embeddings(outputs)).mean()
        return f"mean cosine to the original's embeddings {mean:.4f}"


def embeddings(outputs: Outputs) -> FloatArray:
    """Embeddings (n, d) of length 1; those of length 0, or with values that are not finite, are 0."""
    joined = np.concatenate([o.reshape(len(o), -1) for o in outputs], axis=1).astype(np.float64)
    joined = np.where(np.isfinite(joined).all(axis=1, keepdims=True), joined, 0.0)
    lengths = np.linalg.norm(joined, axis=1, keepdims=True)
    return np.asarray(np.divide(joined, lengths, out=np.zeros_like(joined), where=lengths > 0))


def nearest_neighbours(embedded: FloatArray) -> IndexArray:
    """The nearest other image (n,) of every image; -1 for embeddings of length 0, which have none."""
    nearest = np.full(len(embedded), -1, dtype=np.int64)
    for start in range(0, len(embedded), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(embedded)))
        near = embedded[rows] @ embedded.T
        near[np.arange(len(rows)), rows] = -np.inf
        nearest[rows] = near.argmax(axis=1)
    nearest[~embedded.any(axis=1)] = -1
    return nearest


def cosines(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cosine (n,) of embeddings (n, d) of length 1; of two of length 0 it is 1."""
    both = ~first.any(axis=1) & ~second.any(axis=1)
    return np.asarray(np.where(both, 1.0, (first * second).sum(axis=1)))
