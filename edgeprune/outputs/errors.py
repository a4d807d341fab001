"""Errors of outputs that are no class scores, as games, recovery and training count them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgeprune.outputs.units import units_of


class OutputErrors:
    """Errors in units of the channels of ``reference``, outputs (n, ...) of the original, one per output."""

    def __init__(self, reference: Sequence[Tensor]) -> None:
        self._scales = [_scales(output) for output in reference]

    def squared(self, outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """Squared error (n,) of each image, averaged over outputs; errors of the channels' spread make 1."""
        errors = [
            ((output - target.to(output.device)) * scale.to(output.device)).square().reshape(len(output), -1)
            for output, target, scale in zip(outputs, wanted, self._scales, strict=True)
        ]
        return torch.stack([error.sum(1) for error in errors]).mean(0)

    def projection(self, outputs: Sequence[Tensor], draw: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum of r . y over images and outputs that have a gradient; 0 where none has.

        ``draw`` makes standard normal r of an output's shape. The expected squared gradient by an activation
        is what an error there adds to :meth:`squared` (the diagonal of Fisher's information).
        """
        products = [
            (draw(output) * scale.to(output.device) * output).sum()
            for output, scale in zip(outputs, self._scales, strict=True)
            if output.requires_grad
        ]
        return torch.stack(products).sum() if products else torch.zeros(())


def _scales(reference: Tensor) -> Tensor:
    """Scale of an error, broadcast over an output (n, ...)."""
    values = reference.detach().cpu().numpy()
    scales = torch.from_numpy(units_of(values).scales_for(values.shape))
    return scales.to(reference.dtype if reference.is_floating_point() else torch.float32)
