"""What the student's outputs are trained for: divergence of class scores, error of others by channel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.output_units import units_of


def error_scales(wanted: list[list[Tensor]]) -> list[Tensor]:
    """Scale of an error for every output, from the original's outputs on batches of images."""
    outputs = [torch.cat(parts).cpu().numpy() for parts in zip(*wanted, strict=True)]
    return [torch.from_numpy(units_of(o).scales_for(o.shape)).float() for o in outputs]


def class_divergence(scores: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of class scores (n, c) from those wanted, softened by a temperature."""
    log_outputs = functional.log_softmax(scores / temperature, dim=1)
    log_wanted = functional.log_softmax(wanted / temperature, dim=1)
    return temperature**2 * functional.kl_div(log_outputs, log_wanted, reduction="batchmean", log_target=True)


def output_error(outputs: list[Tensor], wanted: list[Tensor], scales: list[Tensor]) -> Tensor:
    """Squared error of outputs that are no class scores, by channels' spread."""
    errors = [
        ((output - target) * scale.to(output.device)).square().reshape(len(output), -1).sum(1).mean()
        for output, target, scale in zip(outputs, wanted, scales, strict=True)
    ]
    return torch.stack(errors).mean()
