"""Images of a folder with what they show, as ``--task`` judges by: boxes, maps of classes, or values."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.truth import ImageTruth
from edgeprune.calibration.annotations.coco import read_coco
from edgeprune.calibration.annotations.label_file import find_labels, lists_any
from edgeprune.calibration.annotations.maps import MAP_SUFFIX, read_map
from edgeprune.calibration.annotations.values import read_values, value_rows
from edgeprune.calibration.annotations.yolo import read_yolo
from edgeprune.calibration.sources.folders import image_files, source_of_files
from edgeprune.calibration.sources.source import ImageSource, RawImage, ReadOptions
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.notes import Fact
from edgeprune.showing import first_few

_NAMES_SHOWN = 3
_COCO_SUFFIX = ".json"
_NAMES = "classes.txt"
_MOST_CLASSES = 10_000
"""Of texts without names of classes."""


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What each image shows, by its place among the files, names of the classes, and remarks."""

    truth: Callable[[int], ImageTruth]
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def check_labels(labels: Path | None, task: Task) -> None:
    """Check before anything is read that labels are not plainly those of another task.

    Raises:
        UsageError: they are.
    """
    if labels is None:
        return
    if task is Task.EMBEDDING:
        raise UsageError(
            f"--labels {str(labels)!r} was given with --task embedding, which is judged by the original's "
            "own embeddings; leave it out"
        )
    if task not in TASKS and labels.is_file() and labels.suffix.lower() == _COCO_SUFFIX:
        raise UsageError(
            f"--labels {str(labels)!r} was given without --task detection; accepted are a CSV file with the "
            "header file,label, or boxes with that task"
        )


def values_found(folder: Path) -> Path | None:
    """``labels.csv`` in a folder of images for regression, or beside it where it lists any of them."""
    path = find_labels(folder)
    if path is None or path.parent == folder or lists_any(path, folder, image_files(folder), value_rows):
        return path
    return None


def open_annotated(folder: Path, options: ReadOptions, labels: Path, task: Task) -> ImageSource:
    """Images below ``folder`` with the boxes, maps or values that ``labels`` has for them.

    Args:
        folder: of images, in sub-folders or not.
        options: how images are read.
        labels: of boxes a COCO ``.json`` file or a folder of YOLO texts; of maps a folder with a PNG under
            the name of each image; of values a CSV file.
        task: detection, segmentation or regression.

    Raises:
        CalibrationError: unreadable, of another kind, or an image has none.
    """
    files = image_files(folder)
    known = _READERS[task](folder, files, labels, options)
    source = source_of_files(folder, files, options)

    def read(index: int) -> RawImage:
        return replace(source.read(index), truth=known.truth(index))

    return replace(
        source,
        read=read,
        class_names=known.class_names,
        notes=(Fact(f"{task.value} is judged by the labels in {str(labels)!r}"), *known.notes),
    )


def _boxes(folder: Path, files: list[Path], labels: Path, options: ReadOptions) -> _Known:
    named = not labels.is_dir() or (labels / _NAMES).is_file()
    if labels.is_dir():
        numbers = None if named else tuple(map(str, range(_MOST_CLASSES)))
        boxes = read_yolo(folder, labels, class_names=numbers, exif=options.exif)
    elif labels.suffix.lower() == _COCO_SUFFIX:
        boxes = read_coco(labels, folder, exif=options.exif)
    else:
        raise CalibrationError(
            f"the labels {str(labels)!r} were given with --task detection; accepted are a COCO file "
            f"({_COCO_SUFFIX}) and a folder of YOLO texts"
        )
    by_name = {os.path.normpath(image.file): image for image in boxes.images}
    names = [os.path.relpath(path, folder) for path in files]
    return _Known(
        truth=lambda index: ImageTruth(boxes=by_name[names[index]]),
        class_names=boxes.class_names if named else None,
        notes=boxes.notes,
    )


def _maps(folder: Path, files: list[Path], labels: Path, _: ReadOptions) -> _Known:
    if not labels.is_dir():
        raise CalibrationError(
            f"the labels {str(labels)!r} were given with --task segmentation; accepted is a folder with a "
            f"{MAP_SUFFIX} file under the name of each image, whose pixels are numbers of classes"
        )
    paths = [(labels / os.path.relpath(path, folder)).with_suffix(MAP_SUFFIX) for path in files]
    missing = [repr(os.path.relpath(path, labels)) for path in paths if not path.is_file()]
    if missing:
        raise CalibrationError(
            f"{len(missing)} of {len(files)} images have no map of classes in {str(labels)!r}: "
            f"{first_few(missing, _NAMES_SHOWN)}; accepted is one for each image: add them, or "
            "remove the images"
        )
    return _Known(truth=lambda index: ImageTruth(map=read_map(paths[index])))


def _values(folder: Path, files: list[Path], labels: Path, _: ReadOptions) -> _Known:
    values = read_values(labels, folder, files)
    return _Known(truth=lambda index: ImageTruth(values=values[index]))


_READERS: dict[Task, Callable[[Path, list[Path], Path, ReadOptions], _Known]] = {
    Task.DETECTION: _boxes,
    Task.SEGMENTATION: _maps,
    Task.REGRESSION: _values,
}
TASKS = frozenset(_READERS)
"""Tasks whose labels are other than a class for each image."""
