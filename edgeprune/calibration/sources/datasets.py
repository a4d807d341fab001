"""Images of a torch Dataset, given as an object or by the function that returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from edgeprune.calibration.annotations.items import truth_of_item
from edgeprune.calibration.pixels import check_values, from_array, from_tensor, stored_bits
from edgeprune.calibration.sources.pictures import from_pil
from edgeprune.calibration.sources.several import in_order, joined_items, raw_input
from edgeprune.calibration.sources.source import ImageSource, RawImage, ReadOptions, StoredForm
from edgeprune.errors import CalibrationError
from edgeprune.system.imports import call_user_function, ended_in_the_open, told, user_code

_LABEL = "label"
"""Of an item that is a dictionary; the others are inputs."""


def open_dataset_function(spec: str, options: ReadOptions) -> ImageSource:
    """Images of the Dataset that ``package.module:function`` returns.

    Raises:
        CalibrationError: the function is missing or raises, or returns something else.
    """
    dataset = call_user_function(spec, what="calibration function", error=CalibrationError)
    return open_dataset(dataset, options, text=spec)


def open_dataset(dataset: Any, options: ReadOptions, *, text: str) -> ImageSource:
    """Images of a map-style Dataset; an item is an image, starts with (image, label) or is a dictionary
    of an image, or inputs by name, and ``label``.

    In the place of the image there may be several inputs, in the model's order or by name.
    For segmentation a label is a map (h, w), for regression values, and for detection a dictionary of
    ``boxes`` (k, 4) as x1 y1 x2 y2 and ``labels`` (k,), as the references of torchvision have it.

    EXIF orientations are not applied: the Dataset decides how its images are turned.

    Raises:
        CalibrationError: no map-style Dataset, or its first item cannot be used.
    """
    count = _length(dataset, text)
    options = replace(options, exif=False)

    def read(index: int) -> RawImage:
        where = f"item {index} of {text}"
        try:
            with ended_in_the_open():
                return _raw(dataset[index], options, where)
        except CalibrationError:
            raise
        except Exception as error:
            raise CalibrationError(f"{where} cannot be read: {told(error)}; repair the Dataset") from error

    notes = []
    if count and not torch.equal(read(0).pixels, read(0).pixels):
        notes.append(
            f"{text} gives another image each time that an item is read (random augmentation?), so "
            "figures depend on chance: use the transforms of validation"
        )
    return ImageSource(
        text=text,
        count=count,
        read=read,
        from_files=False,
        name_of=lambda index: f"item {index}",
        class_names=_class_names(dataset),
        notes=tuple(notes),
    )


def _length(dataset: Any, text: str) -> int:
    if isinstance(dataset, DataLoader):
        raise CalibrationError(f"{text} is a DataLoader; return the Dataset inside it, its .dataset")
    usable = hasattr(dataset, "__getitem__") and not isinstance(dataset, (str, bytes, dict))
    try:
        with ended_in_the_open():
            return len(dataset) if usable else _refuse(dataset, text)
    except (TypeError, NotImplementedError):
        return _refuse(dataset, text)
    except CalibrationError:
        raise
    except Exception as error:
        raise CalibrationError(
            f"{text} does not tell its length: {told(error)}; repair the Dataset"
        ) from error


def _refuse(dataset: Any, text: str) -> int:
    raise CalibrationError(
        f"{text} is of type {type(dataset).__name__}; accepted is a torch Dataset with a length whose items "
        "are images or (image, label)"
    )


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    with user_code("the attribute 'classes' of the Dataset", CalibrationError, "repair the Dataset"):
        names = getattr(dataset, "classes", None)
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def _raw(item: Any, options: ReadOptions, where: str) -> RawImage:
    image, label = item, None
    if isinstance(item, (tuple, list)) and item:
        image, label = item[0], item[1] if len(item) > 1 else None
    elif isinstance(item, Mapping):
        label = item.get(_LABEL)
        image = {name: value for name, value in item.items() if name != _LABEL}
        image = next(iter(image.values())) if len(image) == 1 else image
    several = isinstance(image, (tuple, list, Mapping)) and len(image) > 0
    truth = None if label is None else truth_of_item(label, image, options.task, where)
    number = None if label is None or truth is not None else _label(label, where)
    pixels = _inputs(image, options, where) if several else _pixels(image, options, where)
    return replace(pixels, label=number, truth=truth)


def _inputs(given: Any, options: ReadOptions, where: str) -> RawImage:
    """Several inputs in a sequence, or by name."""
    if isinstance(given, Mapping):
        given = [given[name] for name in in_order(given, options.inputs, where)]
    return joined_items(
        [raw_input(each, options, f"input {place} of {where}") for place, each in enumerate(given)]
    )


def _pixels(image: Any, options: ReadOptions, where: str) -> RawImage:
    if isinstance(image, Image.Image):
        decoded = _decode(image, options, where)
        return replace(decoded, pixels=check_values(decoded.pixels, where))
    if isinstance(image, np.ndarray):
        return RawImage(
            pixels=from_array(image, where, wanted=options.channels),
            stored=StoredForm(bits=stored_bits(image)),
        )
    if isinstance(image, Tensor):
        return RawImage(
            pixels=from_tensor(image, where, wanted=options.channels),
            transformed=image.is_floating_point(),
            stored=StoredForm(bits=stored_bits(image)),
        )
    raise CalibrationError(
        f"{where} holds a {type(image).__name__} where the image should be; accepted are a tensor, a NumPy "
        "array or a PIL image, alone or first in (image, label)"
    )


def _decode(image: Image.Image, options: ReadOptions, where: str) -> RawImage:
    try:
        return from_pil(image, options)
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{where} is a damaged image ({error}); replace or remove it") from error


def _label(label: Any, where: str) -> int:
    accepted = "accepted is a whole number from 0, or images without labels"
    single = isinstance(label, (Tensor, np.ndarray)) and label.shape in {(), (1,)}
    value = label.item() if single else label
    if not isinstance(value, Integral) or isinstance(value, bool):
        shown = repr(value) if np.ndim(value) == 0 else f"of shape {tuple(np.shape(value))}"
        raise CalibrationError(f"the label of {where} is a {type(label).__name__} {shown}; {accepted}")
    if value < 0:
        raise CalibrationError(f"the label of {where} is negative ({value}); {accepted}")
    return int(value)
