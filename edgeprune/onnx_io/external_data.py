"""Data of an ONNX model in files beside it: inside its folder, whole, and not more than is there."""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx import ModelProto, TensorProto

from edgeprune.onnx_io.check import OnnxFaultError, bytes_of, tensors_of

_FREE_BYTES = 256 * 2**20
_RATIO = 4
"""Constants may share data: all together may be so many times as large as the files that hold them."""
_MOST_DIGITS = 18


def check_external_data(model: ModelProto, folder: Path) -> None:
    """Refuse data that lie elsewhere, are missing or of another size than they should have.

    Raises:
        OnnxFaultError: says what is wrong.
        OSError: a file cannot be looked at.
    """
    sizes: dict[Path, int] = {}
    total = 0
    for tensor in tensors_of(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = [(entry.key, entry.value) for entry in tensor.external_data]
        place = dict(entries)
        if len(place) < len(entries):
            raise OnnxFaultError(f"tells the place of the data of {tensor.name!r} twice")
        file = _inside(folder, place.get("location", ""), tensor.name)
        if file not in sizes:
            sizes[file] = _size(file, place["location"])
        offset = _number(place.get("offset", "0"), "offset", tensor.name)
        needed = bytes_of(tensor)
        length = _number(place["length"], "length", tensor.name) if place.get("length") else needed
        if length != needed or offset + length > sizes[file]:
            raise OnnxFaultError(
                f"needs {needed} bytes for {tensor.name!r} and names {length} from {offset} on in "
                f"{place['location']!r}, which has {sizes[file]}"
            )
        total += length
    if total > _FREE_BYTES + _RATIO * sum(sizes.values()):
        raise OnnxFaultError(
            f"takes {total} bytes of constants from {sum(sizes.values())} in other files; accepted are "
            f"{_RATIO} times as many"
        )


def _inside(folder: Path, location: str, name: str) -> Path:
    windows, posix = PureWindowsPath(location), PurePosixPath(location)
    plain = location and "\0" not in location and ".." not in windows.parts
    if plain and not (windows.drive or windows.root or posix.is_absolute()):
        try:
            inside = (folder / location).resolve()
            if inside.is_relative_to(folder.resolve()):
                return inside
        except (OSError, RuntimeError):  # links that go round
            pass
    raise OnnxFaultError(
        f"keeps the data of {name!r} in {location!r}; accepted are files inside the folder of the model"
    )


def _size(file: Path, location: str) -> int:
    try:
        state = file.stat()
    except FileNotFoundError:
        raise OnnxFaultError(
            f"keeps data in another file, and {location!r} is missing: put it beside the ONNX file"
        ) from None
    if not stat.S_ISREG(state.st_mode):
        raise OnnxFaultError(f"keeps data in {location!r}, which is no file")
    return state.st_size


def _number(text: str, what: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise OnnxFaultError(
            f"tells the {what} {text!r} for the data of {name!r}; accepted are whole numbers"
        )
    return int(text)
