"""Detect the kind of a file from its content; nothing in the file is executed."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import IO

from edgeprune.errors import ModelLoadError
from edgeprune.showing import first_few
from edgeprune.storage.zips import DAMAGE, is_zip

_HEAD_BYTES = 4096
_GLOBALS_SHOWN = 3
_ZIP_START = b"PK\x03\x04"
_ZIP_END, _ZIP_END_BYTES = b"PK\x05\x06", 22
_AGAIN = "copy or download it again, or export or save the model again"


class FileKind(Enum):
    """Kinds of files that are given as a model."""

    EXPORTED_PROGRAM = "a torch.export archive"
    TORCHSCRIPT = "a TorchScript archive"
    CHECKPOINT = "a PyTorch checkpoint"
    SAFETENSORS = "a safetensors file"
    EMPTY = "an empty file"
    ONNX = "an ONNX model"
    HDF5 = "an HDF5 file (Keras .h5)"
    KERAS = "a Keras archive"
    TFLITE = "a TensorFlow Lite model"
    NPZ = "a NumPy archive"
    ZIP = "a zip archive without a PyTorch model"
    GIT_LFS = "a Git LFS pointer, not the file itself (run 'git lfs pull')"
    HTML = "an HTML page, probably a failed download"
    TEXT = "a text file"
    UNKNOWN = "a file of unknown kind"


def detect_kind(path: Path) -> FileKind:
    """Detect the kind of a file from its first bytes and, for an archive, its members.

    Raises:
        ModelLoadError: the file cannot be read, or is a damaged archive.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise ModelLoadError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    if not head:
        return FileKind.EMPTY
    if _ZIP_START.startswith(head):
        raise _cut_short(path, size)
    if head.startswith(_ZIP_START):
        return _zip_kind(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return FileKind.HDF5
    if head[4:8] == b"TFL3":
        return FileKind.TFLITE
    if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return FileKind.CHECKPOINT
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return FileKind.SAFETENSORS
    if _looks_like_onnx(head, path):
        return FileKind.ONNX
    return _text_kind(head)


def _ends_with_directory(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-_ZIP_END_BYTES, io.SEEK_END)
        return stream.read(4) == _ZIP_END


def _cut_short(path: Path, size_bytes: int) -> ModelLoadError:
    return ModelLoadError(
        f"{str(path)!r} is a damaged archive: after {size_bytes} bytes it ends without the directory that "
        f"stands at the end of every archive, as when a copy or a download was cut short; {_AGAIN}"
    )


def _looks_like_onnx(head: bytes, path: Path) -> bool:
    # ModelProto: field 1 (ir_version, varint), then one of the string or message fields.
    tagged = head[0] == 0x08 and len(head) > 2 and 3 <= head[1] < 32 and head[2] in {0x12, 0x1A, 0x3A, 0x42}
    return tagged or path.suffix.lower() == ".onnx"


def _text_kind(head: bytes) -> FileKind:
    if head.startswith(b"version https://git-lfs"):
        return FileKind.GIT_LFS
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return FileKind.HTML
    control = sum(byte < 32 and byte not in b"\t\r\n\f" for byte in head)
    return FileKind.UNKNOWN if control else FileKind.TEXT


def _zip_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            first = min((member.header_offset for member in archive.infolist()), default=0)
    except (*DAMAGE, OSError) as error:
        if not is_zip(path):
            raise _cut_short(path, path.stat().st_size) from error
        raise ModelLoadError(f"{str(path)!r} is a damaged archive ({error}); {_AGAIN}") from error
    if first > 0 and not _ends_with_directory(path):
        # This is the directory of a nested archive; the outer one was cut off behind it.
        raise _cut_short(path, path.stat().st_size)
    inner = {name.partition("/")[2] for name in names} | set(names)
    if "archive_format" in inner or "serialized_exported_program.json" in inner:
        return FileKind.EXPORTED_PROGRAM
    if "constants.pkl" in inner or "code/__torch__.py" in inner:
        return FileKind.TORCHSCRIPT
    if "data.pkl" in inner:
        return FileKind.CHECKPOINT
    if "model.weights.h5" in inner:
        return FileKind.KERAS
    if names and all(name.endswith(".npy") for name in names):
        return FileKind.NPZ
    return FileKind.ZIP


def pickled_globals(path: Path) -> tuple[str, ...]:
    """Dotted names that a checkpoint's pickle would import, in order, without running it."""
    try:
        with path.open("rb") as stream:
            return _all_globals(stream)
    except OSError:
        return ()


def names_bytearray(stream: IO[bytes]) -> bool:
    """Whether a pickle makes a ``bytearray``, of any size, which torch's restricted reader allows."""
    return any(name.rpartition(".")[2] == "bytearray" for name in _all_globals(stream))


def _all_globals(stream: IO[bytes]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    try:
        if is_zip(stream):
            with zipfile.ZipFile(stream) as archive:
                members = [n for n in archive.namelist() if n.endswith("data.pkl")]
                for member in members:
                    with archive.open(member) as content:
                        names.update(dict.fromkeys(_globals(content)))
        else:
            size_bytes = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            while stream.tell() < size_bytes:
                names.update(dict.fromkeys(_globals(stream)))
    except (*DAMAGE, OSError):
        # In the old format, storages follow the pickles: keep the names read up to there.
        pass
    return tuple(names)


def _globals(stream: IO[bytes]) -> Iterator[str]:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


_HARMLESS = re.compile(
    r"(collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.\w*(Storage|Tensor|Size|dtype)"
    r"|torch\.(float|int|uint|bool)\w*|torch\.nn\.parameter\.Parameter|torch\._tensor\.\w+"
    r"|torch\.serialization\.\w+|torch\.storage\.\w+)"
)


def foreign_globals_text(path: Path) -> str:
    """The first few classes or functions that a pickle would run, for an error message."""
    foreign = [name for name in pickled_globals(path) if not _HARMLESS.fullmatch(name)]
    return first_few(foreign, _GLOBALS_SHOWN)
