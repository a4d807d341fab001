"""Labels of the images of a folder from a CSV file with the header ``file,label``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import CalibrationError
from edgeprune.notes import Fact
from edgeprune.showing import first_few, in_short
from edgeprune.storage.documents import UnreadableError, read_bytes

LABELS_NAME = "labels.csv"
_MOST_BYTES = 64 << 20
_FILE, _LABEL = "file", "label"
_SHOWN = 3
_MOST_DIGITS = 18
"""Of a class number: more than 64 bits hold is no class of any network."""


@dataclass(frozen=True, kw_only=True)
class FileLabels:
    """A class number for every file, names of the classes where they have any, and remarks."""

    labels: tuple[int, ...]
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def find_labels(folder: Path) -> Path | None:
    """``labels.csv`` in a folder of images, else beside it."""
    candidates = (folder / LABELS_NAME, folder.absolute().parent / LABELS_NAME)
    return next((path for path in candidates if path.is_file()), None)


def lists_any(
    path: Path,
    folder: Path,
    files: Sequence[Path],
    read: Callable[[Path, str], Mapping[str, object]] | None = None,
) -> bool:
    """Whether a CSV is one of labels, or of what else ``read`` accepts, that lists any of the files."""
    try:
        listed = (read or _rows)(path, "")
    except CalibrationError:
        return False
    return any(name_in(listed, path, folder, file) is not None for file in files)


def read_labels(path: Path, folder: Path, files: Sequence[Path]) -> FileLabels:
    """Labels of ``files``, which are below ``folder``.

    Names in the CSV count from ``folder``, or from the CSV's own folder. A label is a class number from 0,
    or a name; names are numbered in alphabetical order.

    Raises:
        CalibrationError: unreadable, another header, a file twice with different labels or with none, numbers
            mixed with names, or an image that is not listed.
    """
    where = f"the labels {str(path)!r}"
    listed = _rows(path, where)
    labels, used = _matched(listed, path, folder, files)
    notes: list[str] = [Fact(f"labels come from {str(path)!r}")]
    unused = [name for name in listed if name not in used]
    if unused:
        shown = first_few([repr(name) for name in unused], _SHOWN)
        notes.append(f"{len(unused)} files that {where} list are not among the images: {shown}")
    given = list(listed.values())
    numbers = [_is_number(text) for text in given]
    if all(numbers):
        return FileLabels(labels=tuple(map(int, labels)), notes=tuple(notes))
    if any(numbers):
        number, name = given[numbers.index(True)], given[numbers.index(False)]
        raise CalibrationError(
            f"{where} are partly numbers, such as {number}, and partly names, such as {in_short(name)}; "
            "accepted are class numbers from 0 throughout, or names throughout"
        )
    names = sorted(set(given))
    order = {name: index for index, name in enumerate(names)}
    shown = ", ".join(f"{index} is {in_short(name)}" for index, name in enumerate(names[:_SHOWN]))
    more = ", ..." if len(names) > _SHOWN else ""
    notes.append(Fact(f"the {len(names)} classes are numbered in alphabetical order: {shown}{more}"))
    return FileLabels(
        labels=tuple(order[name] for name in labels), class_names=tuple(names), notes=tuple(notes)
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def _rows(path: Path, where: str) -> dict[str, str]:
    """The label of every file that is listed; bytes that are no UTF-8 stay as they are in names of files."""
    try:
        text = read_bytes(path, most_bytes=_MOST_BYTES).decode("utf-8-sig", errors="surrogateescape")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnreadableError as error:
        raise CalibrationError(f"{where} {error}; name another file with --labels") from error
    except csv.Error as error:
        raise CalibrationError(f"{where} are no CSV ({error}); accepted is UTF-8 text with commas") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if header.count(_FILE) != 1 or header.count(_LABEL) != 1:
        raise CalibrationError(
            f"{where} have the header {in_short(','.join(header))}; accepted is file,label in the first "
            "line: correct it, or name another file with --labels"
        )
    file_column, label_column = header.index(_FILE), header.index(_LABEL)
    listed: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        cells = [row[c].strip() if c < len(row) else "" for c in (file_column, label_column)]
        _check_row(cells, number, listed, where)
        listed[os.path.normpath(cells[0])] = cells[1]
    return listed


def _check_row(cells: list[str], number: int, listed: dict[str, str], where: str) -> None:
    name, label = cells
    if not name or not label:
        missing = _FILE if not name else _LABEL
        raise CalibrationError(
            f"{where} have no {missing} in line {number}; accepted is a file and its label"
        )
    if label.startswith("-") and label[1:].isdecimal():
        raise CalibrationError(
            f"{where} have the negative label {in_short(label)} in line {number}; accepted are class numbers "
            "from 0, or names"
        )
    before = listed.get(os.path.normpath(name))
    if before is not None and before != label:
        raise CalibrationError(
            f"{where} have {in_short(name)} as {in_short(before)} and again as {in_short(label)} in line "
            f"{number}; accepted is one label for each image"
        )


def _matched(
    listed: dict[str, str], path: Path, folder: Path, files: Sequence[Path]
) -> tuple[list[str], set[str]]:
    """The label of each file, and the names that were used."""
    labels, used, missing = [], set(), []
    for file in files:
        name = name_in(listed, path, folder, file)
        if name is None:
            missing.append(repr(os.path.relpath(file, folder)))
            continue
        used.add(name)
        labels.append(listed[name])
    if missing:
        raise CalibrationError(
            f"{len(missing)} of {len(files)} images have no label in {str(path)!r}: "
            f"{first_few(missing, _SHOWN)}; accepted is a line for each image: add them, or remove the images"
        )
    return labels, used


def name_in(listed: Container[str], path: Path, folder: Path, file: Path) -> str | None:
    """The name under which a file is listed, within the folder or from the CSV's own."""
    inside = os.path.relpath(file, folder)
    beside = os.path.relpath(file.absolute(), path.absolute().parent)
    return next((name for name in (inside, beside) if name in listed), None)
