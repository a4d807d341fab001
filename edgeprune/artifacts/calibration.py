"""Data types that calibration produces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from edgeprune.artifacts.model import InputShape, InputShapes
from edgeprune.artifacts.truth import Truth

if TYPE_CHECKING:
    from torch import Tensor


class ChannelOrder(Enum):
    """Order of the colour channels that the model expects."""

    RGB = "rgb"
    BGR = "bgr"


class Ground(Enum):
    """What shows through the transparent parts of an image."""

    BLACK = "black"
    WHITE = "white"


ImageSize = int | tuple[int, int]
"""Pixels of a side, or (height, width)."""
PAD_VALUE = 114
"""Grey of a letterbox's borders, of 0..255, as YOLO networks are trained with."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the model's input, in this order.

    Turned upright by its EXIF orientation where ``exif``, transparent parts laid on ``ground``; resized:
    ``resize`` is the shorter side, or (height, width) exactly, while ``letterbox``, a square's side or
    (height, width), keeps the ratio and fills the borders with ``pad`` (0..255); centre-cropped to ``crop``,
    a square's side or (height, width); scaled to [0, 1], channels put in ``channel_order``, then
    ``(x - mean) / std`` per channel. ``None`` leaves a step out; one mean/std value serves all channels.
    Resizing is bilinear and antialiased.
    """

    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    letterbox: int | tuple[int, int] | None = None
    pad: int = PAD_VALUE
    exif: bool = True
    ground: Ground = Ground.BLACK
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: ChannelOrder = ChannelOrder.RGB


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Preprocessed images (n, channels, height, width) float32 and labels (n,) int64 or ``None``.

    Of a model with several inputs ``images`` are rows (n, values) that join them, of the shapes ``joins``.
    ``truth``: what tasks other than classification judge by.

    ``class_scores``: whether a single output (n, c) is taken for scores of classes; not where the task is
    another one, such as embedding.
    """

    images: Tensor
    labels: Tensor | None
    class_scores: bool = True
    truth: Truth | None = None
    joins: InputShapes = ()

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def first(self, count: int) -> ImageBatch:
        """The first images with their labels."""
        return replace(
            self,
            images=self.images[:count],
            labels=None if self.labels is None else self.labels[:count],
            truth=None if self.truth is None else self.truth.first(count),
        )


@dataclass(frozen=True, kw_only=True)
class CalibrationSet:
    """The images that rank and recover (``fitting``) and those kept back to judge (``held_out``).

    ``fingerprint_sha256`` covers pixels before preprocessing, labels and preprocessing options.
    """

    fitting: ImageBatch
    held_out: ImageBatch
    preprocessing: Preprocessing
    source: str
    fingerprint_sha256: str
    class_names: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return self.fitting.labels is not None

    @property
    def input_shape(self) -> InputShape:
        """Shape of one image: (channels, height, width); (values,) where inputs are joined."""
        return tuple(int(s) for s in self.fitting.images.shape[1:])

    @property
    def input_shapes(self) -> InputShapes:
        """Shape of every input of the model."""
        return self.fitting.joins or (self.input_shape,)
