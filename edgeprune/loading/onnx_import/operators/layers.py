"""Convolutions and matrix products."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.loading.onnx_import.operators.windows import window
from edgeprune.loading.onnx_import.site import Imported, Site
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import Array, UnknownFormError

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def parameter(values: Array) -> nn.Parameter:
    """Trainable float32 weights."""
    return nn.Parameter(torch.from_numpy(np.array(values, dtype=np.float32)))


def filled(layer: nn.Module, weight: Array, bias: Array | None) -> nn.Module:
    """A layer with these weights."""
    layer.weight = parameter(weight)
    if bias is not None:
        layer.bias = parameter(bias)
    return layer


def _bias(site: Site, index: int, channels: int) -> Array | None:
    bias = site.optional(index)
    if bias is not None and bias.shape != (channels,):
        raise UnknownFormError(f"has a bias of shape {bias.shape} for {channels} channels")
    return bias


@operator("Conv")
def convolution(site: Site) -> Imported:
    """A convolution; padding of one side alone is a step of its own."""
    weight, group = site.constant(1), int(site.attribute("group", 1))
    form = window(site, tuple(weight.shape[2:]))
    channels, given = len(weight), site.shape(0)[1]
    if group < 1 or given != weight.shape[1] * group or channels % group:
        raise UnknownFormError(f"has weights {weight.shape} in {group} groups for {given} channels")
    bias = _bias(site, 2, channels)
    with torch.device("meta"):
        layer = _CONVOLUTIONS[len(form.kernel)](
            given,
            channels,
            form.kernel,
            stride=form.strides,
            padding=form.before if form.even else 0,
            dilation=form.dilations,
            groups=group,
            bias=bias is not None,
        )
    filled(layer, weight, bias)
    if form.even:
        return layer  # type: ignore[no-any-return]
    return [partial(functional.pad, pad=form.pads), layer]


@operator("ConvTranspose")
def transposed_convolution(site: Site) -> Imported:
    """A transposed convolution; what is cut off one side alone is a step of its own."""
    weight, group = site.constant(1), int(site.attribute("group", 1))
    kernel, given = tuple(weight.shape[2:]), site.shape(0)
    if group < 1 or given[1] != len(weight) or len(weight) % group:
        raise UnknownFormError(f"has weights {weight.shape} in {group} groups for {given[1]} channels")
    channels = weight.shape[1] * group
    bias = _bias(site, 2, channels)
    added = tuple(map(int, site.attribute("output_padding", (0,) * len(kernel))))
    form = window(site, kernel)
    before, after = _cut(site, form.kernel, form.strides, form.dilations, added, (form.before, form.after))
    even = before == after
    with torch.device("meta"):
        layer = _TRANSPOSED[len(kernel)](
            given[1],
            channels,
            kernel,
            stride=form.strides,
            padding=before if even else 0,
            output_padding=added,
            groups=group,
            dilation=form.dilations,
            bias=bias is not None,
        )
    filled(layer, weight, bias)
    return layer if even else [layer, partial(crop, sides=(before, after))]


def _cut(
    site: Site,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    added: tuple[int, ...],
    pads: tuple[tuple[int, ...], tuple[int, ...]],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is cut off in front and behind, by the size that the result is to have."""
    how, sizes = site.attribute("auto_pad", "NOTSET"), site.shape(0)[2:]
    wanted = site.attribute("output_shape", None)
    if wanted is None and how not in ("SAME_UPPER", "SAME_LOWER"):
        return pads
    if wanted is None:
        wanted = [n * s for n, s in zip(sizes, strides, strict=True)]
    wanted = wanted[-len(kernel) :]
    whole = [
        (n - 1) * s + (k - 1) * d + 1 + a
        for n, s, k, d, a in zip(sizes, strides, kernel, dilations, added, strict=True)
    ]
    totals = [w - int(size) for w, size in zip(whole, wanted, strict=True)]
    if min(totals) < 0:
        raise UnknownFormError(f"asks for the size {tuple(wanted)}, more than its window gives")
    less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (more, less) if how == "SAME_LOWER" else (less, more)


def crop(image: Tensor, *, sides: tuple[tuple[int, ...], tuple[int, ...]]) -> Tensor:
    """Cut off the sides of the last dimensions, in front and behind."""
    before, after = sides
    return functional.pad(image, [-n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair])


def linear(weight: Array, bias: Array | None) -> nn.Module:
    """A linear layer with weights (out, in)."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return filled(layer, weight, bias)


@operator("Gemm")
def gemm(site: Site) -> Imported:
    """A linear layer; without constant weights the sum of a product and an addend."""
    alpha, beta = float(site.attribute("alpha", 1.0)), float(site.attribute("beta", 1.0))
    flip_a, flip_b = bool(site.attribute("transA", 0)), bool(site.attribute("transB", 0))
    if flip_a or not site.is_constant(1) or (site.has(2) and not site.is_constant(2)):
        return partial(general_product, factors=(alpha, beta), flips=(flip_a, flip_b))
    weight = site.constant(1)
    weight = np.float32(alpha) * (weight if flip_b else weight.T)
    bias = site.optional(2)
    if bias is not None:
        if bias.ndim == 2 and bias.shape[0] != 1:
            raise UnknownFormError(f"adds a constant of shape {bias.shape}, another for each image")
        bias = np.float32(beta) * np.broadcast_to(bias.reshape(-1), len(weight))
    return linear(weight, bias)


def general_product(
    left: Tensor,
    right: Tensor,
    addend: Tensor | float | None = None,
    *,
    factors: tuple[float, float],
    flips: tuple[bool, bool],
) -> Tensor:
    """``factors[0] * left @ right + factors[1] * addend``, the operands transposed where told."""
    alpha, beta = factors
    product = torch.matmul(left.mT if flips[0] else left, right.mT if flips[1] else right)
    product = product if alpha == 1.0 else alpha * product
    if addend is None:
        return product
    return product + (addend if beta == 1.0 else beta * addend)


@operator("MatMul")
def product(site: Site) -> Imported:
    """A linear layer where the second operand is a constant matrix."""
    if site.is_constant(1) and len(site.shape(1)) == 2 and not site.is_constant(0):
        return linear(site.constant(1).T, site.bias)
    return torch.matmul


@operator("Einsum")
def einsum(site: Site) -> Imported:
    """Einstein's sum; letters are as torch has them."""
    return partial(_einsum, equation=site.attribute("equation", ""))


def _einsum(*operands: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *operands)
