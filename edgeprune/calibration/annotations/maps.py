"""Maps of classes: an image file each, whose pixels are numbers of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edgeprune.artifacts.truth import NOWHERE
from edgeprune.calibration.geometry import Geometry
from edgeprune.calibration.sources.folders import opened_image
from edgeprune.errors import CalibrationError

MAP_SUFFIX = ".png"
_NUMBERED = ("1", "L", "P", "I", "I;16")
"""Modes of Pillow whose pixels are single numbers; those of a palette are indices."""


def read_map(path: Path) -> Tensor:
    """The classes (h, w) int64 of a file.

    Raises:
        CalibrationError: no image, or one in colour.
    """
    return opened_image(path, lambda image: _classes(image, path))


def _classes(image: Image.Image, path: Path) -> Tensor:
    if image.mode not in _NUMBERED:
        raise CalibrationError(
            f"the map of classes {str(path)!r} is stored as {image.mode}; accepted are grey images and ones "
            "with a palette, whose pixels are numbers of classes: convert it"
        )
    return torch.from_numpy(np.asarray(image).astype(np.int64))


def placed_map(classes: Tensor, geometry: Geometry) -> Tensor:
    """A map in the model's input: each pixel has the class at its centre, borders count nowhere."""
    rows, columns = (
        _positions(classes.shape[axis], geometry.output[axis], geometry.scale[axis], offset)
        for axis, offset in enumerate((geometry.top, geometry.left))
    )
    inside = (rows >= 0)[:, None] & (columns >= 0)[None, :]
    return torch.where(inside, classes[rows.clamp_min(0)[:, None], columns.clamp_min(0)[None, :]], NOWHERE)


def _positions(source: int, output: int, scale: float, offset: int) -> Tensor:
    """Position in the image for every one of the input; -1 outside of the image."""
    places = torch.floor((torch.arange(output) + 0.5 - offset) / scale).to(torch.int64)
    return torch.where((places >= 0) & (places < source), places, -1)
