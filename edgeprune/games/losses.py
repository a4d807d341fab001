"""Loss of a coalition of channels on every image, of which v(S) is the negative."""

from __future__ import annotations

from enum import Enum

import numpy as np
import torch
from torch import Tensor

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.outputs.errors import OutputErrors


class LossKind(Enum):
    """The loss of which v(S) is the negative."""

    LABELS = "cross-entropy with the labels"
    PSEUDO_LABELS = "cross-entropy with the original's predictions"
    OUTPUTS = "squared error against the original's outputs, relative to the spread of each channel"


class ImageLoss:
    """The loss of outputs on images of ``batch``, whose original outputs are ``reference`` (one per output).

    Cross-entropy where the only output is class scores, with the labels if there are any.
    """

    def __init__(self, batch: ImageBatch, reference: list[Tensor]) -> None:
        self.kind = _choose_loss(batch, reference)
        self._reference = reference
        self._errors = OutputErrors(reference if self.kind is LossKind.OUTPUTS else [])
        if self.kind is LossKind.LABELS:
            assert batch.labels is not None
            self._classes = batch.labels
        elif self.kind is LossKind.PSEUDO_LABELS:
            self._classes = reference[0].argmax(dim=1)

    def on_images(self, count: int) -> ImageLoss:
        """The same loss for the first ``count`` images."""
        narrowed = object.__new__(ImageLoss)
        narrowed.kind = self.kind
        narrowed._reference = [r[:count] for r in self._reference]
        narrowed._errors = self._errors
        if self.kind is not LossKind.OUTPUTS:
            narrowed._classes = self._classes[:count]
        return narrowed

    def projection(self, outputs: list[Tensor], rng: np.random.Generator) -> Tensor:
        """Sum over images of r . y with standard normal r; its square estimates how far outputs move.

        Class scores count without what is common to all classes, other outputs in units of their channels.
        """
        if self.kind is LossKind.OUTPUTS:
            return self._errors.projection(outputs, lambda output: _random_like(output, rng))
        drawn = _random_like(outputs[0], rng)
        return ((drawn - drawn.mean(1, keepdim=True)) * outputs[0]).sum()

    def drawn_shapes(self, outputs: list[Tensor]) -> list[tuple[int, ...]]:
        """Shapes for one image of what :meth:`projection` draws, in its order."""
        if self.kind is LossKind.OUTPUTS:
            return [tuple(output.shape[1:]) for output in outputs if output.requires_grad]
        return [tuple(outputs[0].shape[1:])]

    def __call__(self, outputs: list[Tensor], chosen: Tensor) -> Tensor:
        """Loss (rows,) of ``outputs`` (rows, ...) whose rows belong to the images ``chosen`` (rows,)."""
        if self.kind is not LossKind.OUTPUTS:
            # Four times as fast as functional.cross_entropy on few classes, and as exact at high confidence.
            own = outputs[0].gather(1, self._classes[chosen].to(outputs[0].device)[:, None])
            return torch.logsumexp(outputs[0] - own, dim=1)
        return self._errors.squared(outputs, [r[chosen] for r in self._reference])


def _random_like(values: Tensor, rng: np.random.Generator) -> Tensor:
    drawn = rng.standard_normal(tuple(values.shape), dtype=np.float32)
    return torch.from_numpy(drawn).to(values.device)


def _choose_loss(batch: ImageBatch, reference: list[Tensor]) -> LossKind:
    single = len(reference) == 1 and reference[0].dim() == 2 and reference[0].shape[1] >= 2
    if not (single and batch.class_scores):
        return LossKind.OUTPUTS
    return LossKind.PSEUDO_LABELS if batch.labels is None else LossKind.LABELS
