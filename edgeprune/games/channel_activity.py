"""Size and sparsity of the channels at every mask point of the original network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from edgeprune.accelerator import device_of, in_memory, where_exact
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.pruning.masking import mask_sources

IMAGES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class ChannelActivations:
    """Statistics of the channels (C,) of one mask source over all images and positions, in float64.

    ``zero_share`` counts exact zeros, as a ReLU makes them.
    """

    mean_magnitude: Tensor
    mean_square: Tensor
    zero_share: Tensor


class _Reduction(nn.Module):
    """Means of |a|, a^2 and [a = 0] over all dimensions but one: (3, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, value: Tensor) -> Tensor:
        """Means of ``value``."""
        others = [d for d in range(value.dim()) if d != self.dim]
        value = value.to(where_exact(value.device))
        means = (
            value.abs().mean(others, dtype=torch.float64),
            value.square().mean(others, dtype=torch.float64),
            (value == 0).mean(others, dtype=torch.float64),
        )
        return torch.stack(means)


@torch.no_grad()
def channel_activations(
    captured: CapturedModel,
    coupling: CouplingGraph,
    images: Tensor,
    *,
    places: Sequence[tuple[str, int]] | None = None,
    images_at_once: int = IMAGES_AT_ONCE,
    advance: Callable[[int], None] = lambda _units: None,
) -> dict[tuple[str, int], ChannelActivations]:
    """Channel activations by (node, dimension), in one pass over ``images``.

    At ``places``, or at every mask source. Each activation is reduced as soon as it is computed, so memory is
    that of a plain forward pass.
    """
    wanted = [(s, d) for s, d, _ in mask_sources(coupling)] if places is None else list(places)
    reduced, device = _reducing(captured.graph_module, wanted), device_of(captured.graph_module)
    totals: list[Tensor] = [torch.zeros(()) for _ in wanted]
    for batch in torch.split(images, images_at_once):

        def reductions(part: slice, batch: Tensor = batch) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = reduced(batch[part].to(device))
            return found

        for part, found in in_memory([slice(0, len(batch))], reductions):
            weight = (part.stop - part.start) / len(images)
            totals = [total + weight * means.cpu() for total, means in zip(totals, found, strict=True)]
        advance(1)
    return {
        key: ChannelActivations(mean_magnitude=means[0], mean_square=means[1], zero_share=means[2])
        for key, means in zip(wanted, totals, strict=True)
    }


def _reducing(module: GraphModule, wanted: list[tuple[str, int]]) -> GraphModule:
    """A copy of the graph, weights shared, that returns the reduced activations (node, dimension)."""
    graph = Graph()
    mapping: dict[Node, Node] = {}
    graph.graph_copy(module.graph, mapping)
    by_name = {old.name: new for old, new in mapping.items()}
    root = copy.copy(module)
    root._modules = dict(module._modules)
    results = []
    for number, (source, dim) in enumerate(wanted):
        name = f"_reduction_{number}"
        root.add_module(name, _Reduction(dim))
        with graph.inserting_after(by_name[source]):
            results.append(graph.call_module(name, (by_name[source],)))
    graph.output(tuple(results))
    reducing = GraphModule(root, graph, class_name="ReducingGraph")
    graph.eliminate_dead_code()
    reducing.recompile()
    return reducing
