"""Convert stored images to tensors (channels, height, width), uint8 or float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edgeprune.errors import CalibrationError

_COMMON_CHANNELS = (1, 3, 4)
_GREY_MODES = ("1", "L", "LA", "La")
_MAX_UINT16 = 65535


def channels_first(shape: Sequence[int], wanted: int | None) -> bool | None:
    """Whether the first of three axes is the channels (else the last is); ``None`` where neither can be.

    ``wanted`` is the model's number of channels, which decides where both axes are possible.
    """
    first, last = shape[0], shape[-1]
    if wanted is not None and (first == wanted) != (last == wanted):
        return first == wanted
    if first in _COMMON_CHANNELS:
        return True
    return False if last in _COMMON_CHANNELS else None


def from_tensor(values: Tensor, *, wanted: int | None, where: str) -> Tensor:
    """Pixels of a tensor (height, width), (channels, height, width) or (height, width, channels).

    Raises:
        CalibrationError: another shape, neither uint8 nor floating point, NaN or infinite.
    """
    if values.dim() == 2:
        values = values.unsqueeze(0)
    first = channels_first(values.shape, wanted) if values.dim() == 3 else None
    if first is None or values.numel() == 0:
        raise CalibrationError(
            f"{where} has the shape {tuple(values.shape)}; accepted are (height, width), "
            "(height, width, channels) and (channels, height, width) with 1, 3 or 4 channels"
        )
    return check_values(values if first else values.permute(2, 0, 1), where=where)


def check_values(values: Tensor, *, where: str) -> Tensor:
    """The values as uint8 or float32 on the CPU.

    Raises:
        CalibrationError: neither uint8 nor floating point, NaN or infinite.
    """
    values = values.detach().cpu()
    if values.dtype == torch.uint8:
        return values
    if not values.is_floating_point():
        dtype = str(values.dtype).removeprefix("torch.")
        raise CalibrationError(
            f"{where} has values of type {dtype}; accepted are uint8 in 0..255 and floating point in "
            "0..1: convert them, for instance with .astype(numpy.uint8)"
        )
    values = values.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise CalibrationError(f"{where} has NaN or infinite values; accepted are finite pixels: repair it")
    return values


def from_array(values: np.ndarray[Any, Any], *, wanted: int | None, where: str) -> Tensor:
    """Pixels of a NumPy array; see :func:`from_tensor`."""
    if values.dtype.kind not in "uif":
        raise CalibrationError(
            f"{where} is an array of type {values.dtype}; accepted are uint8 in 0..255 and floating point "
            "in 0..1"
        )
    native = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    if native.dtype.kind == "f":
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which is refused
            native = native.astype(np.float32)
    return from_tensor(torch.from_numpy(native.copy()), wanted=wanted, where=where)


def from_pil(image: Image.Image) -> Tensor:
    """Pixels of a PIL image: grey (1, h, w) or RGB (3, h, w); transparency is dropped.

    16-bit grey becomes float32 in [0, 1]. A rotation in the EXIF data is not applied, as in training with
    torchvision's ``ImageFolder``.

    Raises:
        OSError: the image is truncated or damaged.
    """
    image.load()
    if image.mode.startswith("I"):
        return torch.from_numpy(np.array(image).astype(np.float32) / _MAX_UINT16).unsqueeze(0)
    if image.mode == "F":
        return torch.from_numpy(np.array(image, dtype=np.float32)).unsqueeze(0)
    if image.mode in _GREY_MODES:
        return torch.from_numpy(np.array(image.convert("L"))).unsqueeze(0)
    if "transparency" in image.info:
        image = image.convert("RGBA")  # a palette with transparency warns when it goes to RGB directly
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
