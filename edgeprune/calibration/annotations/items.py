"""What the items of a Dataset say of their images: boxes, maps of classes, or values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.truth import Box, ImageBoxes, ImageTruth, checked_box
from edgeprune.errors import CalibrationError

_BOXES, _CLASSES, _CROWD = "boxes", "labels", "iscrowd"


def truth_of_item(label: Any, image: Any, task: Task, where: str) -> ImageTruth | None:
    """The label of an item as the task judges by it; ``None`` where labels are classes of images.

    Raises:
        CalibrationError: it is of another kind; says what is accepted.
    """
    if task is Task.DETECTION and isinstance(label, Mapping):
        return ImageTruth(boxes=_boxes(label, _size(image), where))
    if task is Task.SEGMENTATION and np.ndim(_array(label, where)) == 2:
        classes = _array(label, where)
        if classes.dtype.kind not in "iub":
            raise CalibrationError(
                f"the map of {where} is of type {classes.dtype}; accepted are whole numbers of classes"
            )
        return ImageTruth(map=torch.from_numpy(classes.astype(np.int64)))
    if task is Task.REGRESSION:
        values = _array(label, where)
        if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise CalibrationError(
                f"the values of {where} are of type {values.dtype}; accepted are finite numbers"
            )
        return ImageTruth(values=torch.from_numpy(np.atleast_1d(values).astype(np.float32)))
    return None


def _size(image: Any) -> tuple[int, int]:
    """(height, width) of a tensor (c, h, w), an array (h, w) or (h, w, c), or a PIL image."""
    if isinstance(image, Tensor):
        return int(image.shape[-2]), int(image.shape[-1])
    if isinstance(image, np.ndarray):
        return int(image.shape[0]), int(image.shape[1])
    width, height = image.size
    return height, width


def _boxes(label: Mapping[str, Any], size: tuple[int, int], where: str) -> ImageBoxes:
    missing = [name for name in (_BOXES, _CLASSES) if name not in label]
    if missing:
        raise CalibrationError(
            f"the label of {where} has no {missing[0]!r}; accepted is a dictionary of {_BOXES!r} (k, 4) as "
            f"x1 y1 x2 y2 and {_CLASSES!r} (k,)"
        )
    corners = _array(label[_BOXES], where).reshape(-1, 4)
    classes = _array(label[_CLASSES], where).reshape(-1)
    crowd = _array(label.get(_CROWD, np.zeros(len(classes))), where).reshape(-1)
    if not len(corners) == len(classes) == len(crowd):
        raise CalibrationError(
            f"the label of {where} has {len(corners)} boxes and {len(classes)} classes; accepted is one each"
        )
    names = tuple(map(str, range(int(classes.max(initial=-1)) + 1)))
    boxes = (
        Box(corners=(x1, y1, x2, y2), class_index=int(number), ignore=bool(ignored))
        for (x1, y1, x2, y2), number, ignored in zip(corners.tolist(), classes, crowd, strict=True)
    )
    return ImageBoxes(
        file=where,
        size=size,
        boxes=tuple(checked_box(box, size, names, f"the label of {where}") for box in boxes),
    )


def _array(value: Any, where: str) -> NDArray[Any]:
    try:
        return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    except ValueError as error:
        raise CalibrationError(
            f"the label of {where} is no array ({error}); accepted are tensors, arrays and numbers"
        ) from error
