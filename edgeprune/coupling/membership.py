"""Per-image membership of channels where they enter a consumer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeprune.artifacts.coupling import BatchLayout


class Membership(nn.Module):
    """Per-image membership of the players along one dimension of an activation.

    ``masks`` is (batch, players + 1); its last column is 1 and serves positions without a player. In
    graphs with reconstructing mask points, ``masks`` is zero and the coalition is set beforehand.
    """

    players: Tensor
    present: Tensor

    def __init__(self, players: Tensor, dim: int, batch: BatchLayout) -> None:
        super().__init__()
        self.register_buffer("players", players, persistent=False)
        self.register_buffer("present", torch.zeros(len(players)), persistent=False)
        self.dim = dim
        self.batch = batch

    def set_coalition(self, present: Tensor) -> None:
        """Set the coalition: boolean (players + 1,), the last entry for positions without a player."""
        self.present = present[self.players].to(self.present.dtype)

    def weights(self, value: Tensor, masks: Tensor) -> Tensor:
        """Membership of every position, broadcastable to ``value``."""
        factors = self.present.to(masks.dtype) + masks.index_select(1, self.players)
        rows = rows_of_images(factors, self.batch)
        shape = [1] * value.dim()
        shape[self.batch.dim], shape[self.dim] = rows.shape
        ordered = rows if self.batch.dim < self.dim else rows.T
        return ordered.reshape(shape)


def rows_of_images(per_image: Tensor, batch: BatchLayout) -> Tensor:
    """Rows (batch, n) repeated to match the images along an activation's batch dimension."""
    if batch.inner > 1:
        per_image = per_image.repeat_interleave(batch.inner, dim=0)
    return per_image.repeat(batch.outer, 1) if batch.outer > 1 else per_image
