"""Normalisations."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.loading.onnx_import.operators.layers import filled
from edgeprune.loading.onnx_import.site import Imported, Site
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import Array, UnknownFormError

_BATCH: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE: dict[int, Any] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
_FLOAT32 = 1
"""``stash_type`` in which statistics are calculated."""


@operator("BatchNormalization")
def batch_norm(site: Site) -> Imported:
    """With its running statistics."""
    site.require("training_mode", 0)
    site.require("spatial", 1)
    site.ignore("momentum", "is_test", "consumed_inputs")
    site.one_output()
    scale, shift, mean, variance = (site.constant(index) for index in range(1, 5))
    kind = _BATCH.get(site.rank())
    if kind is None:
        raise UnknownFormError(f"has {site.rank()} dimensions, and accepted are 2 to 5")
    layer = kind(len(scale), eps=float(site.attribute("epsilon", 1e-5)))
    layer.running_mean = torch.from_numpy(np.array(mean, dtype=np.float32))
    layer.running_var = torch.from_numpy(np.array(variance, dtype=np.float32))
    return filled(layer, scale, shift).eval()


@operator("InstanceNormalization")
def instance_norm(site: Site) -> Imported:
    """Each image and channel by its own statistics."""
    site.ignore("consumed_inputs")
    scale, shift = site.constant(1), site.constant(2)
    kind = _INSTANCE.get(site.rank())
    if kind is None:
        raise UnknownFormError(f"has {site.rank()} dimensions, and accepted are 3 to 5")
    layer: nn.Module = kind(len(scale), eps=float(site.attribute("epsilon", 1e-5)), affine=True)
    return filled(layer, scale, shift).eval()


@operator("GroupNormalization")
def group_norm(site: Site) -> Imported:
    """Groups of channels by their own statistics."""
    site.require("stash_type", _FLOAT32)
    groups, channels = int(site.attribute("num_groups", 0)), site.shape(0)[1]
    scale, shift = site.constant(1), site.constant(2)
    if groups < 1 or channels % groups:
        raise UnknownFormError(f"has {groups} groups for {channels} channels")
    layer = nn.GroupNorm(groups, channels, eps=float(site.attribute("epsilon", 1e-5)))
    return filled(layer, scale, shift)


@operator("LayerNormalization")
def layer_norm(site: Site) -> Imported:
    """All dimensions from an axis on by their own statistics."""
    site.require("stash_type", _FLOAT32)
    site.one_output()
    shape = site.shape(0)[site.axis("axis", -1) :]
    scale, shift = _broadcast(site, 1, shape), None
    if site.has(2):
        shift = _broadcast(site, 2, shape)
    layer = nn.LayerNorm(shape, eps=float(site.attribute("epsilon", 1e-5)), bias=shift is not None)
    return filled(layer, scale, shift)


@operator("RMSNormalization")
def rms_norm(site: Site) -> Imported:
    """All dimensions from an axis on by their root mean square."""
    site.require("stash_type", _FLOAT32)
    shape = site.shape(0)[site.axis("axis", -1) :]
    layer = nn.RMSNorm(shape, eps=float(site.attribute("epsilon", 1e-5)))
    return filled(layer, _broadcast(site, 1, shape), None)


def _broadcast(site: Site, index: int, shape: tuple[int, ...]) -> Array:
    values = site.constant(index)
    try:
        return np.broadcast_to(values, shape)
    except ValueError as error:
        raise UnknownFormError(f"has weights of shape {values.shape} for {shape}") from error


@operator("LRN")
def local_response_norm(site: Site) -> Imported:
    """Each channel by those beside it."""
    size = int(site.attribute("size", 0))
    if size < 1 or size % 2 == 0:
        raise UnknownFormError(f"has size={size}, and accepted are odd sizes")
    return partial(
        functional.local_response_norm,
        size=int(size),
        alpha=float(site.attribute("alpha", 1e-4)),
        beta=float(site.attribute("beta", 0.75)),
        k=float(site.attribute("bias", 1.0)),
    )


@operator("LpNormalization")
def lp_norm(site: Site) -> Imported:
    """Each vector along an axis by its length."""
    site.require("p", 2, 1)
    return partial(_by_length, axis=site.axis("axis", -1), order=int(site.attribute("p", 2)))


def _by_length(values: Tensor, *, axis: int, order: int) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values, ord=order, dim=axis, keepdim=True)
    return values / length
