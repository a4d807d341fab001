"""Where an image lies in the model's input: the arithmetic of resizing, cropping and letterboxing."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.artifacts.calibration import ImageSize, Preprocessing
from edgeprune.errors import CalibrationError
from edgeprune.options.cards import shown_size


@dataclass(frozen=True)
class Geometry:
    """An image of ``source`` pixels, resized to ``resized``, with its corner at (top, left) of ``output``.

    Sizes are (height, width). Offsets are negative where the input is a part of the resized image (crop) and
    positive where it has borders (letterbox).
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    output: tuple[int, int]
    top: int = 0
    left: int = 0

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the input for one pixel of the image, (down, across)."""
        return self.resized[0] / self.source[0], self.resized[1] / self.source[1]

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """Where (x, y) of the image is in the input; both count from the outer edge of pixel 0."""
        down, across = self.scale
        return x * across + self.left, y * down + self.top


def place(source: tuple[int, int], options: Preprocessing, where: str) -> Geometry:
    """Geometry of an image of (height, width) pixels, named ``where`` in a message.

    Raises:
        CalibrationError: the image is smaller than the crop.
    """
    if options.letterbox is not None:
        return _letterbox(source, _both(options.letterbox))
    resized = _resized(source, options.resize)
    if options.crop is None:
        return Geometry(source, resized, resized)
    crop = _both(options.crop)
    if resized[0] < crop[0] or resized[1] < crop[1]:
        raise CalibrationError(
            f"{where} is {resized[0]}x{resized[1]} pixels, smaller than --crop {shown_size(options.crop)}; "
            f"give --resize {max(crop)} or more, or a smaller --crop"
        )
    top, left = round((resized[0] - crop[0]) / 2), round((resized[1] - crop[1]) / 2)
    return Geometry(source, resized, crop, top=-top, left=-left)


def _both(size: ImageSize) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _resized(source: tuple[int, int], size: ImageSize | None) -> tuple[int, int]:
    height, width = source
    if size is None:
        return source
    if not isinstance(size, int):
        return size
    longer = int(size * max(source) / min(source))
    return (longer, size) if height > width else (size, longer)


def _letterbox(source: tuple[int, int], output: tuple[int, int]) -> Geometry:
    """The largest size of the same ratio, in the middle; an odd row or column goes to the end."""
    ratio = min(output[0] / source[0], output[1] / source[1])
    resized = tuple(min(max(round(side * ratio), 1), most) for side, most in zip(source, output, strict=True))
    height, width = resized
    top, left = (output[0] - height) // 2, (output[1] - width) // 2
    return Geometry(source, (height, width), output, top, left)
