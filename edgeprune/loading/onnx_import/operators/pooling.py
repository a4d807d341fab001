"""Pools."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.loading.onnx_import.operators.windows import Window, window
from edgeprune.loading.onnx_import.site import Imported, Operation, Site
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import UnknownFormError

_MAX: dict[int, Any] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE: dict[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_ADAPTIVE: dict[int, Any] = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


def _fits(form: Window) -> bool:
    """Whether torch pads that way by itself."""
    return form.even and all(2 * p <= k for p, k in zip(form.before, form.kernel, strict=True))


@operator("MaxPool")
def max_pool(site: Site) -> Imported:
    """The largest of each window; padding never is."""
    site.require("storage_order", 0)
    site.one_output()
    form = window(site)
    pool: Operation = partial(
        _MAX[len(form.kernel)],
        kernel_size=list(form.kernel),
        stride=list(form.strides),
        padding=list(form.before) if _fits(form) else 0,
        dilation=list(form.dilations),
        ceil_mode=bool(site.attribute("ceil_mode", 0)),
    )
    if _fits(form):
        return pool
    return [partial(functional.pad, pad=form.pads, value=-math.inf), pool]


@operator("AveragePool")
def average_pool(site: Site) -> Imported:
    """The mean of each window, with or without its padding."""
    form, with_padding = window(site), bool(site.attribute("count_include_pad", 0))
    if any(d != 1 for d in form.dilations):
        raise UnknownFormError(f"has dilations {form.dilations}, and accepted is 1")
    padded = any(form.before) or any(form.after)
    pool = partial(
        _AVERAGE[len(form.kernel)],
        kernel_size=list(form.kernel),
        stride=list(form.strides),
        padding=list(form.before) if _fits(form) else 0,
        ceil_mode=bool(site.attribute("ceil_mode", 0)),
        count_include_pad=with_padding or not padded,
    )
    if _fits(form):
        return pool
    if with_padding:
        return [partial(functional.pad, pad=form.pads), pool]
    return partial(_without_padding, means=pool, pads=form.pads)


def _without_padding(image: Tensor, *, means: Any, pads: list[int]) -> Tensor:
    """Padding counts as a zero in each window, and is then left out of the number of values."""
    inside = torch.ones((1, 1, *image.shape[2:]), dtype=image.dtype, device=image.device)
    share = means(functional.pad(inside, pads))
    return means(functional.pad(image, pads)) / share  # type: ignore[no-any-return]


@operator("GlobalAveragePool")
def global_average(site: Site) -> Imported:
    """The mean of each channel."""
    spatial = site.rank() - 2
    if spatial not in _ADAPTIVE:
        raise UnknownFormError(f"has {spatial} spatial dimensions, and accepted are 1 to 3")
    return partial(_ADAPTIVE[spatial], output_size=1)


@operator("GlobalMaxPool")
def global_max(site: Site) -> Imported:
    """The largest of each channel."""
    return partial(torch.amax, dim=list(range(2, site.rank())), keepdim=True)
