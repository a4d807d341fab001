"""Images in an ``.npz`` file: ``images`` and, optionally, ``labels``."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.truth import ImageTruth
from edgeprune.calibration.folders import IMAGE_EXTENSIONS
from edgeprune.calibration.limits import check_growth, check_memory
from edgeprune.calibration.pixels import channels_first, check_values, stored_bits
from edgeprune.calibration.source import ACCEPTED, ImageSource, RawImage, ReadOptions, StoredForm
from edgeprune.errors import CalibrationError, ModelLoadError
from edgeprune.storage.archives import FileKind, detect_kind
from edgeprune.storage.zips import ARRAY_DAMAGE, IMAGE_LIMITS, ZipFaultError, check_zip

IMAGES, LABELS = "images", "labels"

Array = np.ndarray[Any, Any]


def open_arrays(path: Path, options: ReadOptions) -> ImageSource:
    """Images of an ``.npz`` file; pickled objects in it are never run.

    ``images``: (n, h, w), (n, h, w, channels) or (n, channels, h, w), uint8 0..255, uint16 0..65535 or
    floating point. ``labels``: (n,) whole numbers from 0; maps of classes (n, h, w) for segmentation, values
    (n, ...) for regression.

    Raises:
        CalibrationError: another kind of file, damaged, or arrays that are not as above.
    """
    _check_kind(path)
    images, labels = _read(path)
    values = _images(images, path, options.channels)
    truths = None if labels is None else _truths(labels, len(values), path, options.task)
    known = None
    if labels is not None and truths is None:
        known = tuple(int(label) for label in _labels(labels, len(values), path))
    stored = StoredForm(bits=stored_bits(images))

    def read(index: int) -> RawImage:
        where = f"image {index} of {str(path)!r}"
        pixels = torch.from_numpy(np.ascontiguousarray(values[index]).copy())
        return RawImage(
            pixels=check_values(pixels, where),
            label=known[index] if known else None,
            stored=stored,
            truth=truths[index] if truths else None,
        )

    return ImageSource(
        text=str(path),
        count=len(values),
        read=read,
        name_of=lambda index: f"image {index}",
        labels=known,
    )


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


def _read(path: Path) -> tuple[Array, Array | None]:
    try:
        check_zip(path, IMAGE_LIMITS)
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as data:
            if IMAGES not in data.files:
                names = ", ".join(repr(name) for name in data.files)
                raise CalibrationError(
                    f"{str(path)!r} has no array {IMAGES!r}; it has {names}: save it with "
                    "numpy.savez(path, images=..., labels=...)"
                )
            _check_sizes(archive, path, data.files)
            return data[IMAGES], data[LABELS] if LABELS in data.files else None
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


def _check_sizes(archive: zipfile.ZipFile, path: Path, names: list[str]) -> None:
    """Check the memory that the arrays need, from their headers and the archive's directory."""
    for name in {IMAGES, LABELS} & set(names):
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
            f"'images' in {str(path)!r} has NaN or infinite values; accepted are finite pixels: repair it"
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
