"""Channel merge: a layer's weights absorb the linear map from the kept channels to all channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.accelerator import exact
from edgeprune.recovery.network_pair import NetworkPair
from edgeprune.recovery.structure import Geometry, maps_behind

_ROWS_PER_CHANNEL = 20
MOST_CHANNELS = 4096
"""Beyond so many the moments of all pairs of channels would take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class MergePlace:
    """A node at which the map between channels can be estimated.

    ``averaged``: the layer reads the node's maps after average pooling; ``flattened``: all their positions.
    """

    node: str
    averaged: bool = False
    flattened: bool = False


def merge_places(source: Node, channels: int) -> tuple[MergePlace, ...]:
    """Nodes at which the map from kept to all ``channels`` read from ``source`` can be estimated.

    A linear relation between channels holds at every position: if a layer reads pooled or flattened maps, the
    maps themselves give far more rows to estimate it from and, if flattened, far fewer unknowns.
    """
    places = [MergePlace(node=source.name)] if channels <= MOST_CHANNELS else []
    behind = maps_behind(source)
    if behind is not None:
        place = MergePlace(node=behind.node.name, averaged=behind.averaged, flattened=not behind.averaged)
        places.append(place)
    return tuple(places)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Weights (o, d) for each place and ridge of the map, and metrics (d, d) for ``LayerProblem``."""

    weights: Sequence[Tensor]
    metrics: Sequence[Tensor]


def merge(
    pair: NetworkPair,
    places: Sequence[MergePlace],
    shape: Geometry,
    full: Tensor,
    *,
    ridges: Sequence[float],
    min_rows: int,
) -> Merged:
    """Merge the original's weight ``full`` (o, i, ...) at the ``places``.

    The channel covariance before pooling also shows which directions the few pooled rows determine poorly.
    """
    weights, metrics = [], []
    for place in places:
        at_maps = place.averaged or place.flattened
        rows = max(min_rows, _ROWS_PER_CHANNEL * full.shape[1])
        moments = pair.channel_moments(place.node, rows, is_linear=shape.is_linear and not at_maps)
        for mapping in moments.maps(ridges):
            by_channel = full.reshape(len(full), len(mapping), -1) if place.flattened else full
            merged = torch.einsum("oi...,ik->ok...", exact(by_channel), mapping)
            weights.append(merged.flatten(1).to(full))
        if place.averaged and math.prod(shape.kernel) == 1:  # one unknown per channel, as in the metric
            metrics.append(moments.covariance())
    return Merged(weights=weights, metrics=metrics)
