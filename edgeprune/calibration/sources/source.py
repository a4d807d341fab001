"""Interface of all image sources: the number of images, and access to one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from edgeprune.artifacts.calibration import Ground, Preprocessing
from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.truth import ImageTruth

ACCEPTED = (
    "accepted are a folder of images (its sub-folders are the classes), an .npz file with 'images' and "
    "optionally 'labels' (for a model of several inputs, an array named after each), or "
    "package.module:function that returns a torch Dataset"
)
"""Second half of every message about a source that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How images are read: the model's number of channels where known, and what changes stored pixels.

    ``task`` decides what labels are: classes, or what :class:`~edgeprune.artifacts.truth.ImageTruth` has.
    ``inputs`` are the names of the model's inputs in their order, where known.
    """

    channels: int | None = None
    task: Task = Task.AUTO
    exif: bool = True
    ground: Ground = Ground.BLACK
    inputs: tuple[str, ...] = ()

    def with_preprocessing(self, options: Preprocessing | None) -> ReadOptions:
        """The same, with what the preprocessing says of stored pixels."""
        given = options or Preprocessing()
        return replace(self, exif=given.exif, ground=given.ground)


@dataclass(frozen=True, kw_only=True)
class StoredForm:
    """How an image was stored, where that differs from grey or RGB in 8 bits.

    ``kind`` has words such as ``CMYK`` where the channels were converted. ``bits`` are those of a whole
    number, its sign among them if ``signed``; ``None`` of floating point. ``reduced``: of more than 8 bits, 8
    were read. ``transparent``: parts of it were laid on the ground. ``orientation`` is that of EXIF: 1 is
    upright, 0 cannot be read.
    """

    kind: str | None = None
    bits: int | None = 8
    signed: bool = False
    reduced: bool = False
    transparent: bool = False
    orientation: int = 1

    @property
    def largest(self) -> int | None:
        """The whole number that becomes 1; ``None`` of floating point."""
        return None if self.bits is None else 2 ** (self.bits - self.signed) - 1


@dataclass(frozen=True, kw_only=True)
class RawImage:
    """One image before preprocessing.

    ``pixels`` is (channels, height, width), uint8 0..255 or float32. ``label`` is the class, or ``None``;
    ``truth`` is what other tasks judge by, in pixels of this image. ``further`` are the other inputs of a
    model of several; of one that is not ``is_image``, ``pixels`` are numbers of any shape, left as they are.
    ``transformed``: made by the transforms of a Dataset, so no default preprocessing is added.
    """

    pixels: Tensor
    label: int | None = None
    transformed: bool = False
    stored: StoredForm = StoredForm()
    truth: ImageTruth | None = None
    is_image: bool = True
    further: tuple[RawImage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Images that are read one at a time, always in the same order.

    ``labels`` are those known before an image is read; a Dataset gives them only with each image.
    ``from_files``: edgeprune reads the files of images itself. ``name_of`` names an image in a message.
    """

    text: str
    count: int
    read: Callable[[int], RawImage]
    name_of: Callable[[int], str]
    from_files: bool = True
    labels: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
