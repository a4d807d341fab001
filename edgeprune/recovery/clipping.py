"""Least squares through an activation that cuts off: where the original is cut off, any value beyond will do.

After a ReLU nobody sees how negative a sum was. So a layer need not say what the original said there, only
something that is cut off as well, and its freedom goes to the rest (cf. the asymmetric reconstruction of
Zhang et al., arXiv 1505.06798). Each round is plain least squares for the nearest targets that look the same
behind the activation. That majorises the true error wherever the prediction is not cut off alone, and pulls
on predictions that are; so the error may rise in a round, and every round is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.fx import op_name
from edgeprune.recovery.least_squares import NormalEquations, predicted

_CUTS = {"relu": (0.0, math.inf), "relu_": (0.0, math.inf), "relu6": (0.0, 6.0), "relu6_": (0.0, 6.0)}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Inputs (rows, groups, d) and targets (rows, groups, o) of a layer, and what a shortcut adds to it."""

    inputs: Tensor
    target: Tensor
    shortcut: Tensor | None

    def summed(self, output: Tensor) -> Tensor:
        """The layer's ``output`` with the shortcut."""
        return output if self.shortcut is None else output + self.shortcut

    def own(self, total: Tensor) -> Tensor:
        """The layer's share of a ``total``."""
        return total if self.shortcut is None else total - self.shortcut


@dataclass(frozen=True, kw_only=True)
class Clip:
    """An activation that leaves values between its bounds as they are and cuts off the others."""

    low: float
    high: float

    def cut(self, x: Tensor) -> Tensor:
        """What comes after the activation."""
        return x.clamp(self.low, self.high)

    def reachable(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The value nearest to ``prediction`` that the activation maps to what it maps ``target`` to."""
        below = torch.where(target <= self.low, prediction.clamp(max=self.low), target)
        return torch.where(target >= self.high, prediction.clamp(min=self.high), below)


def following_clip(node: Node) -> Clip | None:
    """The one cutting activation that all readers of ``node`` apply; ``None`` where any reads another way."""
    found = {_clip_of(user) for user in node.users}
    return found.pop() if len(found) == 1 else None


def _clip_of(node: Node) -> Clip | None:
    name = op_name(node)
    if name in _CUTS:
        low, high = _CUTS[name]
        return Clip(low=low, high=high)
    if name in ("hardtanh", "hardtanh_"):
        bounds = [node.args[i] if len(node.args) > i else node.kwargs.get(k, d) for i, k, d in _HARDTANH]
        if all(isinstance(b, (int, float)) for b in bounds):
            return Clip(low=float(bounds[0]), high=float(bounds[1]))  # type: ignore[arg-type]
    return None


_HARDTANH = ((1, "min_val", -1.0), (2, "max_val", 1.0))


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Weights (groups, d, o), bias (groups, o) and their squared error relative to the target's power."""

    weights: Tensor
    bias: Tensor
    error: float


def refit(
    equations: NormalEquations,
    rows: Callable[[], Iterable[Rows]],
    clip: Clip,
    fits: tuple[tuple[Tensor, Tensor], ...],
    *,
    solve: Callable[[NormalEquations], tuple[Tensor, Tensor]],
    rounds: int,
) -> tuple[Fit, ...]:
    """Errors of ``fits`` behind the activation, and of each round's solution from the last of them on."""
    power = _Power()
    for part in rows():
        power.add(clip.cut(part.target))
    found = [
        Fit(weights=w, bias=b, error=_error(rows(), clip, w, b, power)) for w, b in fits[:-1]
    ]  # fmt: skip
    weights, bias = fits[-1]
    for _ in range(rounds):
        again, squares = equations.with_same_inputs(), 0.0
        for part in rows():
            total = part.summed(predicted(part.inputs, weights, bias))
            squares += _squares(clip, total, part.target)
            again.add_targets(part.inputs, part.own(clip.reachable(total, part.target)))
        found.append(Fit(weights=weights, bias=bias, error=squares / power.about_mean()))
        weights, bias = solve(again)
    found.append(Fit(weights=weights, bias=bias, error=_error(rows(), clip, weights, bias, power)))
    return tuple(found)


class _Power:
    """Squares about the mean of each channel, over all rows."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        self._rows += len(values)
        self._sum = self._sum + values.double().sum(0)
        self._squares = self._squares + values.double().square().sum(0)

    def about_mean(self) -> float:
        assert isinstance(self._sum, Tensor)
        return max(float((self._squares - self._sum.square() / self._rows).sum()), 1e-12)


def _squares(clip: Clip, prediction: Tensor, target: Tensor) -> float:
    return float((clip.cut(prediction) - clip.cut(target)).double().square().sum())


def _error(rows: Iterable[Rows], clip: Clip, weights: Tensor, bias: Tensor, power: _Power) -> float:
    total = sum(_squares(clip, r.summed(predicted(r.inputs, weights, bias)), r.target) for r in rows)
    return total / power.about_mean()
