"""The original network with a mask on every player: reversible, and equivalent to physical removal.

A *plain* mask point multiplies channels by 0 or 1. A *reconstructing* one replaces absent channels by
their best linear estimate from the present ones, which anticipates recovery.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from edgeprune.accelerator import device_of
from edgeprune.artifacts.coupling import NO_PLAYER, BatchLayout, CouplingGraph, MaskPoint
from edgeprune.artifacts.model import CapturedModel
from edgeprune.coupling.membership import Membership, rows_of_images
from edgeprune.coupling.rules.norm_masking import masked_statistics
from edgeprune.coupling.rules.recurrent import masked_recurrent


class ChannelMask(Membership):
    """Multiply each position of one dimension by the image's mask of the player there."""

    def forward(self, value: Tensor, masks: Tensor) -> Tensor:
        """Masked ``value``."""
        return value * self.weights(value, masks)


class ChannelReconstruction(nn.Module):
    """Replace absent channels by their linear estimate from those present (one coalition per batch).

    ``value -> mean + (R + diag(m) D) (value - mean)``: R is the estimate. The derivative with respect to m
    at 0 is the estimation residual of an absent channel, or the leave-one-out residual of a present one
    (K o / diag K with K the inverse covariance of the present channels).
    """

    players: Tensor
    mean: Tensor

    def __init__(
        self,
        players: Tensor,
        dim: int,
        batch: BatchLayout,
        statistics: tuple[Tensor, Tensor],
        ridge: float,
    ) -> None:
        super().__init__()
        mean, covariance = statistics
        self.register_buffer("players", players, persistent=False)
        self.register_buffer("mean", mean, persistent=False)
        self.dim = dim
        self.batch = batch
        lifted = ridge * torch.diagonal(covariance).mean().clamp_min(1e-12)
        self.ridge = ridge
        self.covariance = covariance
        self._lifted = lifted
        self._precision = self._inverse(covariance)
        where = mean.device
        self._member = torch.empty(0, dtype=torch.bool, device=where)
        self._outside = torch.empty(0, dtype=torch.long, device=where)
        self._estimate = torch.empty(0, len(covariance), device=where)
        self._direction = torch.eye(len(covariance), device=where)
        self.keeps_own_part = False
        self.own_part = torch.empty(0)

    def set_coalition(self, present: Tensor) -> None:
        """Set the coalition: boolean (players + 1,), the last entry for positions without a player."""
        member = present[self.players]
        if torch.equal(member, self._member):
            return  # in the game of one group, all other mask points stay unchanged
        self._member = member
        known = member.to(self.covariance.device)  # where double precision is
        inside, outside = torch.where(known)[0], torch.where(~known)[0]
        mapped, inverse = self._conditional(inside, outside)
        estimate = self.covariance.new_zeros(len(outside), len(member))
        estimate[:, inside] = mapped
        direction = torch.zeros_like(self.covariance)
        direction[inside[:, None], inside] = inverse / torch.diagonal(inverse)[:, None]
        direction[outside[:, None], inside] = -mapped
        direction[outside, outside] = 1.0
        self._outside = outside.to(member.device)
        self._estimate = estimate.float().to(member.device)
        self._direction = direction.float().to(member.device)

    def _conditional(self, inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
        """The map (outside, inside) estimating absent channels, and the inverse covariance of present ones.

        With P the inverse covariance of all, they are -P_oo^-1 P_os and P_ss - P_so P_oo^-1 P_os, which is
        cheap if few channels are absent.
        """
        if 2 * len(outside) <= len(self.covariance):
            across = self._precision[outside][:, inside]
            factor = torch.linalg.cholesky(self._precision[outside][:, outside])
            mapped = -torch.cholesky_solve(across, factor)
            return mapped, self._precision[inside][:, inside] + across.T @ mapped
        inverse = self._inverse(self.covariance[inside][:, inside])
        return self.covariance[outside][:, inside] @ inverse, inverse

    def _inverse(self, covariance: Tensor) -> Tensor:
        """Inverse of a covariance (n, n) with the ridge added."""
        unit = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        system = covariance + self._lifted * unit
        return torch.cholesky_inverse(torch.linalg.cholesky(system))

    def forward(self, value: Tensor, masks: Tensor) -> Tensor:
        """Reconstructed ``value``; ``masks`` (batch, players + 1) is zero and only serves to take gradients.

        With gradients enabled and ``keeps_own_part``, ``own_part`` is set to the residual of each channel
        (rows, channels, positions).
        """
        places = (self.batch.dim, self.dim)
        shape = value.movedim(places, (0, 1)).shape
        centred = self.by_channel(value) - self.mean[:, None]
        rebuilt = centred
        if len(self._outside):
            rebuilt = centred.index_copy(1, self._outside, self._estimate @ centred)
        if torch.is_grad_enabled():
            weights = rows_of_images(masks.index_select(1, self.players), self.batch).unsqueeze(2)
            own_part = self._direction @ centred.detach()
            rebuilt = rebuilt + own_part * weights
            if self.keeps_own_part:
                self.own_part = own_part
        rebuilt = rebuilt + self.mean[:, None]
        return rebuilt.reshape(shape).movedim((0, 1), places)

    def by_channel(self, value: Tensor) -> Tensor:
        """An activation as (rows, channels, positions)."""
        moved = value.movedim((self.batch.dim, self.dim), (0, 1))
        return moved.flatten(2) if moved.dim() > 2 else moved.unsqueeze(2)


POINTS = (Membership, ChannelReconstruction)
"""Modules that take part in a coalition."""


def mask_sources(coupling: CouplingGraph) -> list[tuple[str, int, list[MaskPoint]]]:
    """Distinct (node, dimension) at which players enter consumers, with their mask points.

    Norms are excluded, since their statistics are masked instead.
    """

    def key(point: MaskPoint) -> tuple[str, int]:
        return point.source, point.dim

    ordered = sorted((p for p in coupling.mask_points if not p.replaces), key=key)
    return [(source, dim, list(points)) for (source, dim), points in itertools.groupby(ordered, key=key)]


def player_columns(point: MaskPoint, num_players: int) -> Tensor:
    """Column of the mask matrix for every position; positions without a player read the last one."""
    return torch.from_numpy(np.where(point.players == NO_PLAYER, num_players, point.players))


def mask_module(
    captured: CapturedModel,
    coupling: CouplingGraph,
    statistics: dict[tuple[str, int], tuple[Tensor, Tensor]] | None = None,
    *,
    ridge: float = 1e-3,
) -> GraphModule:
    """The captured network with an additional last input ``masks`` (batch, players + 1) and shared weights.

    With ``statistics`` (mean and covariance by mask source) the points listed there reconstruct instead
    of masking.
    """
    source_module = captured.graph_module
    graph = Graph()
    mapping: dict[Node, Node] = {}
    graph.output(graph.graph_copy(source_module.graph, mapping))
    by_name = {old.name: new for old, new in mapping.items()}
    root = copy.copy(source_module)
    root._modules = dict(source_module._modules)
    masks, device = add_mask_input(graph), device_of(source_module)
    for number, (source, dim, points) in enumerate(mask_sources(coupling)):
        columns = player_columns(points[0], coupling.num_players)
        moments = (statistics or {}).get((source, dim))
        batch = points[0].batch
        point_module: nn.Module = (
            ChannelMask(columns, dim, batch)
            if moments is None
            else ChannelReconstruction(columns, dim, batch, moments, ridge)
        )
        name = f"_mask_point_{number}"
        root.add_module(name, point_module.to(device))
        with graph.inserting_after(by_name[source]):
            masked = graph.call_module(name, (by_name[source], masks))
        for point in points:
            by_name[point.consumer].replace_input_with(by_name[source], masked)
    _mask_norms(coupling, root, by_name, masks)
    return GraphModule(root, graph, class_name="MaskedGraph")


def _mask_norms(coupling: CouplingGraph, root: nn.Module, by_name: dict[str, Node], masks: Node) -> None:
    """Replace norms by ones over the present channels, and recurrent ops by ones of the present units."""
    for number, point in enumerate(p for p in coupling.mask_points if p.replaces):
        node = by_name[point.consumer]
        columns = player_columns(point, coupling.num_players)
        replacement = masked_recurrent if point.inside else masked_statistics
        module, operands = replacement(columns, point.dim, point.batch, node)
        name = f"_masked_statistics_{number}"
        root.add_module(name, module.to(device_of(root)))
        with node.graph.inserting_after(node):
            replaced = node.graph.call_module(name, (*operands, masks))
        node.replace_all_uses_with(replaced)
        node.graph.erase_node(node)


def add_mask_input(graph: Graph) -> Node:
    """Add a last input to a graph, under a name that the network does not use."""
    last = [n for n in graph.nodes if n.op == "placeholder"][-1]
    with graph.inserting_after(last):
        masks = graph.placeholder("masks")
    masks.target = masks.name
    return masks


def full_masks(batch: int, num_players: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Masks (batch, players + 1) of the grand coalition."""
    return torch.ones((batch, num_players + 1), dtype=dtype)
