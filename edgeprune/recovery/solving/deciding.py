"""Select a layer's solution: the candidate with the least error on images not used for fitting.

This selects the ridge strength, the merge strength, the rounds behind an activation, the repair of a residual
sum, and whether the layer changes at all. With fewer rows than unknowns, strong ridges win, which pull
towards the merged weights; if those are worse than the weights before, the layer stays unchanged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgeprune.accelerator import exact
from edgeprune.recovery.solving.clipping import Activation, Rows, refitted
from edgeprune.recovery.solving.least_squares import NormalEquations, predicted

RowReader = Callable[[], Iterable[Rows]]

_NUMBERS_AT_ONCE = 2**23
"""Weights of candidates that are judged by one product."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Weights (groups, d, o) and bias (groups, o), their hyperparameters, and their error on deciding images.

    Weights keep the network's precision: a layer with 4,000 inputs and 512 outputs may have 30 candidates.

    ``ridge`` is ``None`` for weights that were not solved for, ``changed`` false for the layer before. The
    error is squared, relative to the target's variance, and taken after the activation if there is one.
    """

    weights: Tensor
    bias: Tensor
    changed: bool = True
    ridge: float | None = None
    metric: Tensor | None = None
    rounds: int = 0
    repaired: bool = False
    error: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The selected candidate, and the error of the unchanged layer."""

    taken: Candidate
    error_before: float


@dataclass(frozen=True, kw_only=True)
class LayerProblem:
    """One layer to solve: rows for fitting, rows for deciding, and the starting weights.

    ``merged``: weights that absorb the map from kept to all channels, one per ridge of that map.
    ``metrics``: penalty matrices for the distance from them, tried beside the plain distance. ``stored``
    converts weights to the stored format, in which candidates are evaluated.
    """

    fitting: RowReader
    deciding: RowReader
    before: tuple[Tensor, Tensor]
    merged: Sequence[Tensor]
    metrics: Sequence[Tensor]
    activation: Activation | None
    intercept: bool
    repairable: bool
    ridges: Sequence[float]
    rounds: int
    stored: Callable[[Tensor], Tensor] = lambda weights: weights


def decide(problem: LayerProblem, equations: NormalEquations) -> Choice:
    """Solve with all settings and take the best on the deciding rows; fills the empty ``equations``."""
    others = _gather(problem, equations)
    before = Candidate(weights=problem.before[0], bias=problem.before[1], changed=False)
    starts = [
        Candidate(
            weights=w,
            bias=equations.bias(exact(w), problem.intercept),
            repaired=problem.repairable,
        )
        for w in problem.merged
    ]
    before, *starts = _judged(problem, [before, *starts])
    start = min(starts, key=_error)
    solved = _judged(problem, _solved(problem, start, equations, others))
    best = min([start, *solved], key=_error)
    if problem.activation is not None and problem.rounds:
        system = equations if best.repaired or others is None else others
        best = min([best, *_rounds(problem, start, best, system)], key=_error)
    return Choice(taken=min([before, best], key=_error), error_before=before.error)


def _error(candidate: Candidate) -> float:
    return candidate.error


def _gather(problem: LayerProblem, equations: NormalEquations) -> NormalEquations | None:
    """Add all fitting rows; where a residual can be repaired, also to a system of the layer's own targets."""
    others: NormalEquations | None = None
    for rows in problem.fitting():
        equations.add(rows.inputs, rows.own(rows.target))
        if rows.own_target is not None:
            if others is None:
                others = equations.with_same_inputs()
            others.add_targets(rows.inputs, rows.own_target)
    if others is not None:
        others.share_inputs(equations)
    return others


def _solved(
    problem: LayerProblem, start: Candidate, equations: NormalEquations, others: NormalEquations | None
) -> list[Candidate]:
    candidates = []
    for system, repaired in ((equations, problem.repairable), (others, False)):
        if system is None:
            continue
        for metric, ridge in itertools.product((None, *problem.metrics), problem.ridges):
            weights, bias = system.solve(
                start.weights, ridge=ridge, intercept=problem.intercept, metric=metric
            )
            weights = weights.to(start.weights)
            candidates.append(
                Candidate(weights=weights, bias=bias, ridge=ridge, metric=metric, repaired=repaired)
            )
    return candidates


def _rounds(
    problem: LayerProblem, start: Candidate, best: Candidate, system: NormalEquations
) -> list[Candidate]:
    """Candidates behind the activation, with the best ridge of plain least squares."""
    assert problem.activation is not None
    ridge = max(problem.ridges) if best.ridge is None else best.ridge

    def solve(equations: NormalEquations) -> tuple[Tensor, Tensor]:
        return equations.solve(start.weights, ridge=ridge, intercept=problem.intercept, metric=best.metric)

    fits = refitted(
        system, problem.fitting, problem.activation, best.weights, best.bias,
        solve=solve, rounds=problem.rounds,
    )  # fmt: skip
    candidates = [
        replace(best, weights=weights, bias=bias, ridge=ridge, rounds=number)
        for number, (weights, bias) in enumerate(fits, 1)
    ]
    return _judged(problem, candidates)


def _judged(problem: LayerProblem, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with their errors on the deciding rows."""
    if not candidates:
        return []
    squares = [0.0] * len(candidates)
    power = _Power()
    stacks: list[_Stack] = []
    seen = _identity if problem.activation is None else problem.activation.cut
    for rows in problem.deciding():
        stacks = stacks or _stacks(problem, candidates, rows.inputs)
        wanted = seen(rows.target)
        power.add(wanted)
        for stack in stacks:
            told = predicted(rows.inputs, stack.weights, stack.bias)
            for number, output in enumerate(torch.chunk(told, stack.count, dim=2), stack.first):
                squares[number] += float(exact(seen(rows.summed(output)) - wanted).square().sum())
    scale = power.about_mean()
    return [replace(c, error=s / scale) for c, s in zip(candidates, squares, strict=True)]


@dataclass(frozen=True, kw_only=True)
class _Stack:
    """Weights of ``count`` candidates side by side, in the stored format, starting at index ``first``."""

    first: int
    count: int
    weights: Tensor
    bias: Tensor


def _stacks(problem: LayerProblem, candidates: Sequence[Candidate], like: Tensor) -> list[_Stack]:
    """Group candidates: many small ones per stack, large ones alone, so that nothing large is copied."""
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, candidates[0].weights.numel()))
    return [
        _Stack(
            first=first,
            count=len(some),
            weights=torch.cat([problem.stored(c.weights).to(like) for c in some], dim=2),
            bias=torch.cat([c.bias.to(like) for c in some], dim=1),
        )
        for first in range(0, len(candidates), at_once)
        for some in (candidates[first : first + at_once],)
    ]


def _identity(x: Tensor) -> Tensor:
    return x


class _Power:
    """Sum of squares about the mean of each channel, over all rows."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        self._rows += len(values)
        self._sum = self._sum + exact(values).sum(0)
        self._squares = self._squares + exact(values).square().sum(0)

    def about_mean(self) -> float:
        if not isinstance(self._sum, Tensor):
            return 1.0
        return max(float((self._squares - self._sum.square() / self._rows).sum()), 1e-12)
