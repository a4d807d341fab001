"""Image files of every kind for tests of calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]


def noise(height: int, width: int, seed: int = 0) -> Array:
    """(height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save_as(path: Path, pixels: Array, orientation: int | None = None, **options: Any) -> Path:
    """Write pixels, with an EXIF orientation where one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    Image.fromarray(pixels).save(path, **options)
    return path


def rectangle(height: int, width: int, corners: tuple[int, int, int, int]) -> Array:
    """Black with a white rectangle from (x1, y1) to (x2, y2)."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    x1, y1, x2, y2 = corners
    pixels[y1:y2, x1:x2] = 255
    return pixels
