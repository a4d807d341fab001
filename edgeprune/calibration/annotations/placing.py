"""What an image shows, brought to the model's input, and that of all images together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.truth import ImageTruth, Truth
from edgeprune.calibration.annotations.boxes import to_input
from edgeprune.calibration.annotations.maps import placed_map
from edgeprune.calibration.geometry import Geometry
from edgeprune.errors import CalibrationError


def placed(truth: ImageTruth, options: Preprocessing, geometry: Geometry, where: str) -> ImageTruth:
    """The truth of one image in pixels of the model's input; values stay.

    Raises:
        CalibrationError: boxes or a map of an image of another size.
    """
    size = truth.boxes.size if truth.boxes is not None else None if truth.map is None else truth.map.shape
    if size is not None and tuple(size) != geometry.source:
        raise CalibrationError(
            f"the labels of {where} are of {size[0]}x{size[1]} pixels, and the image has "
            f"{geometry.source[0]}x{geometry.source[1]}; accepted is the size of the image (height x width)"
        )
    return ImageTruth(
        boxes=None if truth.boxes is None else to_input(truth.boxes, options),
        map=None if truth.map is None else placed_map(truth.map, geometry),
        values=truth.values,
    )


def joined(truths: Sequence[ImageTruth], where: str) -> Truth | None:
    """The truth of several images; ``None`` where they have none.

    Raises:
        CalibrationError: values of different shapes.
    """
    boxes = [truth.boxes for truth in truths if truth.boxes is not None]
    maps = [truth.map for truth in truths if truth.map is not None]
    values = [truth.values for truth in truths if truth.values is not None]
    if len({tuple(value.shape) for value in values}) > 1:
        raise CalibrationError(
            f"the labels of {where} differ in shape; accepted are as many values for every image"
        )
    if not (boxes or maps or values):
        return None
    return Truth(
        boxes=tuple(boxes) if boxes else None,
        maps=torch.stack(maps) if maps else None,
        values=torch.stack(values) if values else None,
    )
