"""Test whether a step brought a network closer to the original, on images not used for fitting."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.accelerator import device_of, in_memory, parts_of
from edgeprune.artifacts.pruning import DecisionMeasure, NetworkDecision
from edgeprune.fx import tensor_leaves
from edgeprune.outputs.units import relative_errors, units_of

_QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Of Student's t (95%, two sides) by degrees of freedom from 1 on; beyond, about 1.96 + 2.5 / degrees."""
_AT_ONCE = 16
_SOME = 8
"""Images that may decide by their mean alone."""
_TEMPERATURE = 2.0
_ROUNDING = 1e-6
"""A divergence or relative error that single precision may leave of two networks that compute the same."""


class Proof(Enum):
    """What a network must show on deciding images to be taken."""

    AVERAGE = "better on average"
    BEYOND_CHANCE = "better by more than chance"
    BEST_OF_SEVERAL = "better by more than chance, though it is the best of several on these images"


_RANKS = {Proof.AVERAGE: 1.96, Proof.BEYOND_CHANCE: 1.645, Proof.BEST_OF_SEVERAL: 1.96}
"""Limits of standardized signed ranks: 95%, one side where a gain has to be shown, else two."""


def is_classifier(outputs: list[Tensor]) -> bool:
    """Whether outputs are class scores (n, classes)."""
    return len(outputs) == 1 and outputs[0].dim() == 2 and outputs[0].shape[1] >= 2


@torch.no_grad()
def outputs_on(network: nn.Module, images: Tensor, places: Tensor) -> list[Tensor]:
    """Outputs (k, ...) of a network, wherever it is, on the images at the indices ``places`` (k,)."""
    device = device_of(network)

    def outputs(part: slice) -> list[Tensor]:
        return [output.cpu() for output in tensor_leaves(network(images[places[part]].to(device)))]

    found = [each for _, each in in_memory(parts_of(len(places), _AT_ONCE), outputs)]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def decide_between(
    step: str,
    original: list[Tensor],
    before: list[Tensor],
    after: list[Tensor],
    *,
    class_scores: bool = True,
    proof: Proof = Proof.AVERAGE,
) -> NetworkDecision:
    """Decide whether to keep the network ``after`` a step, from per-image outputs on deciding images.

    Classifiers are compared by changed top-1 predictions first and, if that difference is not significant,
    by Kullback-Leibler divergence; other outputs by squared error relative to the spread of each channel.
    A network without a significant improvement (95%, Student's t) is kept if it is better on average; with
    fewer than 8 deciding images the mean gain must exceed t / 1.96 standard errors (1.2 with 7 images, 6.5
    with 2), so that two or three images do not decide alone; ``proof`` says where more is asked. Of
    divergences and errors, of which a few images make most, Wilcoxon's signed ranks (Biometrics Bulletin 1,
    1945) may show a gain or a loss as well, in the direction of the mean.
    """
    decision = _compared(step, original, before, after, class_scores, _RANKS[proof])
    shown = decision.beyond_chance and not _of_rounding(decision)
    return replace(decision, taken=decision.taken and (shown or proof is Proof.AVERAGE))


def _compared(
    step: str,
    original: list[Tensor],
    before: list[Tensor],
    after: list[Tensor],
    class_scores: bool,
    ranks_limit: float,
) -> NetworkDecision:
    if class_scores and is_classifier(original):
        answers = [(outputs[0].argmax(1) != original[0].argmax(1)).double() for outputs in (before, after)]
        decision = _decision(step, DecisionMeasure.CHANGED_ANSWERS, *answers)
        if decision.beyond_chance:
            return decision
        divergences = [_divergence(original[0], outputs[0]) for outputs in (before, after)]
        decision = _decision(step, DecisionMeasure.DIVERGENCE, *divergences)
        return _with_ranks(decision, divergences, ranks_limit)
    errors = [_relative_error(original, outputs) for outputs in (before, after)]
    return _with_ranks(_decision(step, DecisionMeasure.RELATIVE_ERROR, *errors), errors, ranks_limit)


def _decision(step: str, measure: DecisionMeasure, before: Tensor, after: Tensor) -> NetworkDecision:
    """Decision from per-image losses (n,); a network with NaN outputs is never taken."""
    after = torch.nan_to_num(after, nan=math.inf)
    difference = float((after - before).mean())
    count = len(before)
    error = float((after - before).std()) / math.sqrt(count) if count > 1 else math.inf
    if not math.isfinite(difference) or not math.isfinite(error):
        error = math.inf if count <= 1 else 0.0
    sure = _quantile(count - 1) * error
    return NetworkDecision(
        step=step,
        measure=measure,
        taken=-difference > (0.0 if count >= _SOME else sure / _quantile(math.inf)),
        beyond_chance=abs(difference) > sure,
        before=float(before.mean()),
        after=float(after.mean()),
        difference=difference,
        standard_error=error,
        images=count,
    )


def _with_ranks(decision: NetworkDecision, losses: list[Tensor], limit: float) -> NetworkDecision:
    """The decision, beyond chance also where signed ranks of two losses (n,) say so with the mean."""
    before, after = losses
    score = signed_rank_score(torch.nan_to_num(after - before, nan=math.inf))
    known = len(before) >= _SOME and not _of_rounding(decision)
    agreed = known and score * decision.difference > 0 and abs(score) > limit
    return replace(decision, beyond_chance=decision.beyond_chance or agreed)


def _of_rounding(decision: NetworkDecision) -> bool:
    """Whether the network before the step computes what the original does, but for rounding."""
    return decision.measure is not DecisionMeasure.CHANGED_ANSWERS and decision.before < _ROUNDING


def signed_rank_score(differences: Tensor) -> float:
    """Wilcoxon's signed-rank statistic of paired differences (n,), standardized; 0 where all are 0.

    Zeros are left out, ties share their mean rank. About normal from 8 differences on.
    """
    values = differences[differences != 0].double().numpy()
    if not len(values):
        return 0.0
    _, place, times = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    ranks = (times.cumsum() - (times - 1) / 2)[place]
    return float((ranks * np.sign(values)).sum() / np.sqrt(np.square(ranks).sum()))


def _quantile(degrees: float) -> float:
    if degrees < 1:
        return math.inf
    return _QUANTILES[int(degrees) - 1] if degrees <= len(_QUANTILES) else 1.96 + 2.5 / degrees


def _divergence(original: Tensor, outputs: Tensor) -> Tensor:
    """Kullback-Leibler divergence (n,) of softened class scores, so confident errors do not dominate."""
    scores = (functional.log_softmax(x.double() / _TEMPERATURE, dim=1) for x in (original, outputs))
    wanted, told = scores
    return _TEMPERATURE**2 * (wanted.exp() * (wanted - told)).sum(1).clamp_min(0.0)  # negative by rounding


def _relative_error(original: list[Tensor], outputs: list[Tensor]) -> Tensor:
    """Squared error (n,) relative to the spread of each output channel, averaged over outputs."""
    wanted, told = ([output.numpy() for output in each] for each in (original, outputs))
    return torch.from_numpy(relative_errors(wanted, told, [units_of(output) for output in wanted]))


def in_words(decision: NetworkDecision) -> str:
    """Describe a decision and the figures behind it."""
    sure = "by more than chance" if decision.beyond_chance else "which chance could explain"
    change = f"{decision.measure.value} {decision.before:.3g} -> {decision.after:.3g}"
    figures = f"{change}, {sure}"
    if decision.taken:
        return f"{decision.step} helped on {decision.images} images that it was not fitted to ({figures})"
    if _of_rounding(decision):
        return (
            f"{decision.step} had nothing to gain: on {decision.images} images that it was not fitted to, "
            f"the network before it computes what the original does ({figures}); that one is delivered"
        )
    if decision.difference < 0.0 and not decision.beyond_chance:
        return (
            f"{decision.step} helped no more than chance could on {decision.images} images that it was not "
            f"fitted to ({change}), so the network before it is delivered; give more images"
        )
    return (
        f"{decision.step} did not help on {decision.images} images that it was not fitted to ({figures}), so "
        "the network before it is delivered; give more images or a smaller cut"
    )
