"""Values to be predicted for the images of a folder, from a CSV file: a name, then numbers."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from edgeprune.calibration.annotations.label_file import name_in
from edgeprune.errors import CalibrationError
from edgeprune.limits import is_finite, read_number
from edgeprune.showing import first_few, in_short
from edgeprune.storage.documents import UnreadableError, read_bytes

_MOST_BYTES = 64 << 20
_FILE = "file"
_SHOWN = 3


def read_values(path: Path, folder: Path, files: Sequence[Path]) -> tuple[Tensor, ...]:
    """Values (k,) float32 of each of ``files``, which are below ``folder``.

    The first line names the columns: ``file``, then one or several for the values. Names of files count from
    ``folder``, or from the CSV's own folder.

    Raises:
        CalibrationError: unreadable, no such header, no finite number, or an image that is not listed.
    """
    where = f"the values {str(path)!r}"
    listed = value_rows(path, where)
    names = [name_in(listed, path, folder, file) for file in files]
    missing = [
        repr(os.path.relpath(file, folder)) for file, name in zip(files, names, strict=True) if not name
    ]
    if missing:
        raise CalibrationError(
            f"{len(missing)} of {len(files)} images have no values in {str(path)!r}: "
            f"{first_few(missing, _SHOWN)}; accepted is a line for each image: add them, or remove the images"
        )
    return tuple(torch.tensor(listed[name], dtype=torch.float32) for name in names if name)


def value_rows(path: Path, where: str) -> dict[str, list[float]]:
    """Values by the name of their file.

    Raises:
        CalibrationError: as :func:`read_values`, but for images that are not listed.
    """
    try:
        text = read_bytes(path, most_bytes=_MOST_BYTES).decode("utf-8-sig", errors="surrogateescape")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnreadableError as error:
        raise CalibrationError(f"{where} {error}; name another file with --labels") from error
    except csv.Error as error:
        raise CalibrationError(f"{where} are no CSV ({error}); accepted is UTF-8 text with commas") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if len(header) < 2 or header[0] != _FILE:
        raise CalibrationError(
            f"{where} have the header {in_short(','.join(header))}; accepted is file,NAME,... in the first "
            "line, with a column for each value"
        )
    listed: dict[str, list[float]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        numbers = [read_number(cell.strip()) for cell in row[1:]]
        known = [value for value in numbers if value is not None]
        if len(row) != len(header) or len(known) != len(numbers) or not all(map(is_finite, known)):
            raise CalibrationError(
                f"{where} have {in_short(','.join(row))} in line {number}; accepted are a file and "
                f"{len(header) - 1} finite numbers"
            )
        name = os.path.normpath(row[0].strip())
        if listed.setdefault(name, known) != known:
            raise CalibrationError(
                f"{where} have {in_short(name)} again with other values in line {number}; accepted is one "
                "line for each image"
            )
    return listed
