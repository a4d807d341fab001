"""Labels of held-out images as measures take them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.truth import Box, ImageBoxes, Truth
from edgeprune.errors import CalibrationError
from edgeprune.evaluation.base import Boxes, Labels
from edgeprune.parity import Outputs


def labels_of(batch: ImageBatch, original: Outputs) -> Labels:
    """Classes of the images, or what they show.

    Values are brought to the shape of the only output where they are as many.
    """
    truth = batch.truth or Truth()
    values = None if truth.values is None else truth.values.numpy()
    if values is not None and len(original) == 1 and values.size == original[0].size:
        values = values.reshape(original[0].shape)
    return Labels(
        classes=None if batch.labels is None else batch.labels.numpy(),
        boxes=None if truth.boxes is None else tuple(map(_boxes, truth.boxes)),
        maps=None if truth.maps is None else truth.maps.numpy(),
        values=values,
    )


def check_classes(batch: ImageBatch, scores: Sequence[int]) -> None:
    """Check that labels of images are classes of a model whose first output has the shape ``scores``.

    Raises:
        CalibrationError: the output is a single one, or a label is beyond its classes.
    """
    if batch.labels is None or not len(batch.labels) or len(scores) != 2:
        return
    classes, highest = int(scores[1]), int(batch.labels.max())
    if classes == 1:
        raise CalibrationError(
            "the calibration data have labels, but the model has a single output and no classes; give the "
            "images without labels"
        )
    if highest >= classes:
        raise CalibrationError(
            f"the calibration data have a label {highest}, but the model has {classes} classes (0 to "
            f"{classes - 1}); name the class folders in the model's order, or give the images without labels."
        )


def _boxes(image: ImageBoxes) -> Boxes:
    objects = [box for box in image.boxes if not box.ignore]
    crowds = [box for box in image.boxes if box.ignore]
    return Boxes(
        _corners(objects), _classes(objects), crowds=_corners(crowds), crowd_classes=_classes(crowds)
    )


def _corners(boxes: Sequence[Box]) -> NDArray[np.float64]:
    return np.array([box.corners for box in boxes], dtype=np.float64).reshape(-1, 4)


def _classes(boxes: Sequence[Box]) -> NDArray[np.int64]:
    return np.array([box.class_index for box in boxes], dtype=np.int64)
