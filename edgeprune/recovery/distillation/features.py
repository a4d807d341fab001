"""Activations that the student learns besides the outputs, and where errors of them count.

Of class scores: what the last layer reads, before pooling. Of other outputs: what each of the heads reads,
the layers that read prunable channels and keep all they give. There an error counts half by how far it moves
the outputs (the squared gradient of a random projection of them, the diagonal of Fisher's information): where
objects are rare, most positions show nothing, and errors there are of no account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.artifacts.coupling import CouplingGraph, WeightedLayer, kept_positions
from edgeprune.fx import NodeValues, op_name, tensor_leaves
from edgeprune.outputs.errors import OutputErrors
from edgeprune.recovery.output_gradients import output_gradients

EVEN_SHARE = 0.5
_POOLING = frozenset(
    {"adaptive_avg_pool2d", "avg_pool2d", "adaptive_max_pool2d", "max_pool2d", "mean", "flatten", "reshape"}
    | {"view", "squeeze", "dropout", "contiguous"}
)


@dataclass(frozen=True)
class Answers:
    """Outputs, learnt activations by node, and weights (n, positions) of their errors where these differ."""

    outputs: list[Tensor]
    features: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def joined(parts: Sequence[Answers]) -> Answers:
    """Answers of all images of some parts, in order."""
    if len(parts) == 1:
        return parts[0]
    outputs = [torch.cat(each) for each in zip(*(part.outputs for part in parts), strict=True)]
    features, weights = (
        {name: torch.cat([told[name] for told in each]) for name in each[0]}
        for each in ([part.features for part in parts], [part.weights for part in parts])
    )
    return Answers(outputs, features, weights)


def learnt_features(
    original: GraphModule, coupling: CouplingGraph, removed: tuple[int, ...], *, class_scores: bool
) -> dict[str, Tensor]:
    """Nodes whose values are learnt, and the indices of their channels (axis 1) that are kept."""
    gone = coupling.removed_mask(removed)
    layers = coupling.layers[-1:] if class_scores else _heads(coupling)
    found: dict[str, Tensor] = {}
    for layer in layers:
        name = _read_by(original, layer)
        if name is not None:
            found[name] = torch.from_numpy(kept_positions(layer.in_players, gone))
    return found


def _heads(coupling: CouplingGraph) -> list[WeightedLayer]:
    return [
        layer
        for layer in coupling.layers
        if np.any(layer.in_players >= 0) and not np.any(layer.out_players >= 0)
    ]


def _read_by(original: GraphModule, layer: WeightedLayer) -> str | None:
    """The node that a layer reads, before pooling; ``None`` where its axis 1 is not the layer's channels."""
    nodes = {n.name: n for n in original.graph.nodes}
    node = nodes[layer.node].args[0]
    while isinstance(node, Node) and op_name(node) in _POOLING and isinstance(node.args[0], Node):
        node = node.args[0]
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(node, Node) or not isinstance(value, Tensor) or value.dim() < 2:
        return None
    return node.name if int(value.shape[1]) == layer.in_players.size else None


def run(network: GraphModule, images: Tensor, features: Mapping[str, Tensor]) -> Answers:
    """Outputs of a network, and the values of these nodes."""
    if not features:
        return Answers(tensor_leaves(network(images)))
    kept = NodeValues(network, features)
    return Answers(tensor_leaves(kept.run(images)), kept.values)


def run_weighed(
    network: GraphModule,
    images: Tensor,
    features: Mapping[str, Tensor],
    errors: OutputErrors,
    generator: torch.Generator,
) -> Answers:
    """Those of the original, with how much errors of the features count at each position, 1 on average."""
    felt = output_gradients(network, images, features, errors, generator)
    weights = {}
    for name, gradient in felt.gradients.items():
        squares = gradient.square().sum(1, keepdim=True)
        mean = squares.mean()
        if bool(torch.isfinite(mean)) and float(mean) > 0.0:
            weights[name] = EVEN_SHARE + (1.0 - EVEN_SHARE) * squares / mean
    return Answers(felt.outputs, felt.values, weights)
