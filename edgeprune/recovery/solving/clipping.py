"""Least squares behind an activation: errors that the activation hides do not count.

A ReLU hides how negative its input is. Where the original output is clipped, the layer only has to produce a
value that is clipped too, which leaves more freedom for the rest (cf. the asymmetric reconstruction of
Zhang et al., arXiv 1505.06798). Each round is plain least squares with targets moved towards the prediction
wherever the activation hides the difference. For a clipping activation this majorises the true error except
where only the prediction is clipped (there it pulls the prediction back); so the error may rise in a round,
and every round is evaluated on images that it was not fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional

from edgeprune.fx import op_name
from edgeprune.recovery.solving.least_squares import NormalEquations, predicted

_CUTS = {"relu": (0.0, math.inf), "relu_": (0.0, math.inf), "relu6": (0.0, 6.0), "relu6_": (0.0, 6.0)}
_SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "silu_": functional.silu,
    "hardswish": functional.hardswish,
    "hardswish_": functional.hardswish,
    "gelu": functional.gelu,
    "hardsigmoid": functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": functional.elu,
    "mish": functional.mish,
}
_CLOSE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Inputs (rows, groups, d) and targets (rows, groups, o) of a layer, and the shortcut added to it.

    With a ``shortcut``, ``target`` is the residual sum and ``own_target`` the output of the original layer
    alone.
    """

    inputs: Tensor
    target: Tensor
    shortcut: Tensor | None
    own_target: Tensor | None = None

    def summed(self, output: Tensor) -> Tensor:
        """The layer's ``output`` plus the shortcut."""
        return output if self.shortcut is None else output + self.shortcut

    def own(self, total: Tensor) -> Tensor:
        """The layer's share of a ``total``."""
        return total if self.shortcut is None else total - self.shortcut


class Activation(Protocol):
    """Elementwise activation that all readers of a layer's output apply."""

    def cut(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        ...

    def reachable(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Least-squares targets whose distance to ``prediction`` reflects the error after the activation."""
        ...


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Clipping activation: identity between its bounds, constant outside."""

    low: float
    high: float

    def cut(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        return x.clamp(self.low, self.high)

    def reachable(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The value closest to ``prediction`` with the same activation output as ``target``."""
        below = torch.where(target <= self.low, prediction.clamp(max=self.low), target)
        return torch.where(target >= self.high, prediction.clamp(min=self.high), below)


@dataclass(frozen=True, kw_only=True)
class Smooth:
    """Activation without hard bounds (SiLU, hard swish, GELU), which hides errors where it is flat."""

    name: str

    def cut(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        return _SMOOTH[self.name](x)

    def reachable(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Interpolate from prediction to target by the squared secant slope, at most 1 (majorisation).

        ``w (p - t)^2`` with ``w <= 1`` is majorised by ``(p - (p_k + w (t - p_k)))^2`` up to a constant.
        """
        apart = target - prediction
        rise = self.cut(target) - self.cut(prediction)
        slope = torch.where(apart.abs() > _CLOSE, rise / apart, torch.ones_like(apart))
        return prediction + slope.square().clamp(max=1.0) * apart


def following_activation(node: Node) -> Activation | None:
    """The activation that all users of ``node`` apply; ``None`` if any user does anything else."""
    activations = {_activation_of(user) for user in node.users}
    if len(activations) == 1:
        return activations.pop()
    return Smooth(name="silu") if _is_written_out_silu(node) else None


def _is_written_out_silu(node: Node) -> bool:
    """Whether the only users of ``node`` form ``x * sigmoid(x)``."""
    gates = [u for u in node.users if op_name(u) == "sigmoid"]
    products = [u for u in node.users if op_name(u) == "mul"]
    if len(gates) != 1 or len(products) != 1 or len(node.users) != 2:
        return False
    return set(gates[0].users) == set(products) and set(products[0].args[:2]) == {node, gates[0]}


def _activation_of(node: Node) -> Activation | None:
    name = op_name(node)
    if name in _CUTS:
        low, high = _CUTS[name]
        return Clip(low=low, high=high)
    if name in ("hardtanh", "hardtanh_"):
        bounds = [node.args[i] if len(node.args) > i else node.kwargs.get(k, d) for i, k, d in _HARDTANH]
        if all(isinstance(b, (int, float)) for b in bounds):
            return Clip(low=float(bounds[0]), high=float(bounds[1]))  # type: ignore[arg-type]
    return Smooth(name=name) if name in _SMOOTH and len(node.args) == 1 and not node.kwargs else None


_HARDTANH = ((1, "min_val", -1.0), (2, "max_val", 1.0))


def refitted(
    equations: NormalEquations,
    rows: Callable[[], Iterable[Rows]],
    activation: Activation,
    weights: Tensor,
    bias: Tensor,
    *,
    solve: Callable[[NormalEquations], tuple[Tensor, Tensor]],
    rounds: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield weights and bias of each round behind the activation, starting from plain least squares.

    ``rows`` must be those added to ``equations``.
    """
    for _ in range(rounds):
        again = equations.with_same_inputs()
        for part in rows():
            total = part.summed(predicted(part.inputs, weights, bias))
            again.add_targets(part.inputs, part.own(activation.reachable(total, part.target)))
        weights, bias = solve(again)
        yield weights, bias
