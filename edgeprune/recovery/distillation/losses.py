"""What class scores of the student are trained for."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def class_divergence(scores: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of class scores (n, c) from those wanted, softened by a temperature."""
    log_outputs = functional.log_softmax(scores / temperature, dim=1)
    log_wanted = functional.log_softmax(wanted / temperature, dim=1)
    return temperature**2 * functional.kl_div(log_outputs, log_wanted, reduction="batchmean", log_target=True)
