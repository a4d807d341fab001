"""Boxes from YOLO files: beside each image a text with a line ``class x y width height`` for each object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeprune.artifacts.truth import Box, BoxLabels, ImageBoxes, checked_box
from edgeprune.calibration.annotations.boxes import NAMES_SHOWN, files_of, gathered, size_of
from edgeprune.errors import CalibrationError
from edgeprune.limits import read_number
from edgeprune.showing import first_few, in_short
from edgeprune.storage.documents import UnreadableError, read_bytes

_MOST_BYTES = 16 << 20
_NAMES_FILE = "classes.txt"
_IMAGES, _LABELS = "images", "labels"
_COLUMNS = 5
_MOST_DIGITS = 9


def read_yolo(
    folder: str | Path,
    labels: str | Path | None = None,
    *,
    class_names: Sequence[str] | None = None,
    exif: bool = True,
) -> BoxLabels:
    """Boxes of the images below ``folder``, in the order of their names, in pixels of the original images.

    ``labels`` is the folder of the texts; where ``None``, the folder that has ``labels`` for the last
    ``images`` in its path, or else ``folder`` itself. ``class_names``: where ``None``, the lines of
    ``classes.txt`` among the texts. An image without a text has no objects. ``exif`` says whether images are
    turned upright, as in :class:`~edgeprune.artifacts.calibration.Preprocessing`.

    Raises:
        CalibrationError: no texts, no names of classes, or a line that is no box inside of the image.
    """
    place = Path(folder)
    files = files_of(place)
    texts = _folder_of_texts(place) if labels is None else Path(labels)
    names = _names(texts) if class_names is None else list(class_names)
    there = {p.relative_to(texts).with_suffix("") for p in texts.rglob("*.txt") if p.name != _NAMES_FILE}
    with_text = {
        name: (texts / name).with_suffix(".txt") for name in files if Path(name).with_suffix("") in there
    }
    if not with_text:
        raise CalibrationError(
            f"there is no text with boxes in {str(texts)!r} for any of the {len(files)} images in "
            f"{str(place)!r}; accepted is IMAGE.txt for IMAGE.jpg, there or in the folder of labels given"
        )
    images = [_of_file(name, path, with_text.get(name), names, exif) for name, path in files.items()]
    return gathered(images, names, _notes(files, with_text, there))


def _folder_of_texts(folder: Path) -> Path:
    parts = list(folder.absolute().parts)
    if _IMAGES in parts:
        last = len(parts) - 1 - parts[::-1].index(_IMAGES)
        other = Path(*parts[:last], _LABELS, *parts[last + 1 :])
        if other.is_dir():
            return other
    return folder


def _notes(files: dict[str, Path], with_text: dict[str, Path], there: set[Path]) -> list[str]:
    notes = []
    if without := len(files) - len(with_text):
        notes.append(f"{without} of {len(files)} images have no text with boxes, and so no objects")
    alone = sorted(there - {Path(name).with_suffix("") for name in files})
    if alone:
        shown = first_few([repr(f"{name}.txt") for name in alone], NAMES_SHOWN)
        notes.append(f"{len(alone)} texts with boxes are of no image: {shown}")
    return notes


def _lines(path: Path) -> list[str]:
    try:
        return read_bytes(path, most_bytes=_MOST_BYTES).decode("utf-8-sig").splitlines()
    except UnreadableError as error:
        raise CalibrationError(f"the text {str(path)!r} {error}; replace or remove it") from error
    except UnicodeDecodeError as error:
        raise CalibrationError(f"the text {str(path)!r} is not UTF-8; replace or remove it") from error


def _names(texts: Path) -> list[str]:
    path = texts / _NAMES_FILE
    names = [line.strip() for line in _lines(path) if line.strip()] if path.is_file() else []
    if not names:
        raise CalibrationError(
            f"there are no names of classes in {str(path)!r}; accepted is a name a line there, or names given"
        )
    return names


def _of_file(name: str, path: Path, text: Path | None, names: Sequence[str], exif: bool) -> ImageBoxes:
    size = size_of(path, exif)
    boxes = []
    for number, line in enumerate(_lines(text) if text is not None else (), start=1):
        if line.strip():
            where = f"line {number} of {str(text)!r}"
            boxes.append(checked_box(_box(line.split(), size, where), size, names, where))
    return ImageBoxes(file=name, size=(size[0], size[1]), boxes=tuple(boxes))


def _box(words: list[str], size: tuple[int, int], where: str) -> Box:
    numbers = [read_number(word) for word in words]
    known = [number for number in numbers if number is not None]
    whole = words[0].isascii() and words[0].isdecimal() and len(words[0]) <= _MOST_DIGITS
    if len(words) != _COLUMNS or len(known) != _COLUMNS or not whole:
        raise CalibrationError(
            f"{where} is {in_short(' '.join(words))}; accepted are five numbers, a class from 0 and the "
            "box's centre x, centre y, width and height as shares of the image"
        )
    _, x, y, across, down = known
    height, width = size
    left, top = (x - across / 2) * width, (y - down / 2) * height
    right, bottom = (x + across / 2) * width, (y + down / 2) * height
    return Box(corners=(left, top, right, bottom), class_index=int(words[0]))
