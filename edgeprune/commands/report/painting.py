"""Images and activations as small PNG pictures."""

from __future__ import annotations

import colorsys
import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.artifacts.calibration import ChannelOrder, Preprocessing
from edgeprune.artifacts.illustrations import Picture
from edgeprune.artifacts.model import InputShapes, taken_apart
from edgeprune.evaluation.overlays import Overlay

if TYPE_CHECKING:
    from PIL import Image

LONGEST_SIDE = 72
LONGEST_DRAWN = 128
"""Of pictures with boxes or masks, which are thin."""
_MASK_SHARE = 0.45
_GOLDEN = 0.618
_COLOURS = 64
_NEARLY = 1e-3


def pictured(images: Tensor, joins: InputShapes) -> Tensor:
    """Images (n, c, h, w), or those side by side that rows (n, values) join; empty where there are none.

    Side by side are all that are as high and have as many channels as the first one.
    """
    if not joins:
        return images
    inputs = [each for each in taken_apart(images, joins) if each.dim() == 4]
    alike = [each for each in inputs if each.shape[1:3] == inputs[0].shape[1:3]]
    return torch.cat(alike, dim=3) if alike else images[:0]


def photograph(image: Tensor, preprocessing: Preprocessing, words: str) -> Picture:
    """An image (c, h, w) as the network gets it, with its preprocessing undone.

    Neither of one nor of three channels: their mean. Values that are still outside [0, 1] are scaled to it.
    """
    return Picture(png=_png(_pixels(image, preprocessing)), caption=words)


def drawn_over(image: Tensor, preprocessing: Preprocessing, overlay: Overlay, words: str) -> Picture:
    """An image (c, h, w) in grey with boxes or a class map over it, a colour a class."""
    from PIL import Image, ImageDraw

    grey = np.clip(np.rint(_pixels(image, preprocessing).mean(axis=2) * 255), 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey).convert("RGB")
    picture.thumbnail((LONGEST_DRAWN, LONGEST_DRAWN), Image.Resampling.BOX)
    width, height = picture.size
    if overlay.map is not None:
        colours = np.array([_colour(int(c)) for c in range(int(overlay.map.max()) + 1)], dtype=np.uint8)
        mask = Image.fromarray(colours[overlay.map]).resize((width, height), Image.Resampling.NEAREST)
        picture = Image.blend(picture, mask, _MASK_SHARE)
    draw = ImageDraw.Draw(picture)
    boxes, classes = overlay.boxes, overlay.classes
    for box, kind in zip(() if boxes is None else boxes, () if classes is None else classes, strict=True):
        left, top, right, bottom = np.clip(box, 0.0, 1.0) * (width - 1, height - 1, width - 1, height - 1)
        corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        draw.rectangle(corners, outline=_colour(int(kind)), width=2)
    return Picture(png=_saved(picture), caption=words)


def _colour(kind: int) -> tuple[int, int, int]:
    """A bright colour for a class, apart from those of its neighbours (steps of the golden ratio in hue)."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + kind * _GOLDEN) % 1.0, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _pixels(image: Tensor, preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Values (h, w, 1 or 3) of an image (c, h, w), its preprocessing undone."""
    values = image.detach().to(torch.float64)
    if preprocessing.std is not None:
        values = values * torch.tensor(preprocessing.std, dtype=torch.float64).view(-1, 1, 1)
    if preprocessing.mean is not None:
        values = values + torch.tensor(preprocessing.mean, dtype=torch.float64).view(-1, 1, 1)
    if len(values) == 3 and preprocessing.channel_order is ChannelOrder.BGR:
        values = values.flip(0)
    if len(values) not in (1, 3):
        values = values.mean(dim=0, keepdim=True)
    if float(values.min()) < -_NEARLY or float(values.max()) > 1 + _NEARLY:
        values = _between_0_and_1(values)
    return np.asarray(values.permute(1, 2, 0).numpy())


def heat_map(values: Tensor, words: str) -> Picture:
    """Values (h, w) as shades of grey, the lowest black and the highest white."""
    scaled = _between_0_and_1(values.detach().to(torch.float64))
    return Picture(png=_png(scaled[:, :, None].numpy()), caption=words)


def _between_0_and_1(values: Tensor) -> Tensor:
    finite = torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = finite.min(), finite.max()
    return (finite - low) / (high - low) if float(high) > float(low) else torch.zeros_like(finite)


def _png(values: NDArray[np.float64]) -> bytes:
    """PNG of values (h, w, 1 or 3) in [0, 1], no side longer than 72 pixels, in at most 64 colours."""
    from PIL import Image

    pixels = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    return _saved(image)


def _saved(image: Image.Image) -> bytes:
    """PNG of at most 64 colours."""
    from PIL import Image

    if image.mode == "RGB":
        image = image.quantize(_COLOURS, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
