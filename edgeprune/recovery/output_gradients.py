"""Gradients of the outputs by inner values: how far an error of each moves the outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.fx import NodeValues, tensor_leaves
from edgeprune.outputs.errors import OutputErrors


@dataclass(frozen=True)
class FeltValues:
    """Outputs, values of nodes, and gradients of a projection of the outputs by those that have one."""

    outputs: list[Tensor]
    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


def output_gradients(
    network: GraphModule,
    images: Tensor,
    names: Collection[str],
    errors: OutputErrors,
    generator: torch.Generator,
) -> FeltValues:
    """Gradients of a random projection of the outputs by the values of the nodes ``names``.

    Their expected squares are what errors there add to the squared error of the outputs (the diagonal of
    Fisher's information).
    """
    with torch.enable_grad():
        kept = NodeValues(network, names, leaves=True)
        outputs = tensor_leaves(kept.run(images))
        projection = errors.projection(
            outputs, lambda output: torch.randn(output.shape, generator=generator).to(output.device)
        )
        felt = {name: value for name, value in kept.values.items() if value.requires_grad}
        found: tuple[Tensor | None, ...] = (None,) * len(felt)
        if projection.requires_grad and felt:
            found = torch.autograd.grad(projection, list(felt.values()), allow_unused=True)
    gradients = {name: gradient for name, gradient in zip(felt, found, strict=True) if gradient is not None}
    values = {name: value.detach() for name, value in kept.values.items()}
    return FeltValues([output.detach() for output in outputs], values, gradients)
