"""Padding."""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import functional

from edgeprune.loading.onnx_import.operators.activations import identity
from edgeprune.loading.onnx_import.operators.windows import torch_pads
from edgeprune.loading.onnx_import.site import Imported, Site
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import UnknownFormError

_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator("Pad")
def pad(site: Site) -> Imported:
    """With a number, or with the image's own values."""
    rank = site.rank()
    before, after = _pads(site, rank)
    mode, value = site.attribute("mode", "constant"), site.number("value", 2) or 0.0
    if not any(before) and not any(after):
        return identity
    if before[0] or after[0]:
        raise UnknownFormError("pads the batch")
    if mode == "constant":
        first = min(d for d in range(rank) if before[d] or after[d])
        return partial(functional.pad, pad=torch_pads(before[first:], after[first:]), value=float(value))
    if mode not in _MODES:
        raise UnknownFormError(f"has mode={mode}, and accepted are constant, {', '.join(_MODES)}")
    if min(*before, *after) < 0 or any((*before[:2], *after[:2])) or not 3 <= rank <= 5:
        raise UnknownFormError(f"has mode={mode} for other dimensions than the spatial ones")
    return partial(_padded, pads=torch_pads(before[2:], after[2:]), mode=_MODES[mode])


def _padded(image: Tensor, *, pads: list[int], mode: str) -> Tensor:
    return functional.pad(image, pads, mode)


def _pads(site: Site, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding of every dimension in front and behind."""
    site.ignore("paddings")
    given, axes = site.parameter("pads", 1), site.optional(3)
    dims = list(range(rank)) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    if given is None or len(given) != 2 * len(dims):
        raise UnknownFormError(f"has pads {given} for {len(dims)} dimensions")
    before, after = [0] * rank, [0] * rank
    for place, dim in enumerate(dims):
        before[dim], after[dim] = given[place], given[place + len(dims)]
    return tuple(before), tuple(after)
