"""Convert pixels to the model's input by :class:`~edgeprune.artifacts.calibration.Preprocessing`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeprune import limits
from edgeprune.artifacts.calibration import ChannelOrder, Preprocessing
from edgeprune.errors import CalibrationError, UsageError

_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as Pillow converts to grey."""

RANGE_SLACK = 0.05
"""Resampling may overshoot [0, 1] by a little; farther out, values are not plain pixels."""


def check_preprocessing(options: Preprocessing) -> None:
    """Reject values that cannot be applied to any image.

    Raises:
        UsageError: names the option, its value and what is accepted.
    """
    limits.PIXELS.check("--resize", options.resize)
    limits.PIXELS.check("--crop", options.crop)
    limits.MEANS.check("--mean", options.mean)
    limits.DEVIATIONS.check("--std", options.std)
    limits.check_counts(options.mean, options.std)


def preprocess(pixels: Tensor, options: Preprocessing, *, channels: int | None, where: str) -> Tensor:
    """The model's input (channels, h, w) float32 of an image (channels, h, w), uint8 or float32.

    ``channels`` is the wanted number: grey is repeated, colour becomes grey, transparency is dropped.

    Raises:
        CalibrationError: the image is smaller than the crop, or its values are no pixels.
        UsageError: mean or std have another number of values than it has channels.
    """
    x = _resize_shorter_side(pixels, options.resize)
    x = _crop_centre(x, options.crop, where)
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


def _resize_shorter_side(pixels: Tensor, size: int | None) -> Tensor:
    height, width = pixels.shape[1:]
    if size is None or min(height, width) == size:
        return pixels
    longer = int(size * max(height, width) / min(height, width))
    shape = (longer, size) if height > width else (size, longer)
    resized = nn.functional.interpolate(
        pixels.to(torch.float32).unsqueeze(0), shape, mode="bilinear", align_corners=False, antialias=True
    )[0]
    # Models were trained on images that Pillow resized, in whole steps of 1/255.
    return resized.round().clamp(0, 255).to(torch.uint8) if pixels.dtype == torch.uint8 else resized


def _crop_centre(pixels: Tensor, size: int | None, where: str) -> Tensor:
    if size is None:
        return pixels
    height, width = pixels.shape[1:]
    if min(height, width) < size:
        raise CalibrationError(
            f"{where} is {height}x{width} pixels, smaller than --crop {size}; give --resize {size} or more, "
            "or a smaller --crop"
        )
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[:, top : top + size, left : left + size]


def convert_channels(x: Tensor, channels: int | None) -> Tensor:
    """The image with the wanted number of channels where that is possible, else as it is."""
    if channels == 3 and x.shape[0] == 1:
        return x.expand(3, -1, -1)
    if channels == 1 and x.shape[0] == 3:
        return (x * torch.tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    if channels == 3 and x.shape[0] == 4:
        return x[:3]
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
