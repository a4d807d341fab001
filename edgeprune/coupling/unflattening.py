"""Mask points of flattened feature maps, moved to the maps themselves.

A linear layer that reads 32 maps of 64 positions has 2,048 inputs but 32 players. Masking before the
flattening is equivalent, and reconstruction there needs a covariance of 32 channels, estimated from 64
times as many rows, instead of one of 2,048.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor
from torch.fx import Node

from edgeprune.artifacts.coupling import BatchLayout, CouplingGraph, MaskPoint
from edgeprune.artifacts.model import CapturedModel
from edgeprune.fx import op_name

FLATTENING = frozenset({"view", "_unsafe_view", "reshape", "flatten"})
"""Ops that keep the order of an image's numbers."""
_FLAT_DIMENSIONS = 2
_MAP_CHANNELS = 1


def at_maps(captured: CapturedModel, coupling: CouplingGraph) -> CouplingGraph:
    """The coupling with mask points before the flattening where all positions of a channel are one player.

    Only where the flattened map is read by layers alone. Consumers of the new points are the flattening ops.
    """
    nodes = {node.name: node for node in captured.graph_module.graph.nodes}
    layers = {layer.node for layer in coupling.layers}
    by_source: dict[str, list[MaskPoint]] = {}
    for point in coupling.mask_points:
        by_source.setdefault(point.source, []).append(point)
    moved: list[MaskPoint] = []
    for source, points in by_source.items():
        readers = {p.consumer for p in points}
        all_of_them = {user.name for user in nodes[source].users} == readers <= layers
        before = _moved(nodes[source], points[0]) if all_of_them else None
        moved += points if before is None else [before]
    return dataclasses.replace(coupling, mask_points=tuple(moved))


def _moved(source: Node, point: MaskPoint) -> MaskPoint | None:
    """The point at the map that ``source`` flattens; None if there is none, or a channel has many players."""
    if point.dim != _MAP_CHANNELS or point.batch != BatchLayout() or point.replaces:
        return None
    if len(_shape(source)) != _FLAT_DIMENSIONS:
        return None
    flattening, origin = source, source
    while op_name(origin) in FLATTENING and (origin is source or len(origin.users) == 1):
        before = origin.args[0]
        assert isinstance(before, Node)
        flattening, origin = origin, before
    shape, rows = _shape(origin), _shape(source)[:1]
    if origin is source or len(shape) <= _FLAT_DIMENSIONS or shape[:1] != rows:
        return None
    channels = shape[_MAP_CHANNELS]
    if not isinstance(channels, int):
        return None
    if point.players.size % channels:
        return None
    players = point.players.reshape(channels, -1)
    if (players != players[:, :1]).any():
        return None
    return MaskPoint(
        consumer=flattening.name, source=origin.name, dim=_MAP_CHANNELS, players=players[:, 0].copy()
    )


def _shape(node: Node) -> tuple[Any, ...]:
    """Shape of a node's value, with a symbolic batch size; empty if the value is not a tensor."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()
