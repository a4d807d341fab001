"""Class scores of networks that end in a softmax: probabilities, of which the logarithm is a score."""

from __future__ import annotations

from torch import Tensor

_LEAST = 1e-20
"""Of a probability whose logarithm is taken."""
_SLACK = 1e-3


def are_probabilities(scores: Tensor) -> bool:
    """Whether class scores (n, c) are what a softmax gives: none negative, and 1 in sum for every image."""
    if not scores.is_floating_point():
        return False
    sums = scores.double().sum(1)
    return bool((scores >= 0).all()) and bool(((sums - 1.0).abs() < _SLACK).all())


def log_scores(scores: Tensor, *, probabilities: bool) -> Tensor:
    """Scores that a softmax turns into probabilities: logarithms of ``probabilities``, others as they are."""
    return scores.clamp_min(_LEAST).log() if probabilities else scores
