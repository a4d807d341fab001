"""Activations that the student learns besides the outputs, and where errors of them count.

Of class scores: what the last layer reads, before pooling. Of other outputs: what each of the heads reads,
the layers that read prunable channels and keep all they give. There an error counts half by how far it moves
the outputs (the squared gradient of a random projection of them, the diagonal of Fisher's information): where
objects are rare, most positions show nothing, and errors there are of no account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.artifacts.coupling import CouplingGraph, WeightedLayer, kept_positions
from edgeprune.fx import op_name, tensor_leaves
from edgeprune.outputs.errors import OutputErrors

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
    tap = _Tap(network, features, leaves=False)
    return Answers(tensor_leaves(tap.run(images)), tap.seen)


def run_weighed(
    network: GraphModule,
    images: Tensor,
    features: Mapping[str, Tensor],
    errors: OutputErrors,
    generator: torch.Generator,
) -> Answers:
    """Those of the original, with how much errors of the features count at each position, 1 on average."""
    with torch.enable_grad():
        tap = _Tap(network, features, leaves=True)
        outputs = tensor_leaves(tap.run(images))
        projection = errors.projection(
            outputs, lambda output: torch.randn(output.shape, generator=generator).to(output.device)
        )
        names = list(tap.seen) if projection.requires_grad else []
        gradients = (
            torch.autograd.grad(projection, [tap.seen[n] for n in names], allow_unused=True) if names else ()
        )
    weights = {}
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is not None:
            squares = gradient.square().sum(1, keepdim=True)
            mean = squares.mean()
            if bool(torch.isfinite(mean)) and float(mean) > 0.0:
                weights[name] = EVEN_SHARE + (1.0 - EVEN_SHARE) * squares / mean
    seen = {name: value.detach() for name, value in tap.seen.items()}
    return Answers([output.detach() for output in outputs], seen, weights)


class _Tap(Interpreter):
    """Runs a graph and keeps the values of some nodes; as ``leaves``, gradients begin at them."""

    def __init__(self, network: GraphModule, names: Mapping[str, Tensor], *, leaves: bool) -> None:
        super().__init__(network)
        self._names = names
        self._leaves = leaves
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> object:
        """Run a node, and keep its value if it is one of those."""
        value: object = super().run_node(n)
        if n.name in self._names:
            assert isinstance(value, Tensor)
            if self._leaves and not value.requires_grad:  # behind an earlier one its gradients go on
                value = value.detach().requires_grad_(True)
            self.seen[n.name] = value
        return value
