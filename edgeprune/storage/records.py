"""JSON records that a run leaves for a later one, with a checksum to detect changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.storage.documents import UnreadableError, check_regular, read_json
from edgeprune.storage.files import atomic_write_text, sha256_file

_CHECKSUM, _CONTENT, _FILES = "sha256", "content", "files"


def write_record(
    path: Path, content: Mapping[str, Any], *, files: tuple[Path, ...] = (), indent: int | None = None
) -> None:
    """Write plain values and their SHA-256, and the SHA-256 of the record's ``files`` beside it.

    Raises:
        OutputError: the file cannot be written.
    """
    record = {_CONTENT: content, _FILES: {file.name: sha256_file(file) for file in files}}
    text = json.dumps({_CHECKSUM: _sha256(record), **record}, indent=indent)
    atomic_write_text(path, text + "\n")


def read_record(path: Path) -> Any:
    """The values that :func:`write_record` wrote.

    Raises:
        UnreadableError: no such file, not a record, or one that was changed.
    """
    return _checked(path)[_CONTENT]


def check_files(path: Path, *, left_out: frozenset[str] = frozenset()) -> None:
    """Check the files that belong to a record for changes, except those ``left_out``.

    Raises:
        UnreadableError: see :func:`read_record`; or a file is missing or was changed.
    """
    for name, expected in _checked(path)[_FILES].items():
        if name in left_out:
            continue
        beside = path.with_name(name)
        try:
            check_regular(beside)
            actual = sha256_file(beside)
        except UnreadableError as error:
            raise UnreadableError(f"belongs to {name!r}, which {error}") from error
        except OSError as error:
            raise UnreadableError(f"belongs to {name!r}, which cannot be read ({error.strerror})") from error
        if actual != expected:
            raise UnreadableError(f"belongs to {name!r}, which was changed since")


def _checked(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict) or record.keys() != {_CHECKSUM, _CONTENT, _FILES}:
        raise UnreadableError("is no record of a run, or one of another version of edgeprune")
    if record.pop(_CHECKSUM) != _sha256(record):
        raise UnreadableError("holds other content than was written")
    files = record[_FILES]
    if not isinstance(files, dict) or not all(name == Path(name).name and name != ".." for name in files):
        raise UnreadableError("names files as no edgeprune does")
    return record


def _sha256(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
