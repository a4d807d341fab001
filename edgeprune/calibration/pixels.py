"""Convert stored images to tensors (channels, height, width), uint8 or float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.errors import CalibrationError

_COMMON_CHANNELS = (1, 3, 4)
_MAX_UINT16 = 65535
_WHOLE_BITS = {torch.uint8: 8, torch.uint16: 16}
_ACCEPTED = "accepted are uint8 in 0..255, uint16 in 0..65535 and floating point in 0..1"


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


def from_tensor(values: Tensor, where: str, *, wanted: int | None) -> Tensor:
    """Pixels of a tensor (height, width), (channels, height, width) or (height, width, channels).

    Raises:
        CalibrationError: another shape, neither uint8, uint16 nor floating point, NaN or infinite.
    """
    if values.dim() == 2:
        values = values.unsqueeze(0)
    first = channels_first(values.shape, wanted) if values.dim() == 3 else None
    if first is None or values.numel() == 0:
        raise CalibrationError(
            f"{where} has the shape {tuple(values.shape)}; accepted are (height, width), "
            "(height, width, channels) and (channels, height, width) with 1, 3 or 4 channels"
        )
    return check_values(values if first else values.permute(2, 0, 1), where)


def check_values(values: Tensor, where: str) -> Tensor:
    """The values as uint8 or float32 on the CPU; of 16 bits scaled to [0, 1].

    Raises:
        CalibrationError: neither uint8, uint16 nor floating point, NaN or infinite.
    """
    values = values.detach().cpu()
    if values.dtype == torch.uint8:
        return values
    if values.dtype == torch.uint16:
        return values.to(torch.float32) / _MAX_UINT16
    if not values.is_floating_point():
        dtype = str(values.dtype).removeprefix("torch.")
        raise CalibrationError(
            f"{where} has values of type {dtype}; {_ACCEPTED}: convert them, for instance with "
            ".astype(numpy.uint8)"
        )
    values = values.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise CalibrationError(f"{where} has NaN or infinite values; accepted are finite values: repair it")
    return values


def stored_bits(values: Tensor | np.ndarray[Any, Any]) -> int | None:
    """Bits of a value of whole numbers that are accepted; ``None`` for all others."""
    if isinstance(values, Tensor):
        return _WHOLE_BITS.get(values.dtype)
    return 8 * values.dtype.itemsize if values.dtype.kind == "u" else None


def from_array(values: np.ndarray[Any, Any], where: str, *, wanted: int | None) -> Tensor:
    """Pixels of a NumPy array; see :func:`from_tensor`."""
    if values.dtype.kind not in "uif":
        raise CalibrationError(f"{where} is an array of type {values.dtype}; {_ACCEPTED}")
    native = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    if native.dtype.kind == "f":
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which is refused
            native = native.astype(np.float32)
    return from_tensor(torch.from_numpy(native.copy()), where, wanted=wanted)
