"""Interface of all image sources: the number of images, and access to one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

ACCEPTED = (
    "accepted are a folder of images (its sub-folders are the classes), an .npz file with 'images' and "
    "optionally 'labels', or package.module:function that returns a torch Dataset"
)
"""Second half of every message about a source that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class RawImage:
    """One image before preprocessing.

    ``pixels`` is (channels, height, width), uint8 0..255 or float32. ``label`` is the class, or ``None``.
    ``transformed``: made by the transforms of a Dataset, so no default preprocessing is added.
    """

    pixels: Tensor
    label: int | None
    transformed: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Images that are read one at a time, always in the same order.

    ``labels`` are those known before an image is read; a Dataset gives them only with each image.
    ``name_of`` names an image in a message.
    """

    text: str
    count: int
    read: Callable[[int], RawImage]
    name_of: Callable[[int], str]
    labels: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
