"""Operators that arrange the values of one tensor anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.loading.onnx_import.site import Imported, Site, WithBatch
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import Size, UnknownFormError, resolved


@operator("Reshape")
def reshape(site: Site) -> Imported:
    """A size of 0 is that of the input, one of -1 what is left."""
    given = site.attribute("shape", None)
    entries: Sequence[Size] = site.sizes(1) if given is None else tuple(map(int, given))
    if site.attribute("allowzero", 0) and 0 in entries:
        raise UnknownFormError("makes an empty tensor")
    if any(e == 0 for e in entries[site.rank() :]):
        raise UnknownFormError(f"keeps a dimension that its input of {site.rank()} does not have")
    return WithBatch(partial(_reshape, entries=tuple(entries)))


def _reshape(batch: Any, values: Tensor, *, entries: tuple[Size, ...]) -> Tensor:
    sizes = [values.shape[i] if e == 0 else e for i, e in enumerate(resolved(entries, batch))]
    return values.reshape(sizes)


@operator("Flatten")
def flatten(site: Site) -> Imported:
    """Two dimensions remain: those in front of an axis, and those from it on."""
    rank = site.rank()
    axis = int(site.attribute("axis", 1))
    axis = axis + rank if axis < 0 else axis
    if axis == 1:
        return partial(torch.flatten, start_dim=1) if rank > 1 else partial(torch.unsqueeze, dim=1)
    if axis == 0:
        return partial(_flat, dim=0)
    if axis >= rank:
        return partial(_flat, dim=1)
    return partial(_two_parts, second=axis)


def _flat(values: Tensor, *, dim: int) -> Tensor:
    return values.flatten().unsqueeze(dim)


def _two_parts(values: Tensor, *, second: int) -> Tensor:
    return values.flatten(second).flatten(0, second - 1)


@operator("Transpose")
def transpose(site: Site) -> Imported:
    """Dimensions in another order; reversed without one."""
    order = site.attribute("perm", tuple(reversed(range(site.rank()))))
    return partial(torch.permute, dims=list(map(int, order)))


@operator("Squeeze")
def squeeze(site: Site) -> Imported:
    """Without dimensions of one value."""
    axes, shape = site.parameter("axes", 1), site.shape(0)
    if axes is None:
        axes = tuple(i for i, size in enumerate(shape) if size == 1)
    dims = tuple(sorted(axis % len(shape) for axis in axes))
    if any(site.follows_batch(dim) for dim in dims):
        raise UnknownFormError("drops the batch")
    if any(shape[d] != 1 for d in dims):
        raise UnknownFormError(f"drops dimensions {dims} of {shape}, which have several values")
    return partial(torch.squeeze, dim=dims)


@operator("Unsqueeze")
def unsqueeze(site: Site) -> Imported:
    """With further dimensions of one value."""
    axes = site.parameter("axes", 1)
    if not axes:
        raise UnknownFormError("does not tell its axes")
    rank = site.rank() + len(axes)
    return partial(_unsqueeze, dims=tuple(sorted(axis % rank for axis in axes)))


def _unsqueeze(values: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    for dim in dims:
        values = values.unsqueeze(dim)
    return values


@operator("Expand")
def expand(site: Site) -> Imported:
    """Repeated along dimensions of one value."""
    return WithBatch(partial(_expand, entries=site.sizes(1), shape=site.shape(0)))


def _expand(batch: Any, values: Tensor, *, entries: tuple[Size, ...], shape: tuple[int, ...]) -> Tensor:
    rank = max(len(entries), len(shape))
    wanted = [1] * (rank - len(entries)) + resolved(entries, batch)
    own = [1] * (rank - len(shape)) + list(shape)
    sizes = [-1 if n != 1 else w for w, n in zip(wanted, own, strict=True)]
    lead = rank - len(shape)
    return values.expand(
        [w if i < lead else size for i, (w, size) in enumerate(zip(wanted, sizes, strict=True))]
    )


@operator("Tile")
def tile(site: Site) -> Imported:
    """Repeated as a whole."""
    return WithBatch(partial(_tile, entries=site.sizes(1)))


def _tile(batch: Any, values: Tensor, *, entries: tuple[Size, ...]) -> Tensor:
    return values.repeat(resolved(entries, batch))


@operator("DepthToSpace")
def depth_to_space(site: Site) -> Imported:
    """Channels become places beside each other."""
    size, mode = _block(site), site.attribute("mode", "DCR")
    if mode == "CRD":
        return partial(functional.pixel_shuffle, upscale_factor=size)
    if mode != "DCR":
        raise UnknownFormError(f"has mode={mode}, and accepted is DCR or CRD")
    return partial(_depth_first, block=size)


def _depth_first(image: Tensor, *, block: int) -> Tensor:
    _, channels, height, width = image.shape
    parts = image.reshape(-1, block, block, channels // block**2, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(-1, channels // block**2, height * block, width * block)


@operator("SpaceToDepth")
def space_to_depth(site: Site) -> Imported:
    """Places beside each other become channels."""
    return partial(_space_to_depth, size=_block(site))


def _space_to_depth(image: Tensor, *, size: int) -> Tensor:
    _, channels, height, width = image.shape
    parts = image.reshape(-1, channels, height // size, size, width // size, size)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(-1, channels * size**2, height // size, width // size)


def _block(site: Site) -> int:
    size, shape = int(site.attribute("blocksize", 0)), site.shape(0)
    deep = site.node.op_type == "DepthToSpace"
    if size < 1 or len(shape) != 4 or (shape[1] % size**2 if deep else math.gcd(*shape[2:], size) != size):
        raise UnknownFormError(f"has blocksize={size}, into which {shape} does not divide")
    return size
