"""Split calibration images once, by image, into those for fitting and those for deciding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
    """Calibration images (n, *input shape); ``fitting`` and ``deciding`` are the indices of each part.

    Rows of one image are not independent, so all rows of an image belong to one part. Holds no copy of the
    images. With a single image, none decides. ``class_scores``: whether a single output (n, c) is that.
    """

    images: Tensor
    fitting: Tensor
    deciding: Tensor
    class_scores: bool = True

    def without_deciding(self, generator: torch.Generator) -> SplitImages:
        """Split the fitting images again, for a step whose result the deciding images judge.

        A result selected on an image looks too good on it and would be preferred over later results.
        """
        again = split_images(self.fitting, generator)
        return replace(self, fitting=self.fitting[again.fitting], deciding=self.fitting[again.deciding])

    def chunks(self, at_once: int) -> Iterator[tuple[Tensor, bool]]:
        """Yield indices of at most ``at_once`` images of one part, and whether they are for fitting."""
        for places, fits in ((self.fitting, True), (self.deciding, False)):
            for part in torch.split(places, at_once):
                if len(part):
                    yield part, fits


def split_images(images: Tensor, generator: torch.Generator) -> SplitImages:
    """Reserve a fifth of the images for deciding, a tenth of many, at least eight or half of fewer."""
    count = len(images)
    enough = max(min(DECIDING_SHARE * count, ENOUGH_DECIDING), LEAST_SHARE * count)
    held = max(round(enough), min(LEAST_DECIDING, count // 2))
    order = torch.randperm(count, generator=generator)
    return SplitImages(images=images, fitting=order[held:].sort().values, deciding=order[:held].sort().values)
