"""Items of several inputs: a pair of images, an image and numbers that go with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edgeprune.calibration.pixels import channels_first, check_values, from_array, from_tensor, stored_bits
from edgeprune.calibration.sources.pictures import from_pil
from edgeprune.calibration.sources.source import RawImage, ReadOptions, StoredForm
from edgeprune.errors import CalibrationError

NUMBERED = "input_{}"
"""How inputs are named where the model's own names are not known."""


def in_order(given: Mapping[str, Any], wanted: Sequence[str], where: str) -> tuple[str, ...]:
    """The names that are given, in the order of the model's inputs ``wanted``, or numbered from 0.

    Raises:
        CalibrationError: one is unknown or missing, or these are not numbered where the model's are unknown.
    """
    numbered = tuple(NUMBERED.format(place) for place in range(len(given)))
    if set(given) == set(numbered):
        return numbered
    names = tuple(name for name in wanted if name in given)
    if set(names) == set(given) and names == tuple(wanted[: len(names)]):
        return names
    model = f"the model's inputs {', '.join(wanted)}" if wanted else "the model does not name its inputs"
    raise CalibrationError(
        f"{where} has {', '.join(given)} for {model}; accepted are those names from the first one on, or "
        f"{numbered[0]}, {NUMBERED.format(1)} and so on, in their order"
    )


def joined_items(items: Sequence[RawImage]) -> RawImage:
    """The inputs of one image, of which the first has its label and truth."""
    return replace(items[0], further=tuple(items[1:]))


def raw_input(value: Any, options: ReadOptions, where: str) -> RawImage:
    """One input: an image where it looks like one, else numbers that the model gets as they are.

    Images are PIL images, whole numbers (h, w), (h, w, channels) and (channels, h, w) of 1, 3 or 4 channels.

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
    try:
        numbers = torch.as_tensor(np.asarray(value, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise CalibrationError(
            f"{where} is a {type(value).__name__}; accepted are a tensor, an array, a PIL image or a number"
        ) from error
    return RawImage(pixels=check_values(numbers, where), is_image=False)


def _is_image(value: Any) -> bool:
    if not isinstance(value, (Tensor, np.ndarray)):
        return False
    if value.ndim == 2:
        return stored_bits(value) is not None
    return value.ndim == 3 and channels_first(value.shape, None) is not None
