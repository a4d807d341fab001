"""Channel merge: a layer's weights absorb the linear map from channels that stay to all there were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.recovery.network_pair import NetworkPair
from edgeprune.recovery.structure import Geometry, maps_behind

_ROWS_PER_CHANNEL = 20
MOST_CHANNELS = 4096
"""Beyond so many the moments of all pairs of channels would take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class MergePlace:
    """A node at which the map between channels can be told.

    ``averaged``: the layer reads averages of the node's maps; ``flattened``: it reads all their positions.
    """

    node: str
    averaged: bool = False
    flattened: bool = False


def merge_places(source: Node, channels: int) -> tuple[MergePlace, ...]:
    """Where the map from kept to all ``channels`` that a layer reads from ``source`` can be told.

    What is linear between channels is so at every position: where a layer reads averages of maps or flattened
    maps, there is far more to tell it by at the maps, and flattened ones have fewer channels than positions.
    """
    places = [MergePlace(node=source.name)] if channels <= MOST_CHANNELS else []
    behind = maps_behind(source)
    if behind is not None:
        place = MergePlace(node=behind.node.name, averaged=behind.averaged, flattened=not behind.averaged)
        places.append(place)
    return tuple(places)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Weights (o, d) for each place and strength of the map, and metrics (d, d) for ``LayerProblem``."""

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

    How channels vary at averaged maps also tells in which directions the few averages say little.
    """
    weights, metrics = [], []
    for place in places:
        at_maps = place.averaged or place.flattened
        rows = max(min_rows, _ROWS_PER_CHANNEL * full.shape[1])
        moments = pair.channel_moments(place.node, rows, is_linear=shape.is_linear and not at_maps)
        for mapping in moments.maps(ridges):
            by_channel = full.reshape(len(full), len(mapping), -1) if place.flattened else full
            merged = torch.einsum("oi...,ik->ok...", by_channel.double(), mapping)
            weights.append(merged.flatten(1).float())
        if place.averaged and math.prod(shape.kernel) == 1:  # one unknown a channel, as the metric has
            metrics.append(moments.covariance())
    return Merged(weights=weights, metrics=metrics)
