"""Convert pixels to the model's input by :class:`~edgeprune.artifacts.calibration.Preprocessing`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeprune.artifacts.calibration import ChannelOrder, Ground, Preprocessing
from edgeprune.calibration.geometry import Geometry, place
from edgeprune.calibration.limits import check_memory
from edgeprune.errors import CalibrationError, UsageError

_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as Pillow converts to grey."""

_WITH_ALPHA = 4

RANGE_SLACK = 0.05
"""Resampling may overshoot [0, 1] by a little; farther out, values are not plain pixels."""


def preprocess(pixels: Tensor, options: Preprocessing, *, channels: int | None, where: str) -> Tensor:
    """The model's input (channels, h, w) float32 of an image (channels, h, w), uint8 or float32.

    ``channels`` is the wanted number: grey is repeated, colour becomes grey, of four channels the last is
    transparency.

    Raises:
        CalibrationError: the image is smaller than the crop, or its values are no pixels.
        UsageError: mean or std have another number of values than it has channels.
    """
    if pixels.shape[0] == _WITH_ALPHA and channels in (1, 3):
        pixels = on_ground(pixels, options.ground)
    height, width = pixels.shape[1:]
    x = _placed(pixels, place((height, width), options, where), options.pad, where)
    x = x.to(torch.float32) / 255 if x.dtype == torch.uint8 else x
    x = convert_channels(x, channels)
    if options.channel_order is ChannelOrder.BGR and x.shape[0] == 3:
        x = x.flip(0)
    if options.mean is None and options.std is None:
        return x.contiguous()
    low, high = float(x.min()), float(x.max())
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise CalibrationError(
            f"{where} has floating-point values from {low:g} to {high:g}, but mean and std apply to pixels "
            "in [0, 1]; if the images are normalised already, leave --mean, --std and the card out, if they "
            "are in 0..255, divide them by 255 or save them as uint8"
        )
    return _normalise(x, options, where).contiguous()


def on_ground(pixels: Tensor, ground: Ground) -> Tensor:
    """Pixels without their last channel, transparency, laid on the ground; uint8 or float32 in [0, 1]."""
    most = 255.0 if pixels.dtype == torch.uint8 else 1.0
    values = pixels.to(torch.float32) / most
    colours, opacity = values[:-1], values[-1:]
    laid = colours * opacity + (1 - opacity) * (ground is Ground.WHITE)
    return (laid * 255).round().to(torch.uint8) if pixels.dtype == torch.uint8 else laid


def _placed(pixels: Tensor, geometry: Geometry, pad: int, where: str) -> Tensor:
    """The part of the resized image that is in the input, and grey around it where there are borders."""
    x = _resize(pixels, geometry.resized, where)
    height, width = geometry.output
    if x.shape[1] >= height and x.shape[2] >= width:
        top, left = -geometry.top, -geometry.left
        return x[:, top : top + height, left : left + width]
    grey = pad if x.dtype == torch.uint8 else pad / 255
    bordered = x.new_full((x.shape[0], height, width), grey)
    rows, columns = geometry.resized
    bordered[:, geometry.top : geometry.top + rows, geometry.left : geometry.left + columns] = x
    return bordered


def _resize(pixels: Tensor, size: tuple[int, int], where: str) -> Tensor:
    if tuple(pixels.shape[1:]) == size:
        return pixels
    needed_bytes = 4 * pixels.shape[0] * size[0] * size[1]
    check_memory(needed_bytes, len_text=f"{where} resized to {size[0]}x{size[1]} pixels")
    values = pixels.to(torch.float32).unsqueeze(0)
    if size[1] == 1:
        # torch (2.13) resamples the rows of a single column wrongly, but the columns of a single row rightly.
        resized = _interpolated(values.transpose(2, 3).contiguous(), size[::-1]).transpose(2, 3)[0]
    else:
        resized = _interpolated(values, size)[0]
    # Models were trained on images that Pillow resized, in whole steps of 1/255.
    return resized.round().clamp(0, 255).to(torch.uint8) if pixels.dtype == torch.uint8 else resized


def _interpolated(values: Tensor, size: tuple[int, int]) -> Tensor:
    return nn.functional.interpolate(values, size, mode="bilinear", align_corners=False, antialias=True)


def convert_channels(x: Tensor, channels: int | None) -> Tensor:
    """The image with the wanted number of channels where that is possible, else as it is."""
    if channels == 3 and x.shape[0] == 1:
        return x.expand(3, -1, -1)
    if channels == 1 and x.shape[0] == 3:
        return (x * torch.tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    return x


def _normalise(x: Tensor, options: Preprocessing, where: str) -> Tensor:
    mean, std = options.mean or (0.0,), options.std or (1.0,)
    for option, values in (("--mean", mean), ("--std", std)):
        if len(values) not in {1, x.shape[0]}:
            raise UsageError(
                f"{option} has {len(values)} values, but {where} has {x.shape[0]} channels; accepted is one "
                "value, or one per channel"
            )
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
