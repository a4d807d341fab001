"""Loss of a coalition of channels on every image, of which v(S) is the negative."""

from __future__ import annotations

from enum import Enum

import numpy as np
import torch
from torch import Tensor

from edgeprune.artifacts.calibration import ImageBatch


class LossKind(Enum):
    """The loss of which v(S) is the negative."""

    LABELS = "cross-entropy with the labels"
    PSEUDO_LABELS = "cross-entropy with the original's predictions"
    OUTPUTS = "squared error against the original's outputs, relative to their power"


class ImageLoss:
    """The loss of outputs on images of ``batch``, whose original outputs are ``reference`` (one per output).

    Cross-entropy where the only output is class scores, with the labels if there are any.
    """

    def __init__(self, batch: ImageBatch, reference: list[Tensor]) -> None:
        self.kind = _choose_loss(batch, reference)
        self._reference = reference
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
        if self.kind is not LossKind.OUTPUTS:
            narrowed._classes = self._classes[:count]
        return narrowed

    def projection(self, outputs: list[Tensor], chosen: Tensor, rng: np.random.Generator) -> Tensor:
        """Sum over images of r . y, r standard normal, whose square estimates the squared change of outputs.

        Class scores are centred over classes; other outputs are scaled to unit power.
        """
        if self.kind is not LossKind.OUTPUTS:
            drawn = _random_like(outputs[0], rng)
            return ((drawn - drawn.mean(1, keepdim=True)) * outputs[0]).sum()
        scales = [_power(r[chosen]).clamp_min(1e-12).rsqrt() for r in self._reference]
        drawn_each = [
            _random_like(o, rng).flatten(1) * s[:, None] for o, s in zip(outputs, scales, strict=True)
        ]
        return torch.stack([(d * o.flatten(1)).sum() for d, o in zip(drawn_each, outputs, strict=True)]).sum()

    def __call__(self, outputs: list[Tensor], chosen: Tensor) -> Tensor:
        """Loss (rows,) of ``outputs`` (rows, ...) whose rows belong to the images ``chosen`` (rows,)."""
        if self.kind is not LossKind.OUTPUTS:
            # Four times as fast as functional.cross_entropy on few classes, and as exact at high confidence.
            own = outputs[0].gather(1, self._classes[chosen][:, None])
            return torch.logsumexp(outputs[0] - own, dim=1)
        losses = [
            _power(o - r[chosen]) / _power(r[chosen]).clamp_min(1e-12)
            for o, r in zip(outputs, self._reference, strict=True)
        ]
        return torch.stack(losses).mean(0)


def _random_like(values: Tensor, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(values.shape), dtype=np.float32))


def _power(values: Tensor) -> Tensor:
    """Sum of squares of every image."""
    return values.reshape(len(values), -1).square().sum(1)


def _choose_loss(batch: ImageBatch, reference: list[Tensor]) -> LossKind:
    if len(reference) != 1 or reference[0].dim() != 2 or reference[0].shape[1] < 2:
        return LossKind.OUTPUTS
    return LossKind.PSEUDO_LABELS if batch.labels is None else LossKind.LABELS
