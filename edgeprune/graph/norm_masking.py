"""Normalisation over the channels that are present, as it will be once the absent ones are removed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from edgeprune.artifacts.coupling import BatchLayout
from edgeprune.fx import op_name

RENORMALISING = ("layer_norm", "rms_norm", "group_norm")
"""Ops whose statistics a mask can take over part of their channels."""


class MaskedNorm(nn.Module):
    """Layer norm, RMS norm or group norm of one group, with statistics over each image's present channels.

    With memberships between 0 and 1 the statistics are weighted means. Absent channels are normalised
    like the others; whoever consumes them has a mask point of its own.
    """

    players: Tensor
    present: Tensor

    def __init__(self, players: Tensor, dim: int, batch: BatchLayout, node: Node) -> None:
        super().__init__()
        self.register_buffer("players", players, persistent=False)
        self.register_buffer("present", torch.zeros(len(players)), persistent=False)
        self.dim = dim
        self.batch = batch
        self._centred = op_name(node) != "rms_norm"
        rank = len(node.meta["val"].shape)
        self._over = tuple(range(1, rank)) if op_name(node) == "group_norm" else (dim,)
        self._eps = eps_of(node)

    def set_coalition(self, present: Tensor) -> None:
        """Choose the coalition: boolean (players + 1,), the last entry for positions without a player."""
        self.present = present[self.players].to(self.present.dtype)

    def forward(self, value: Tensor, scale: Tensor | None, shift: Tensor | None, masks: Tensor) -> Tensor:
        """The normalised ``value``."""
        factors = self.present.to(masks.dtype) + masks.index_select(1, self.players)
        rows = rows_of_images(factors, self.batch)
        shape = [1] * value.dim()
        shape[self.batch.dim], shape[self.dim] = rows.shape
        weights = (rows if self.batch.dim < self.dim else rows.T).reshape(shape).expand_as(value)
        count = weights.sum(self._over, keepdim=True).clamp_min(1e-12)
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


def rows_of_images(per_image: Tensor, batch: BatchLayout) -> Tensor:
    """Rows (batch, n) repeated as the images lie along an activation's batch dimension."""
    if batch.inner > 1:
        per_image = per_image.repeat_interleave(batch.inner, dim=0)
    return per_image.repeat(batch.outer, 1) if batch.outer > 1 else per_image


def affine_of(node: Node) -> tuple[Any, Any]:
    """Scale and shift of a norm node; ``None`` where it has none."""
    given = list(node.args[2:4])
    given += [node.kwargs.get("weight")] if not given else []
    if op_name(node) == "rms_norm":
        return given[0], None
    return given[0], given[1] if len(given) > 1 else node.kwargs.get("bias")


def eps_of(node: Node) -> float | None:
    """The small number below the root; ``None`` stands for the type's own (RMS norm's default)."""
    rms = op_name(node) == "rms_norm"
    place = 3 if rms else 4
    value = node.args[place] if len(node.args) > place else node.kwargs.get("eps", None if rms else 1e-5)
    return None if value is None else float(value)  # type: ignore[arg-type]
