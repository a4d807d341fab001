"""Fold the batch norm after a layer into its least-squares problem, and write the solution back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.accelerator import device_of, exact
from edgeprune.attributes import get_attribute
from edgeprune.recovery.structure import LayerSite

_SMALLEST_SCALE = 1e-6


def tensor(module: nn.Module, path: str) -> Tensor:
    """A parameter or buffer, detached."""
    value = get_attribute(module, path)
    assert isinstance(value, Tensor)
    return value.detach()


def norm_affine(module: GraphModule, node: Node | None, width: int) -> tuple[Tensor, Tensor]:
    """Scale and shift (o,) of the batch norm ``node`` after a layer; 1 and 0 without one."""
    if node is None:
        unit = torch.ones(width).to(device_of(module))
        return unit, torch.zeros_like(unit)
    gamma, beta, mean, variance = (tensor(module, p) for p in _parameters(node))
    epsilon = node.args[6] if len(node.args) > 6 else node.kwargs.get("eps", 1e-5)
    if str(getattr(node.target, "overloadpacket", "")).endswith(("batch_norm", "native_batch_norm")):
        epsilon = node.args[7]
    scale = gamma / torch.sqrt(variance + float(epsilon))  # type: ignore[arg-type]
    return scale, beta - scale * mean


def write_solution(
    module: GraphModule, site: LayerSite, norm: Node | None, weights: Tensor, bias: Tensor, scale: Tensor
) -> None:
    """Write weights divided by the norm's scale, and the bias into the norm (or else the layer).

    Channels that the norm scales by zero stay unchanged.
    """
    weight = tensor(module, site.weight)
    alive = scale.abs() > _SMALLEST_SCALE
    safe = torch.where(alive, scale, torch.ones_like(scale))
    new = (exact(weights) / exact(safe[:, None])).to(weight).view_as(weight)
    weight.copy_(torch.where(alive.view(-1, *[1] * (weight.dim() - 1)), new, weight))
    if norm is not None:
        _, beta, mean, _ = (tensor(module, p) for p in _parameters(norm))
        own = tensor(module, site.bias) if site.bias is not None else torch.zeros_like(mean)
        beta.copy_(torch.where(alive, bias.to(scale) + scale * (mean - own), beta))
    elif site.bias is not None:
        tensor(module, site.bias).copy_(bias.float())


def _parameters(norm: Node) -> list[str]:
    return [str(a.target) for a in norm.args[1:5]]  # type: ignore[union-attr]
