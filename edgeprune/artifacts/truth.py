"""What images show, as tasks other than classification judge by: boxes, maps of classes, or values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.artifacts.boxes import ImageBoxes

if TYPE_CHECKING:
    from torch import Tensor

NOWHERE = 255
"""Class of pixels in a map that count nowhere."""


@dataclass(frozen=True, kw_only=True)
class ImageTruth:
    """One image's objects, its map of classes (h, w) int64, or the values (...) float32 to be predicted."""

    boxes: ImageBoxes | None = None
    map: Tensor | None = None
    values: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Of n images: objects in pixels of the model's input, ``maps`` (n, h, w), or ``values`` (n, ...)."""

    boxes: tuple[ImageBoxes, ...] | None = None
    maps: Tensor | None = None
    values: Tensor | None = None

    def first(self, count: int) -> Truth:
        """Those of the first images."""
        return Truth(
            boxes=None if self.boxes is None else self.boxes[:count],
            maps=None if self.maps is None else self.maps[:count],
            values=None if self.values is None else self.values[:count],
        )
