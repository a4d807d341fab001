"""Boxes from a COCO file: JSON with ``images``, ``annotations`` and ``categories``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.artifacts.truth import Box, BoxLabels, ImageBoxes, checked_box
from edgeprune.calibration.annotations.boxes import NAMES_SHOWN, files_of, gathered, size_of
from edgeprune.errors import CalibrationError
from edgeprune.limits import is_finite
from edgeprune.showing import first_few, in_short
from edgeprune.storage.documents import UnreadableError, read_json

_MOST_BYTES = 1 << 30
"""The instances of COCO's training images take 450 MB."""
_LARGEST_SIDE = 1 << 20


@dataclass(frozen=True)
class _Listed:
    """An image of the file."""

    name: str
    size: tuple[int, int]
    boxes: list[Box] = field(default_factory=list)


def read_coco(path: str | Path, folder: str | Path, exif: bool = True) -> BoxLabels:
    """Boxes of the images below ``folder``, in the order of their names, in pixels of the original images.

    Classes are numbered from 0 in the order of their ids; ``iscrowd`` objects are ignored ones. ``exif`` says
    whether images are turned upright, as in :class:`~edgeprune.artifacts.calibration.Preprocessing`.

    Raises:
        CalibrationError: unreadable, other content, boxes outside of their images, an image that is not
            listed or has another size.
    """
    file, where = Path(path), f"the COCO file {str(path)!r}"
    try:
        document = read_json(file, most_bytes=_MOST_BYTES)
    except UnreadableError as error:
        raise CalibrationError(f"{where} {error}; name a COCO file of boxes") from error
    entries = {name: _entries(document, name, where) for name in ("images", "annotations", "categories")}
    names, order = _classes(entries["categories"], where)
    listed = _images(entries["images"], where)
    for position, entry in enumerate(entries["annotations"]):
        _add_box(entry, listed, names, order, f"{where}, annotation {_id(entry, position)},")
    return _of_folder(listed, names, Path(folder), where, exif)


def _id(entry: Any, position: int) -> Any:
    return in_short(entry.get("id", position)) if isinstance(entry, dict) else position


def _entries(document: Any, name: str, where: str) -> list[Any]:
    entries = document.get(name) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CalibrationError(
            f"{where} has no list {name!r} of objects; accepted are 'images', 'annotations' and 'categories' "
            "as in COCO's instances"
        )
    return entries


def _whole(entry: dict[str, Any], key: str, where: str, least: int | None = None) -> int:
    value = entry.get(key)
    fits = isinstance(value, int) and not isinstance(value, bool)
    if not fits or (least is not None and not least <= value <= _LARGEST_SIDE):  # type: ignore[operator]
        size = "" if least is None else f" from {least} to {_LARGEST_SIDE}"
        raise CalibrationError(f"{where} has {key!r} = {in_short(value)}; accepted is a whole number{size}")
    return value  # type: ignore[return-value]


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise CalibrationError(f"{where} has {key!r} = {in_short(value)}; accepted is a text")
    return value


def _classes(categories: list[dict[str, Any]], where: str) -> tuple[list[str], dict[int, int]]:
    """Names of the classes, and the class of every id."""
    named = {}
    for position, entry in enumerate(categories):
        one = f"{where}, category {position},"
        number = _whole(entry, "id", one)
        if number in named:
            raise CalibrationError(
                f"{one} has the id {number} of another; accepted is an id for each category"
            )
        named[number] = _text(entry, "name", one)
    numbers = sorted(named)
    return [named[number] for number in numbers], {number: index for index, number in enumerate(numbers)}


def _images(images: list[dict[str, Any]], where: str) -> dict[int, _Listed]:
    listed: dict[int, _Listed] = {}
    names: set[str] = set()
    for position, entry in enumerate(images):
        one = f"{where}, image {position},"
        number, name = _whole(entry, "id", one), os.path.normpath(_text(entry, "file_name", one))
        if number in listed or name in names:
            raise CalibrationError(
                f"{one} has the id or the file name of another; accepted is each image once"
            )
        height, width = (_whole(entry, key, one, least=1) for key in ("height", "width"))
        listed[number] = _Listed(name, (height, width))
        names.add(name)
    return listed


def _add_box(
    entry: dict[str, Any], listed: dict[int, _Listed], names: Sequence[str], order: dict[int, int], where: str
) -> None:
    image = listed.get(_whole(entry, "image_id", where))
    if image is None:
        raise CalibrationError(
            f"{where} is of image {entry['image_id']}, which 'images' does not list; accepted is an id of "
            "these"
        )
    category = _whole(entry, "category_id", where)
    if category not in order:
        raise CalibrationError(
            f"{where} is of category {category}, which 'categories' does not list; accepted is an id of these"
        )
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise CalibrationError(f"{where} has 'iscrowd' = {in_short(crowd)}; accepted is 0 or 1")
    x, y, width, height = _sides(entry.get("bbox"), where)
    box = Box(corners=(x, y, x + width, y + height), class_index=order[category], ignore=bool(crowd))
    image.boxes.append(checked_box(box, image.size, names, where))


def _sides(value: Any, where: str) -> list[float]:
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_finite, value)):
        raise CalibrationError(
            f"{where} has 'bbox' = {in_short(value)}; accepted are four finite numbers, x, y, width and "
            "height"
        )
    return [float(number) for number in value]


def _of_folder(
    listed: dict[int, _Listed], names: Sequence[str], folder: Path, where: str, exif: bool
) -> BoxLabels:
    by_name = {image.name: image for image in listed.values()}
    files = files_of(folder)
    missing = [repr(name) for name in files if name not in by_name]
    if missing:
        raise CalibrationError(
            f"{len(missing)} of {len(files)} images in {str(folder)!r} are not in {where}: "
            f"{first_few(missing, NAMES_SHOWN)}; accepted are images that it lists, with boxes or without"
        )
    images = [_of_file(by_name[name], path, where, exif) for name, path in files.items()]
    notes = []
    if unused := len(by_name) - len(files):
        notes.append(f"{unused} of the {len(by_name)} images that {where} lists are not in {str(folder)!r}")
    return gathered(images, names, notes)


def _of_file(listed: _Listed, path: Path, where: str, exif: bool) -> ImageBoxes:
    size, given = size_of(path, exif), listed.size
    if size != given:
        turned = " when it is turned by its EXIF orientation: give --no-exif" if exif else ""
        as_stored = exif and size_of(path, False) == given
        raise CalibrationError(
            f"{where} has the image {listed.name!r} with {given[0]}x{given[1]} pixels, but it has "
            f"{size[0]}x{size[1]}{turned if as_stored else ''}; accepted is the size of the file (height x "
            "width)"
        )
    return ImageBoxes(file=listed.name, size=given, boxes=tuple(listed.boxes))
