"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from edgeprune.loading.onnx_import.operators.activations import identity
from edgeprune.loading.onnx_import.site import Imported, Site
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import UnknownFormError


def _sum_of_squares(values: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.sum(values * values, dim, keepdim)


def _log_sum(values: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.log(torch.sum(values, dim, keepdim))


def _length(values: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.sqrt(_sum_of_squares(values, dim, keepdim))


def _sum_of_sizes(values: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.sum(torch.abs(values), dim, keepdim)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL1": _sum_of_sizes,
    "ReduceL2": _length,
    "ReduceSumSquare": _sum_of_squares,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": torch.logsumexp,
}


@operator(*_REDUCTIONS)
def reduction(site: Site) -> Imported:
    """Axes are an attribute, or an input in later opsets; all where there are none."""
    axes, rank = site.parameter("axes", 1), site.rank()
    nothing = bool(site.attribute("noop_with_empty_axes", 0))
    keep = bool(site.attribute("keepdims", 1))
    if not axes and nothing:
        if site.node.op_type not in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"):
            raise UnknownFormError("has no axes and noop_with_empty_axes=1")
        return identity
    if any(not -rank <= axis < rank for axis in axes or ()):
        raise UnknownFormError(f"has axes {axes} where there are {rank} dimensions")
    dims = sorted({axis % rank for axis in axes}) if axes else list(range(rank))
    return partial(_REDUCTIONS[site.node.op_type], dim=dims, keepdim=keep)


@operator("ArgMax", "ArgMin")
def arg_extreme(site: Site) -> Imported:
    """Where along an axis the extreme value is."""
    site.require("select_last_index", 0)
    function = torch.argmax if site.node.op_type == "ArgMax" else torch.argmin
    return partial(function, dim=site.axis("axis", 0), keepdim=bool(site.attribute("keepdims", 1)))


@operator("TopK")
def top_k(site: Site) -> Imported:
    """The largest or smallest along an axis, and where they are."""
    k = site.parameter("k", 1)
    if k is None or len(k) != 1:
        raise UnknownFormError("does not tell how many values it takes")
    return partial(
        torch.topk,
        k=k[0],
        dim=site.axis("axis", -1),
        largest=bool(site.attribute("largest", 1)),
        sorted=bool(site.attribute("sorted", 1)),
    )


@operator("CumSum")
def cumulative_sum(site: Site) -> Imported:
    """The sum up to each place along an axis."""
    site.require("exclusive", 0)
    site.require("reverse", 0)
    axis = int(site.constant(1).reshape(-1)[0])
    if not -site.rank() <= axis < site.rank():
        raise UnknownFormError(f"has an axis {axis} where there are {site.rank()} dimensions")
    return partial(torch.cumsum, dim=axis)
