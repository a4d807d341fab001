"""What class scores of the student are trained for."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from edgeprune.outputs.scores import log_scores


def class_divergence(
    scores: Tensor, wanted: Tensor, temperature: float, *, of_softmax: bool = False
) -> Tensor:
    """Kullback-Leibler divergence of class scores (n, c) from those wanted, softened by a temperature."""
    log_outputs, log_wanted = (
        functional.log_softmax(log_scores(each, probabilities=of_softmax) / temperature, dim=1)
        for each in (scores, wanted)
    )
    return temperature**2 * functional.kl_div(log_outputs, log_wanted, reduction="batchmean", log_target=True)
