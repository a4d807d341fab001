"""Boxes in the model's input, and the files of images that boxes are of."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.truth import Box, BoxLabels, ImageBoxes
from edgeprune.calibration.geometry import Geometry, place
from edgeprune.calibration.sources.folders import image_files, opened_image
from edgeprune.calibration.sources.pictures import upright_size
from edgeprune.errors import CalibrationError
from edgeprune.showing import first_few

NAMES_SHOWN = 3


def to_input(image: ImageBoxes, options: Preprocessing) -> ImageBoxes:
    """The boxes of an image in pixels of the model's input, after resizing, cropping or letterboxing.

    Boxes are cut at the edges of the input; those that lie outside of it are left out.

    Raises:
        CalibrationError: the image is smaller than the crop.
    """
    geometry = place(image.size, options, f"the image {image.file!r}")
    moved = (_moved(box, geometry).cut(geometry.output) for box in image.boxes)
    return ImageBoxes(
        file=image.file, size=geometry.output, boxes=tuple(box for box in moved if box.area > 0)
    )


def _moved(box: Box, geometry: Geometry) -> Box:
    x1, y1, x2, y2 = box.corners
    return replace(box, corners=(*geometry.to_input(x1, y1), *geometry.to_input(x2, y2)))


def files_of(folder: Path) -> dict[str, Path]:
    """Images below a folder by their names within it, in order.

    Raises:
        CalibrationError: it cannot be read, or has no images.
    """
    if not folder.is_dir():
        raise CalibrationError(
            f"{str(folder)!r} is no folder of images; name the folder that the boxes are of"
        )
    return {os.path.relpath(path, folder): path for path in image_files(folder)}


def size_of(path: Path, exif: bool) -> tuple[int, int]:
    """(height, width) of an image as calibration reads it, turned by EXIF or not, from its header alone.

    Raises:
        CalibrationError: it is no image.
    """
    return opened_image(path, lambda image: upright_size(image, exif))


def gathered(images: Sequence[ImageBoxes], class_names: Sequence[str], notes: Sequence[str]) -> BoxLabels:
    """All of them, without boxes that have no area, which a remark counts."""
    kept = tuple(replace(i, boxes=tuple(box for box in i.boxes if box.area > 0)) for i in images)
    empty = Counter({i.file: len(i.boxes) - len(k.boxes) for i, k in zip(images, kept, strict=True)})
    remarks = list(notes)
    if empty.total():
        files = first_few([repr(file) for file, count in empty.items() if count], NAMES_SHOWN)
        gone = "1 box without area was" if empty.total() == 1 else f"{empty.total()} boxes without area were"
        remarks.append(f"{gone} left out, of {files}")
    return BoxLabels(images=kept, class_names=tuple(class_names), notes=tuple(remarks))
