"""Images and activations as small PNG pictures."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.artifacts.calibration import ChannelOrder, Preprocessing
from edgeprune.artifacts.illustrations import Picture
from edgeprune.artifacts.model import InputShapes, taken_apart

LONGEST_SIDE = 72
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
    return Picture(png=_png(values.permute(1, 2, 0).numpy()), caption=words)


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
    if image.mode == "RGB":
        image = image.quantize(_COLOURS, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
