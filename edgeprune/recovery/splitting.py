"""Images that recovery fits to, and images that decide what of it is kept: split once, by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

DECIDING_SHARE = 0.2
ENOUGH_DECIDING = 100
"""Beyond so many only a tenth of the images decides: the others tell more by being fitted to."""
LEAST_SHARE = 0.1
LEAST_DECIDING = 8
"""Fewer than that hardly tell two networks apart; of less than twice as many images half decide."""


@dataclass(frozen=True, kw_only=True)
class SplitImages:
    """Calibration images (n, *input shape), ``fitting`` and ``deciding`` the places of either kind.

    Rows of one image are not independent, so that an image is of one kind with all its rows. Holds no copy of
    the images. With a single image none decides.
    """

    images: Tensor
    fitting: Tensor
    deciding: Tensor

    def without_deciding(self, generator: torch.Generator) -> SplitImages:
        """Those that are fitted to, split once more, for a step whose result the deciding images judge.

        What was chosen by an image looks better on it than it is, and would be preferred to what follows.
        """
        again = split_images(self.fitting, generator)
        return SplitImages(
            images=self.images,
            fitting=self.fitting[again.fitting],
            deciding=self.fitting[again.deciding],
        )

    def chunks(self, at_once: int) -> Iterator[tuple[Tensor, bool]]:
        """Places of at most ``at_once`` images of one kind, and whether they are fitted to."""
        for places, fits in ((self.fitting, True), (self.deciding, False)):
            for part in torch.split(places, at_once):
                if len(part):
                    yield part, fits


def split_images(images: Tensor, generator: torch.Generator) -> SplitImages:
    """Keep a fifth of the images to decide, a tenth of many, at least eight or half of fewer."""
    count = len(images)
    enough = max(min(DECIDING_SHARE * count, ENOUGH_DECIDING), LEAST_SHARE * count)
    held = max(round(enough), min(LEAST_DECIDING, count // 2))
    order = torch.randperm(count, generator=generator)
    return SplitImages(images=images, fitting=order[held:].sort().values, deciding=order[:held].sort().values)
