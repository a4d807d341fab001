"""Other images out of those at hand: mirrored, shifted, mixed, with pieces of each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def varied(images: Tensor, shift_share: float, generator: torch.Generator) -> Tensor:
    """Each image mirrored half of the time and shifted by up to a share of its size, edges repeated."""
    if images.dim() != 4:
        return images
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    found = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    reach = [max(0, round(shift_share * size)) for size in images.shape[-2:]]
    if max(reach) == 0:
        return found
    padded = functional.pad(found, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    tops = torch.randint(0, 2 * reach[0] + 1, (len(images),), generator=generator)
    lefts = torch.randint(0, 2 * reach[1] + 1, (len(images),), generator=generator)
    rows = tops[:, None] + torch.arange(images.shape[-2])
    columns = lefts[:, None] + torch.arange(images.shape[-1])
    number = torch.arange(len(images))
    shifted = padded[number[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2).contiguous()


def mixed(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the images, each with up to half of another one on top (cf. mixup, arXiv 1710.09412).

    The original answers for what is shown, so there is no label to mix; between two images it is less sure
    than on images that it was trained on, and tells more.
    """
    count = round(share * len(images))
    if count < 2:
        return images
    weight = 0.5 * torch.rand(count, *[1] * (images.dim() - 1), generator=generator)
    partner = images[torch.randperm(len(images), generator=generator)[:count]]
    return torch.cat([(1 - weight) * images[:count] + weight * partner, images[count:]])


def pasted(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the images, each with a rectangle of another one in the same place (CutMix, 1905.04899).

    Its sides are a quarter to three quarters of the image's. The original answers for what is shown.
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
