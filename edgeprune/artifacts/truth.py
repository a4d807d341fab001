"""What images show, as tasks other than classification judge by: boxes, maps of classes, or values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeprune.errors import CalibrationError
from edgeprune.showing import in_short

if TYPE_CHECKING:
    from torch import Tensor

NOWHERE = 255
"""Class of pixels in a map that count nowhere."""
_SLACK_PIXELS = 1.0
"""Files round: boxes may be so far beyond the edge of their image, and are cut there."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """An object: its corners (x1, y1, x2, y2) in pixels from the outer edge of pixel 0, and its class.

    ``ignore`` marks what neither counts as an object nor, where a network finds it, as an error (a crowd).
    """

    corners: tuple[float, float, float, float]
    class_index: int
    ignore: bool = False

    def cut(self, size: tuple[int, int]) -> Box:
        """The part inside an image of (height, width); its sides may be 0."""
        height, width = size
        x1, x2 = (min(max(self.corners[k], 0.0), float(width)) for k in (0, 2))
        y1, y2 = (min(max(self.corners[k], 0.0), float(height)) for k in (1, 3))
        return replace(self, corners=(x1, y1, x2, y2))

    @property
    def area(self) -> float:
        """In square pixels."""
        x1, y1, x2, y2 = self.corners
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True, kw_only=True)
class ImageBoxes:
    """The objects of an image of (height, width) pixels; ``file`` names it within its folder."""

    file: str
    size: tuple[int, int]
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BoxLabels:
    """The objects of all images in the order of their files, names of the classes, and remarks."""

    images: tuple[ImageBoxes, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


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


def checked_box(box: Box, size: tuple[int, int], classes: Sequence[str], where: str) -> Box:
    """The box inside its image of (height, width), cut at the edges by a pixel at most.

    ``where`` names it at the beginning of a message.

    Raises:
        CalibrationError: NaN or infinite, a corner before the first, outside of the image, or no such class.
    """
    shown = ", ".join(f"{value:g}" for value in box.corners)
    if not all(map(math.isfinite, box.corners)):
        raise CalibrationError(f"{where} has the box ({shown}); accepted are finite numbers: correct it")
    x1, y1, x2, y2 = box.corners
    if x2 < x1 or y2 < y1:
        raise CalibrationError(
            f"{where} has a box of negative size, (x1, y1, x2, y2) = ({shown}); accepted are widths and "
            "heights from 0: correct it"
        )
    inside = box.cut(size)
    beyond = max(abs(a - b) for a, b in zip(inside.corners, box.corners, strict=True))
    if beyond > _SLACK_PIXELS:
        raise CalibrationError(
            f"{where} has a box outside of its image of {size[0]}x{size[1]} pixels, (x1, y1, x2, y2) = "
            f"({shown}); accepted are boxes inside: correct it, or the size of the image"
        )
    if not 0 <= box.class_index < len(classes):
        raise CalibrationError(
            f"{where} has the class {box.class_index}, but there are {len(classes)} names of classes "
            f"({in_short(tuple(classes))}); accepted are classes from 0 to {len(classes) - 1}"
        )
    return inside
