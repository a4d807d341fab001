"""Norms, means and softmax over the present channels only, as in the pruned network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.artifacts.coupling import BatchLayout
from edgeprune.coupling.membership import Membership
from edgeprune.fx import op_name

RENORMALISING = ("layer_norm", "rms_norm", "group_norm")
"""Norms whose statistics a mask can take over part of their channels."""

_LEAST = 1e-12


class MaskedStatistics(Membership):
    """An op over channels whose statistics are taken over the present channels of each image.

    Memberships between 0 and 1 weight the statistics. Absent channels get values like the others;
    their consumers have mask points of their own.
    """


class MaskedNorm(MaskedStatistics):
    """Layer norm, RMS norm or group norm of one group."""

    def __init__(self, players: Tensor, dim: int, batch: BatchLayout, node: Node) -> None:
        super().__init__(players, dim, batch)
        self._centred = op_name(node) != "rms_norm"
        rank = len(node.meta["val"].shape)
        self._over = tuple(range(1, rank)) if op_name(node) == "group_norm" else (dim,)
        self._eps = eps_of(node)

    def forward(self, value: Tensor, scale: Tensor | None, shift: Tensor | None, masks: Tensor) -> Tensor:
        """The normalised ``value``."""
        weights = self.weights(value, masks).expand_as(value)
        count = weights.sum(self._over, keepdim=True).clamp_min(_LEAST)
        if self._centred:
            value = value - (weights * value).sum(self._over, keepdim=True) / count
        power = (weights * value.square()).sum(self._over, keepdim=True) / count
        eps = torch.finfo(value.dtype).eps if self._eps is None else self._eps
        result = value * torch.rsqrt(power + eps)
        affine = [1] * value.dim()
        affine[self.dim] = -1
        if scale is not None:
            result = result * scale.reshape(affine)
        return result if shift is None else result + shift.reshape(affine)


class MaskedMean(MaskedStatistics):
    """Mean over dimensions of which one is the channel dimension."""

    def __init__(self, players: Tensor, dim: int, batch: BatchLayout, node: Node) -> None:
        super().__init__(players, dim, batch)
        self._over = tuple(node.args[1])  # type: ignore[arg-type]
        self._keepdim = bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False))

    def forward(self, value: Tensor, masks: Tensor) -> Tensor:
        """The mean of ``value`` over the present channels."""
        weights = self.weights(value, masks).expand_as(value)
        total = (weights * value).sum(self._over, keepdim=self._keepdim)
        return total / weights.sum(self._over, keepdim=self._keepdim).clamp_min(_LEAST)


class MaskedSoftmax(MaskedStatistics):
    """Softmax over channels."""

    def __init__(self, players: Tensor, dim: int, batch: BatchLayout, node: Node) -> None:  # noqa: ARG002
        super().__init__(players, dim, batch)

    def forward(self, value: Tensor, masks: Tensor) -> Tensor:
        """The share of each present channel."""
        shifted = value - value.amax(self.dim, keepdim=True).detach()
        parts = self.weights(value, masks).expand_as(value) * shifted.exp()
        return parts / parts.sum(self.dim, keepdim=True).clamp_min(_LEAST)


def masked_statistics(
    players: Tensor, dim: int, batch: BatchLayout, node: Node
) -> tuple[MaskedStatistics, tuple[Any, ...]]:
    """The module that replaces ``node`` under masks, and its operands before the masks."""
    if op_name(node) in RENORMALISING:
        return MaskedNorm(players, dim, batch, node), (node.args[0], *affine_of(node))
    kind = MaskedMean if op_name(node) == "mean" else MaskedSoftmax
    return kind(players, dim, batch, node), (node.args[0],)


def affine_of(node: Node) -> tuple[Any, Any]:
    """Scale and shift of a norm node; ``None`` where it has none."""
    given = list(node.args[2:4])
    given += [node.kwargs.get("weight")] if not given else []
    if op_name(node) == "rms_norm":
        return given[0], None
    return given[0], given[1] if len(given) > 1 else node.kwargs.get("bias")


def eps_of(node: Node) -> float | None:
    """The norm's epsilon; ``None`` stands for that of the dtype (default of RMS norm)."""
    rms = op_name(node) == "rms_norm"
    place = 3 if rms else 4
    value = node.args[place] if len(node.args) > place else node.kwargs.get("eps", None if rms else 1e-5)
    return None if value is None else float(value)  # type: ignore[arg-type]
