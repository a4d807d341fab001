"""Operators that take parts of tensors, or join them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.loading.onnx_import.site import Imported, Site, WithBatch
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import BatchMultiple, ImageIndices, Size, UnknownFormError


@operator("Concat")
def concat(site: Site) -> Imported:
    """Beside each other along an axis."""
    most = max(site.rank(i) for i, value in enumerate(site.inputs) if value is not None)
    return partial(_concat, dim=site.axis("axis", rank=most))


def _concat(*parts: Tensor, dim: int) -> Tensor:
    return torch.cat(parts, dim)


@operator("Split")
def split(site: Site) -> Imported:
    """Into pieces of given sizes, or of equal ones."""
    axis, sizes = site.axis("axis", 0), site.parameter("split", 1)
    whole, count = site.shape(0)[axis], len(site.node.outputs)
    site.ignore("num_outputs")
    if sizes is None:
        each = -(-whole // count)
        sizes = tuple(min(each, whole - i * each) for i in range(count))
    if len(sizes) != count or sum(sizes) != whole or min(sizes) < 0:
        raise UnknownFormError(f"makes {count} pieces of the sizes {sizes} of {whole}")
    return partial(torch.split, split_size_or_sections=list(sizes), dim=axis)


@operator("Slice")
def slices(site: Site) -> Imported:
    """Ranges along axes; backwards, too."""
    starts, ends = _entries(site, "starts", 1), _entries(site, "ends", 2)
    axes, steps = site.parameter("axes", 3), site.optional(4)
    axes = tuple(range(len(starts))) if axes is None else axes
    step_sizes = (1,) * len(starts) if steps is None else tuple(int(n) for n in steps.reshape(-1))
    if not len(starts) == len(ends) == len(axes) == len(step_sizes) or 0 in step_sizes:
        raise UnknownFormError("has starts, ends, axes and steps that do not belong together")
    shape, ranges = site.shape(0), []
    for start, end, axis, step in zip(starts, ends, axes, step_sizes, strict=True):
        dim = axis % len(shape)
        if isinstance(start, BatchMultiple) or isinstance(end, BatchMultiple) or site.follows_batch(dim):
            whole = shape[dim] if site.fixed_batch is not None else 2**31 - 1
            if not _is_whole(start, end, step, whole):
                raise UnknownFormError("takes a part of the batch")
            continue
        first, last, stride = slice(start, end, step).indices(shape[dim])
        ranges.append((dim, first, last, stride))
    backwards = [entry for entry in ranges if entry[3] < 0]
    if backwards:
        for _, first, last, stride in ranges:
            site.store(np.arange(first, last, stride, dtype=np.int64))
        return partial(_select, dims=[dim for dim, *_ in ranges])
    return partial(_slice, ranges=tuple(ranges))


def _entries(site: Site, name: str, index: int) -> tuple[Size, ...]:
    given = site.attribute(name, None)
    return site.sizes(index) if given is None else tuple(map(int, given))


def _is_whole(start: Size, end: Size, step: int, whole: int) -> bool:
    """Whether a range along the batch is all of it."""
    if step != 1 or start != 0:
        return False
    return end == BatchMultiple(1) or (isinstance(end, int) and end >= whole)


def _slice(values: Tensor, *, ranges: tuple[tuple[int, int, int, int], ...]) -> Tensor:
    for dim, first, last, step in ranges:
        places = (slice(None),) * dim + (slice(first, max(first, last), step),)
        values = values[places]
    return values


def _select(values: Tensor, *indices: Tensor, dims: list[int]) -> Tensor:
    for dim, index in zip(dims, indices, strict=True):
        values = values.index_select(dim, index)
    return values


@operator("Gather")
def gather(site: Site) -> Imported:
    """Entries at constant places along an axis."""
    axis = site.axis("axis", 0)
    if site.is_constant(0):
        raise UnknownFormError("looks up a table by indices that come from the image")
    whole, known = site.shape(0)[axis], site.peek(1)
    if isinstance(known, ImageIndices):
        return _of_each_image(site, known)
    indices = site.constant(1)
    if site.follows_batch(axis):
        raise UnknownFormError("takes a part of the batch")
    if ((indices < -whole) | (indices >= whole)).any():
        raise UnknownFormError(f"takes entries beyond the {whole} along axis {axis}")
    indices = indices % whole
    if indices.ndim == 0:
        return partial(torch.select, dim=axis, index=int(indices))
    site.store(np.ascontiguousarray(indices.reshape(-1), dtype=np.int64))
    return partial(_gather, dim=axis, shape=tuple(indices.shape))


def _of_each_image(site: Site, known: ImageIndices) -> Imported:
    """Entries of a flat tensor of all images: the same of each."""
    site.taken.add(1)
    values = known.values
    if site.rank() != 1 or known.step < 1 or values.min(initial=0) < 0 or values.max(initial=0) >= known.step:
        raise UnknownFormError("takes entries of several images together")
    if not np.array_equal(values.reshape(-1), np.arange(known.step)):
        site.store(np.ascontiguousarray(values.reshape(-1), dtype=np.int64))
    return WithBatch(partial(_image_by_image, step=known.step, shape=tuple(values.shape)))


def _image_by_image(
    batch: Any, flat: Tensor, index: Tensor | None = None, *, step: int, shape: tuple[int, ...]
) -> Tensor:
    rows = flat.reshape(batch, step)
    rows = rows if index is None else rows.index_select(1, index)
    return rows.reshape(batch, *shape)


def _gather(values: Tensor, index: Tensor, *, dim: int, shape: tuple[int, ...]) -> Tensor:
    found = values.index_select(dim, index)
    return found if len(shape) == 1 else torch.unflatten(found, dim, shape)


@operator("Trilu")
def triangle(site: Site) -> Imported:
    """The upper or lower triangle of matrices."""
    diagonal = site.optional(1)
    function: Any = torch.triu if site.attribute("upper", 1) else torch.tril
    return partial(function, diagonal=0 if diagonal is None else int(diagonal.reshape(-1)[0]))
