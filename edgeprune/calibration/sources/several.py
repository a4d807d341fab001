"""Items of several inputs: a pair of images, an image and numbers that go with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edgeprune.artifacts.model import numbered_inputs
from edgeprune.calibration.pixels import channels_first, check_values, from_array, from_tensor, stored_bits
from edgeprune.calibration.sources.pictures import from_pil
from edgeprune.calibration.sources.source import RawImage, ReadOptions, StoredForm
from edgeprune.errors import CalibrationError

_NUMBERS = "uifb"
"""Kinds of NumPy types."""
_FLOAT_CHANNELS = (1, 3)


def in_order(given: Mapping[str, Any], wanted: Sequence[str], where: str) -> tuple[str, ...]:
    """The names that are given, in the order of the model's inputs ``wanted``, or numbered from 0.

    Raises:
        CalibrationError: one is unknown or missing, or these are not numbered where the model's are unknown.
    """
    numbered = numbered_inputs(len(given))
    if set(given) == set(numbered):
        return numbered
    names = tuple(name for name in wanted if name in given)
    if set(names) == set(given) and names == tuple(wanted[: len(names)]):
        return names
    told = (
        f"the model's inputs are {', '.join(wanted)}; accepted are those names from the first one on, or"
        if wanted
        else "the model does not name its inputs; accepted are"
    )
    raise CalibrationError(
        f"{where} has {', '.join(given)}, and {told} {', '.join(numbered_inputs(2))} and so on, in their "
        "order"
    )


def joined_items(items: Sequence[RawImage]) -> RawImage:
    """The inputs of one image, of which the first has its label and truth."""
    return replace(items[0], further=tuple(items[1:]))


def raw_input(value: Any, options: ReadOptions, where: str) -> RawImage:
    """One input: an image where it looks like one, else numbers that the model gets as they are.

    Images are PIL images, whole numbers of 8 or 16 bits (h, w), (h, w, channels) or (channels, h, w) of 1, 3
    or 4 channels, and floating point (1 or 3, h, w). No other axis is ever moved.

    Raises:
        CalibrationError: neither, or values that are no numbers.
    """
    if isinstance(value, Image.Image):
        decoded = from_pil(value, options)
        return replace(decoded, pixels=check_values(decoded.pixels, where))
    stored = StoredForm(bits=stored_bits(value)) if isinstance(value, (Tensor, np.ndarray)) else StoredForm()
    if _is_image(value):
        read: Callable[..., Tensor] = from_tensor if isinstance(value, Tensor) else from_array
        return RawImage(pixels=read(value, where, wanted=None), stored=stored)
    accepted = "accepted are a tensor, an array, a PIL image or a number, of real numbers"
    if isinstance(value, Tensor):
        value = (value.float() if value.is_floating_point() else value).detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{where} is a {type(value).__name__}; {accepted}") from error
    if array.dtype.kind not in _NUMBERS:
        of_python = array.dtype.kind == "O" or isinstance(value, (str, bytes))
        kind = type(value).__name__ if of_python else f"value of type {array.dtype}"
        raise CalibrationError(f"{where} is a {kind}; {accepted}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which is refused
        numbers = torch.as_tensor(array.astype(np.float32))
    return RawImage(pixels=check_values(numbers, where), is_image=False)


def _is_image(value: Any) -> bool:
    if not isinstance(value, (Tensor, np.ndarray)):
        return False
    if stored_bits(value) is None:
        real = value.is_floating_point() if isinstance(value, Tensor) else value.dtype.kind == "f"
        return real and value.ndim == 3 and value.shape[0] in _FLOAT_CHANNELS
    return value.ndim == 2 or (value.ndim == 3 and channels_first(value.shape, None) is not None)
