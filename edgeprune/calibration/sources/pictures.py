"""Convert images of any mode and depth, as Pillow decodes them, to pixels that are upright and opaque."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edgeprune.calibration.preprocess import on_ground
from edgeprune.calibration.sources.source import RawImage, ReadOptions, StoredForm

_PLAIN_MODES = ("L", "RGB")
_GREY_MODES = ("1", "L", "LA", "La")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_KINDS = {
    "1": "black and white", "L": "greyscale with transparency", "LA": "greyscale with transparency",
    "La": "greyscale with transparency", "P": "palette", "PA": "palette", "RGB": "RGB with transparency",
    "RGBA": "RGBA", "RGBa": "RGBA", "CMYK": "CMYK",
}  # fmt: skip
"""Words for modes of Pillow; those of grey and RGB are for images that name a transparent colour."""
_ORIENTATION = 0x0112
_UPSIDE = (1, 8)
_INVERSE = {6: 8, 8: 6}
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _UNSIGNED, _SIGNED = 258, 339, 1, 2
_UNREADABLE = (SyntaxError, ValueError, KeyError, TypeError, OverflowError, OSError, struct.error)
_WITH_ALPHA = 4


def from_pil(image: Image.Image, options: ReadOptions) -> RawImage:
    """Pixels of a PIL image: grey (1, h, w) or RGB (3, h, w), RGBA (4, h, w) where the model takes that.

    Whole numbers of more than 8 bits become float32 in [0, 1]; floating point stays. Transparent parts are
    laid on the ground, and the image is turned upright by its EXIF orientation, both as ``options`` say.

    Raises:
        OSError: the image is truncated or damaged.
    """
    deep, before = _is_deep(image), _orientation(image)  # which may load the image
    image.load()
    after = _orientation(image)
    raw = _pixels(image, options)
    left = after if options.exif else _INVERSE.get(before, before) if after != before else 1
    return RawImage(
        pixels=turned(raw.pixels, left),
        stored=replace(
            raw.stored,
            kind=_kind(image) if raw.pixels.shape[0] < _WITH_ALPHA else None,
            reduced=deep and raw.stored.bits == 8,
            orientation=after if after != 1 else before,
        ),
    )


def turned(pixels: Tensor, orientation: int) -> Tensor:
    """An image (channels, h, w) with an EXIF orientation, from 1 to 8, as it is seen upright."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.transpose(1, 2)
    flips = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}
    return pixels.flip(flips[orientation]) if orientation in flips else pixels


def upright_size(image: Image.Image, exif: bool) -> tuple[int, int]:
    """(height, width) of an image that was opened but not loaded, as :func:`from_pil` reads it."""
    width, height = image.size
    sideways = _orientation(image) in {5, 6, 7, 8}
    opened_upright = image.format == "TIFF"  # Pillow turns these itself
    return (width, height) if sideways and exif != opened_upright else (height, width)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none, 0 where it cannot be read."""
    try:
        value: Any = image.getexif().get(_ORIENTATION, 1)
    except _UNREADABLE:
        return 0
    whole = isinstance(value, int) and _UPSIDE[0] <= value <= _UPSIDE[1]
    return value if whole else 0


def _kind(image: Image.Image) -> str | None:
    if image.mode in _PLAIN_MODES and "transparency" not in image.info:
        return None
    return None if image.mode.startswith(("I", "F")) else _KINDS.get(image.mode, image.mode)


def _is_deep(image: Image.Image) -> bool:
    """Whether a file has more than 8 bits a channel, which Pillow tells only in how it will decode it."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _pixels(image: Image.Image, options: ReadOptions) -> RawImage:
    """Pixels as they are stored, but without transparency, with their bits."""
    if image.mode.startswith("I"):
        return _whole_numbers(image)
    if image.mode == "F":
        values = torch.from_numpy(np.array(image, dtype=np.float32))
        return RawImage(pixels=values.unsqueeze(0), stored=StoredForm(bits=None))
    grey = image.mode in _GREY_MODES
    if image.mode == "La":
        image = image.convert("LA")  # Pillow has no other way from there
    if not _may_be_transparent(image):
        return RawImage(pixels=_planes(image.convert("L" if grey else "RGB")))
    planes = _planes(image.convert("RGBA"))
    if options.channels == _WITH_ALPHA:
        return RawImage(pixels=planes)
    planes = planes[[0, 3]] if grey else planes
    seen_through = bool((planes[-1] < 255).any())
    return RawImage(pixels=on_ground(planes, options.ground), stored=StoredForm(transparent=seen_through))


def _may_be_transparent(image: Image.Image) -> bool:
    palette_with_alpha = image.palette is not None and image.palette.mode.endswith("A")
    return image.mode in _ALPHA_MODES or "transparency" in image.info or palette_with_alpha


def _planes(image: Image.Image) -> Tensor:
    values = torch.from_numpy(np.array(image))
    return values.unsqueeze(0) if values.dim() == 2 else values.permute(2, 0, 1)


def _whole_numbers(image: Image.Image) -> RawImage:
    """Grey of more than 8 bits in [0, 1], and its bits; negative values stay negative."""
    values = np.array(image)
    tags: Any = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    signed = int(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]) == _SIGNED
    if bits > 16 and not signed:
        values = values.astype(np.int32).view(np.uint32)
    stored = StoredForm(bits=bits, signed=signed)
    scaled = (values.astype(np.float64) / float(stored.largest or 1)).astype(np.float32)
    return RawImage(pixels=torch.from_numpy(scaled).unsqueeze(0), stored=stored)
