"""Read untrusted JSON, TOML and NumPy files with bounded size, depth and numbers."""

from __future__ import annotations

import json
import math
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edgeprune.storage.zips import ARRAY_DAMAGE, IMAGE_LIMITS, ZipFaultError, check_zip

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_JSON_BYTES = 64 << 20
"""A graph or a ranking of some thousand nodes takes a few megabytes."""
LARGEST_TOML_BYTES = 1 << 20
DEEPEST = 64
"""Maximum nesting depth; edgeprune's own files are a dozen deep."""
_LARGEST_WHOLE = 2**63 - 1
_MIB = 1 << 20
_SHOWN = 120


class UnreadableError(Exception):
    """A file cannot be read; the message is the end of a sentence that begins with its name."""


def read_json(path: Path, *, most_bytes: int = LARGEST_JSON_BYTES) -> Any:
    """Parse a JSON file; integers have at most 64 bits, floats are finite.

    Raises:
        UnreadableError: no such file, too large, not JSON, nested too deep, or numbers out of range.
    """
    data = read_bytes(path, most_bytes=most_bytes)

    def parse() -> Any:
        return json.loads(data.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)

    return _parsed(parse, "is not JSON", "JSON")


def read_toml(path: Path, *, most_bytes: int = LARGEST_TOML_BYTES) -> dict[str, Any]:
    """Parse a TOML file; integers have at most 64 bits.

    Raises:
        UnreadableError: no such file, too large, not TOML, nested too deep, or numbers out of range.
    """
    data = read_bytes(path, most_bytes=most_bytes)
    table: dict[str, Any] = _parsed(lambda: tomllib.loads(data.decode("utf-8")), "is not valid TOML", "TOML")
    return table


def read_bytes(path: Path, *, most_bytes: int) -> bytes:
    """Bytes of a regular file; a pipe or a device could be endless.

    Raises:
        UnreadableError: no such file, a folder or a pipe, or too large.
    """
    check_regular(path)
    too_large = UnreadableError(f"has more than {most_bytes / _MIB:g} MiB, the most that is accepted")
    try:
        if path.stat().st_size > most_bytes:
            raise too_large
        with path.open("rb") as stream:
            data = stream.read(most_bytes + 1)
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror or error})") from error
    if len(data) > most_bytes:
        raise too_large
    return data


def check_regular(path: Path) -> None:
    """Reject anything but a regular file, before it is opened.

    Raises:
        UnreadableError: no such file, a folder, a pipe or a device.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise UnreadableError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if stat.S_ISDIR(mode):
        raise UnreadableError("cannot be read (Is a directory)")
    if not stat.S_ISREG(mode):
        raise UnreadableError("is no regular file")


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file; none is larger than its content in the archive.

    Raises:
        UnreadableError: no such file, a damaged archive, or other content than plain arrays.
    """
    import numpy as np

    check_regular(path)
    try:
        check_zip(path, IMAGE_LIMITS)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member that is no array")  # NumPy returns it as bytes
        return arrays
    except ZipFaultError as fault:
        raise UnreadableError(str(fault)) from fault
    except (*ARRAY_DAMAGE, OSError, MemoryError) as error:
        raise UnreadableError(f"cannot be read as arrays ({_in_short(error)})") from error


def _parsed(parse: Callable[[], Any], fault: str, what: str) -> Any:
    try:
        value = parse()
        _check_values(value)
    except RecursionError as error:
        raise UnreadableError(f"is {what} nested more than {DEEPEST} deep") from error
    except ValueError as error:
        raise UnreadableError(f"{fault} ({_in_short(error)})") from error
    return value


def _check_values(value: Any) -> None:
    """Reject nesting too deep for a recursive reader, and integers of more than 64 bits."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, int) and not -_LARGEST_WHOLE - 1 <= item <= _LARGEST_WHOLE:
                raise ValueError("a whole number of more than 64 bits")
        if not inner:
            return
        level = inner
    raise RecursionError


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number there")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond what a float holds")
    return value


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
