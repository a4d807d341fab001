"""Augment calibration images: mirroring, shifting, mixup and CutMix."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def varied(images: Tensor, shift_share: float, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability 0.5 and shift it by up to a share of its size, edges replicated."""
    if images.dim() != 4:
        return images
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    flipped = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    reach = [max(0, round(shift_share * size)) for size in images.shape[-2:]]
    if max(reach) == 0:
        return flipped
    padded = functional.pad(flipped, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    tops = torch.randint(0, 2 * reach[0] + 1, (len(images),), generator=generator)
    lefts = torch.randint(0, 2 * reach[1] + 1, (len(images),), generator=generator)
    rows = tops[:, None] + torch.arange(images.shape[-2])
    columns = lefts[:, None] + torch.arange(images.shape[-1])
    number = torch.arange(len(images))
    shifted = padded[number[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2).contiguous()


def mixed(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Blend a share of the images with up to half of another image (cf. mixup, arXiv 1710.09412).

    The teacher labels the mixed images, so there are no labels to mix; on them it is less confident than on
    its training images, which is more informative.
    """
    count = round(share * len(images))
    if count < 2:
        return images
    weight = 0.5 * torch.rand(count, *[1] * (images.dim() - 1), generator=generator)
    partner = images[torch.randperm(len(images), generator=generator)[:count]]
    return torch.cat([(1 - weight) * images[:count] + weight * partner, images[count:]])


def pasted(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Paste a rectangle of another image in the same place into a share of the images (CutMix, 1905.04899).

    Its sides are a quarter to three quarters of the image's. The teacher labels the result.
    """
    count = round(share * len(images))
    if count < 1 or len(images) < 2 or images.dim() != 4:
        return images
    inside = torch.ones(count, *images.shape[-2:], dtype=torch.bool)
    for axis, size in enumerate(images.shape[-2:]):
        shortest = max(1, size // 4)
        length = torch.randint(shortest, max(shortest, 3 * size // 4) + 1, (count,), generator=generator)
        start = (torch.rand(count, generator=generator) * (size - length + 1)).long()
        place = torch.arange(size)
        along = (place >= start[:, None]) & (place < (start + length)[:, None])
        inside &= along.unsqueeze(2 - axis)
    partner = images[torch.randperm(len(images), generator=generator)[:count]]
    return torch.cat([torch.where(inside.unsqueeze(1), partner, images[:count]), images[count:]])
