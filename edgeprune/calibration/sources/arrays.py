"""Images in an ``.npz`` file: ``images`` and, optionally, ``labels``."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.truth import ImageTruth
from edgeprune.calibration.limits import check_growth, check_memory
from edgeprune.calibration.pixels import channels_first, check_values, stored_bits
from edgeprune.calibration.sources.folders import IMAGE_EXTENSIONS
from edgeprune.calibration.sources.several import in_order, joined_items, raw_input
from edgeprune.calibration.sources.source import ACCEPTED, ImageSource, RawImage, ReadOptions, StoredForm
from edgeprune.errors import CalibrationError, ModelLoadError
from edgeprune.storage.archives import FileKind, detect_kind
from edgeprune.storage.zips import ARRAY_DAMAGE, IMAGE_LIMITS, ZipFaultError, check_zip

IMAGES, LABELS = "images", "labels"

Array = np.ndarray[Any, Any]
Reader = Callable[[int], RawImage]


def open_arrays(path: Path, options: ReadOptions) -> ImageSource:
    """Images of an ``.npz`` file; pickled objects in it are never run.

    ``images``: (n, h, w), (n, h, w, channels) or (n, channels, h, w), uint8 0..255, uint16 0..65535 or
    floating point; of a model of several inputs an array (n, ...) named after each. ``labels``: (n,) whole
    numbers from 0; maps of classes (n, h, w) for segmentation, values (n, ...) for regression.

    Raises:
        CalibrationError: another kind of file, damaged, or arrays that are not as above.
    """
    _check_kind(path)
    inputs, labels = _read(path, options.inputs)
    if len(inputs) == 1:
        (images,) = inputs.values()
        count, pixels = _of_images(images, path, options.channels)
    else:
        count, pixels = _of_inputs(inputs, path, options)
    truths = None if labels is None else _truths(labels, count, path, options.task)
    known = None
    if labels is not None and truths is None:
        known = tuple(int(label) for label in _labels(labels, count, path))

    def read(index: int) -> RawImage:
        label, truth = known[index] if known else None, truths[index] if truths else None
        return replace(pixels(index), label=label, truth=truth)

    return ImageSource(
        text=str(path),
        count=count,
        read=read,
        name_of=lambda index: f"image {index}",
        labels=known,
    )


def _of_images(images: Array, path: Path, channels: int | None) -> tuple[int, Reader]:
    """Number of images, and each of them."""
    values, stored = _images(images, path, channels), StoredForm(bits=stored_bits(images))

    def read(index: int) -> RawImage:
        pixels = torch.from_numpy(np.ascontiguousarray(values[index]).copy())
        return RawImage(pixels=check_values(pixels, f"image {index} of {str(path)!r}"), stored=stored)

    return len(values), read


def _of_inputs(inputs: Mapping[str, Array], path: Path, options: ReadOptions) -> tuple[int, Reader]:
    """Number of items, and the inputs of each, in the model's order."""
    names = in_order(inputs, options.inputs, repr(str(path)))
    counts = {name: len(inputs[name]) if inputs[name].ndim else 0 for name in names}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise CalibrationError(f"the arrays of {str(path)!r} differ in length ({told}); give one row an item")

    def read(index: int) -> RawImage:
        where = f"item {index} of {str(path)!r}"
        return joined_items([raw_input(inputs[name][index], options, f"{name} of {where}") for name in names])

    return counts[names[0]], read


def _check_kind(path: Path) -> None:
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        raise CalibrationError(f"{str(path)!r} is a single image; give the folder that holds the images")
    try:
        kind = detect_kind(path)
    except ModelLoadError as error:
        raise CalibrationError(f"{str(path)!r} cannot be read: unreadable or a damaged archive") from error
    if kind is not FileKind.NPZ:
        text = "a zip archive" if kind is FileKind.ZIP else kind.value
        raise CalibrationError(f"{str(path)!r} is {text}; {ACCEPTED}")


def _read(path: Path, wanted: Sequence[str]) -> tuple[dict[str, Array], Array | None]:
    """The arrays of the inputs, only ``images`` where there is one, and the labels."""
    try:
        check_zip(path, IMAGE_LIMITS)
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as data:
            names = _input_names(data.files, wanted, path)
            _check_sizes(archive, path, [*names, LABELS] if LABELS in data.files else names)
            return {name: data[name] for name in names}, data[LABELS] if LABELS in data.files else None
    except CalibrationError:
        raise
    except ZipFaultError as fault:
        raise CalibrationError(f"{str(path)!r} {fault}; copy or save it again") from fault
    except (*ARRAY_DAMAGE, OSError) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise CalibrationError(
                f"{str(path)!r} holds Python objects, which are not loaded since that could run code; "
                "save plain arrays: all images of one size, as uint8 or float32"
            ) from error
        raise CalibrationError(f"{str(path)!r} is damaged ({error}); copy or save it again") from error


def _input_names(given: Sequence[str], wanted: Sequence[str], path: Path) -> list[str]:
    """``images``, or all arrays but the labels of a file that has inputs of the model instead."""
    inputs = [name for name in given if name != LABELS]
    known = [name for name in inputs if name in wanted and name != IMAGES]
    if IMAGES in given and not known:
        return [IMAGES]
    if IMAGES in given and IMAGES not in wanted:
        raise CalibrationError(
            f"{str(path)!r} has {IMAGES!r} beside {', '.join(known)}, and the model's inputs are "
            f"{', '.join(wanted)}; name every array after its input"
        )
    if len(inputs) > 1 or (inputs and inputs == list(wanted[:1])):
        return inputs
    raise CalibrationError(
        f"{str(path)!r} has no array {IMAGES!r}; it has {', '.join(map(repr, given))}: save it with "
        "numpy.savez(path, images=..., labels=...)"
    )


def _check_sizes(archive: zipfile.ZipFile, path: Path, names: Sequence[str]) -> None:
    """Check the memory that the arrays need, from their headers and the archive's directory."""
    for name in names:
        shape, dtype = _header(archive, f"{name}.npy")
        if dtype.hasobject:
            continue  # refused by NumPy
        elements = math.prod(shape)
        stored_bytes = elements * dtype.itemsize
        if min(shape, default=0) < 0 or stored_bytes > archive.getinfo(f"{name}.npy").file_size:
            raise CalibrationError(
                f"{str(path)!r} is damaged (the array {name!r} is shorter than its shape {shape}); "
                "copy or save it again"
            )
        float_bytes = elements * np.dtype(np.float32).itemsize
        check_growth(float_bytes, path.stat().st_size, len_text=f"{path.name!r}")
        converted = 0 if dtype.kind == "u" else float_bytes
        check_memory(max(stored_bytes, converted), len_text=f"{path.name!r}")


def _header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
        if reader is None:
            reader = np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(stream)
    return shape, dtype


def _images(values: Array, path: Path, wanted: int | None) -> Array:
    """The images as (n, channels, h, w) in native byte order."""
    shape = values.shape
    first = True
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4:
        layout = channels_first(shape[1:], wanted)
        first = bool(layout)
        if layout is None:
            values = values[..., None]  # refused below
    if values.ndim != 4 or (values.size == 0 and len(values) > 0):
        raise CalibrationError(
            f"'images' in {str(path)!r} has the shape {shape}; accepted are (n, height, width), "
            "(n, height, width, channels) and (n, channels, height, width) with 1, 3 or 4 channels"
        )
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    elif values.dtype.kind != "f":
        raise CalibrationError(
            f"'images' in {str(path)!r} is of type {values.dtype}; accepted are uint8 in 0..255, uint16 in "
            "0..65535 and floating point in 0..1: convert with images.astype(numpy.uint8)"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise CalibrationError(
            f"'images' in {str(path)!r} has NaN or infinite values; accepted are finite values: repair it"
        )
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is refused when the image is read
            values = values.astype(np.float32, copy=False)
    return values if first else values.transpose(0, 3, 1, 2)


def _truths(values: Array, count: int, path: Path, task: Task) -> list[ImageTruth] | None:
    """What the images show for segmentation and regression; ``None`` where labels are classes of images."""
    where = f"'labels' in {str(path)!r}"
    if task is Task.SEGMENTATION and values.ndim > 1:
        if values.ndim != 3 or values.dtype.kind not in "iu" or len(values) != count:
            raise CalibrationError(
                f"{where} is of type {values.dtype} and shape {values.shape}; accepted for segmentation are "
                f"whole numbers ({count}, height, width)"
            )
        return [ImageTruth(map=torch.from_numpy(each.astype(np.int64))) for each in values]
    if task is Task.REGRESSION:
        if values.dtype.kind not in "iuf" or len(values) != count or not np.isfinite(values).all():
            raise CalibrationError(
                f"{where} is of type {values.dtype} and shape {values.shape}; accepted for regression are "
                f"finite numbers ({count}, ...)"
            )
        rows = values.astype(np.float32).reshape(count, *(values.shape[1:] or (1,)))
        return [ImageTruth(values=torch.from_numpy(each.copy())) for each in rows]
    return None


def _labels(values: Array, count: int, path: Path) -> Array:
    where = f"'labels' in {str(path)!r}"
    accepted = f"accepted are ({count},) whole numbers from 0, one per image; or leave 'labels' out"
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != count:
        raise CalibrationError(f"{where} has the shape {values.shape}, 'images' has {count}; {accepted}")
    if values.dtype.kind not in "iu":
        raise CalibrationError(f"{where} is of type {values.dtype}; {accepted}")
    if count and values.min() < 0:
        raise CalibrationError(f"{where} has the negative label {values.min()}; {accepted}")
    if count and values.max() > np.iinfo(np.int64).max:
        raise CalibrationError(f"{where} has the label {values.max()}, which no network has; {accepted}")
    return values
