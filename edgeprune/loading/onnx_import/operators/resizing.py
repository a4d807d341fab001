"""Images of another size."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.loading.onnx_import.operators.activations import identity
from edgeprune.loading.onnx_import.site import Imported, Site
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import Array, BatchMultiple, UnknownFormError

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
_TORCH_CUBIC = -0.75


@operator("Resize", "Upsample")
def resize(site: Site) -> Imported:
    """Nearest neighbours by any coordinates; linear and cubic by those that torch has."""
    shape, rank = site.shape(0), site.rank()
    new_sizes, scales = _wanted(site, shape)
    if not 3 <= rank <= 5 or new_sizes[:2] != shape[:2]:
        raise UnknownFormError("resizes other dimensions than the spatial ones")
    site.require("antialias", 0)
    site.require("exclude_outside", 0)
    site.ignore("extrapolation_value", "keep_aspect_ratio_policy")
    mode = site.attribute("mode", "nearest")
    coordinates = _coordinates(site)
    rounding = site.attribute("nearest_mode", "round_prefer_floor")
    cubic = float(site.attribute("cubic_coeff_a", _TORCH_CUBIC))
    if new_sizes == shape:
        return identity
    if mode == "nearest":
        return _nearest(site, shape[2:], new_sizes[2:], scales[2:], coordinates, rounding)
    if coordinates == "pytorch_half_pixel" and 1 not in new_sizes[2:]:
        coordinates = "half_pixel"
    if coordinates not in ("half_pixel", "align_corners"):
        raise UnknownFormError(
            f"has mode={mode} with coordinate_transformation_mode={coordinates}, and accepted are "
            "half_pixel and align_corners"
        )
    whole = all(n * s == m for n, s, m in zip(shape[2:], scales[2:], new_sizes[2:], strict=True))
    aligned = coordinates == "align_corners"
    sizing = {"size": list(new_sizes[2:])} if whole or aligned else {"scale_factor": list(scales[2:])}
    if mode == "linear":
        return partial(functional.interpolate, **sizing, mode=_LINEAR[rank], align_corners=aligned)
    if mode == "cubic" and rank == 4 and cubic == _TORCH_CUBIC:
        return partial(functional.interpolate, **sizing, mode="bicubic", align_corners=aligned)
    raise UnknownFormError(f"has mode={mode} for {rank - 2} spatial dimensions, which torch does not have")


def _coordinates(site: Site) -> str:
    old = site.node.op_type == "Upsample" or site.opset < 11
    given = site.attribute("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    if old and site.attribute("mode", "nearest") == "linear":
        raise UnknownFormError("is linear by the coordinates of opset 10, which torch does not have")
    return str(given)


def _wanted(site: Site, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The new size of every dimension, and its ratio to the old one."""
    axes = site.attribute("axes", None)
    dims = list(range(len(shape))) if axes is None else [int(a) % len(shape) for a in axes]
    old = site.node.op_type == "Upsample" or site.opset < 11
    if not old and site.has(1):
        site.constant(1)
    given = site.attribute("scales", None)
    index = 1 if old else 2
    if given is None and site.has(index):
        given = tuple(float(s) for s in site.constant(index).reshape(-1))
    if given:
        scales = [1.0] * len(shape)
        for dim, scale in zip(dims, given, strict=True):
            scales[dim] = float(np.float32(scale))
        return tuple(math.floor(n * s) for n, s in zip(shape, scales, strict=True)), tuple(scales)
    if not site.has(3) or site.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnknownFormError("does not tell the new size in a form that is known")
    sizes = list(shape)
    for dim, size in zip(dims, site.sizes(3), strict=True):
        sizes[dim] = shape[dim] if isinstance(size, BatchMultiple) and dim == 0 else int(size)  # type: ignore[arg-type]
    return tuple(sizes), tuple(m / n for m, n in zip(sizes, shape, strict=True))


def _nearest(
    site: Site,
    sizes: tuple[int, ...],
    new_sizes: tuple[int, ...],
    scales: tuple[float, ...],
    coordinates: str,
    rounding: str,
) -> Imported:
    """Torch's own where it takes the same places, else a selection of places along each dimension."""
    places = [
        _places(n, m, s, coordinates, _floor if site.opset < 11 else rounding)
        for n, m, s in zip(sizes, new_sizes, scales, strict=True)
    ]
    for mode in ("nearest", "nearest-exact"):
        if all(
            np.array_equal(place, _torch_places(n, m, mode))
            for place, n, m in zip(places, sizes, new_sizes, strict=True)
        ):
            return partial(functional.interpolate, size=list(new_sizes), mode=str(mode))
    for place in places:
        site.store(place)
    return _selected


_floor = "floor"


def _places(size: int, new_size: int, scale: float, coordinates: str, rounding: str) -> Array:
    """The nearest place (new_size,) along a dimension, as the standard has it."""
    x = np.arange(new_size, dtype=np.float64)
    if coordinates == "asymmetric":
        x = x / scale
    elif coordinates == "align_corners":
        x = x * (size - 1) / (new_size - 1) if new_size > 1 else x * 0
    elif coordinates in ("half_pixel", "pytorch_half_pixel"):
        single = coordinates == "pytorch_half_pixel" and new_size == 1
        x = x * 0 if single else (x + 0.5) / scale - 0.5
    else:
        raise UnknownFormError(f"has coordinate_transformation_mode={coordinates}, which is not known")
    rounded = {
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
        "floor": np.floor(x),
        "ceil": np.ceil(x),
    }
    if rounding not in rounded:
        raise UnknownFormError(f"has nearest_mode={rounding}, which is not known")
    return np.clip(rounded[rounding], 0, size - 1).astype(np.int64)


def _torch_places(size: int, new_size: int, mode: str) -> Array:
    row = torch.arange(size, dtype=torch.float32).reshape(1, 1, -1)
    return functional.interpolate(row, new_size, None, mode).reshape(-1).numpy().astype(np.int64)


def _selected(image: Tensor, *places: Tensor) -> Tensor:
    for number, place in enumerate(places):
        image = image.index_select(2 + number, place)
    return image
