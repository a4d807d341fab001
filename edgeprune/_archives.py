"""What kind of file this is, told from its content; nothing in the file is executed."""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import IO, Any

from edgeprune.errors import ModelLoadError

_HEAD_BYTES = 4096
_GLOBALS_SHOWN = 3


class FileKind(Enum):
    """Kinds of file that people offer as a model."""

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
    """Tell the kind of a file from its first bytes and, for an archive, its members.

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
    if head.startswith(b"PK\x03\x04"):
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
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelLoadError(
            f"{str(path)!r} is a damaged archive ({error}); copy or download the model again"
        ) from error
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
    names: dict[str, None] = {}
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = [n for n in archive.namelist() if n.endswith("data.pkl")]
                for member in members:
                    with archive.open(member) as stream:
                        names.update(dict.fromkeys(_globals(stream)))
        else:
            with path.open("rb") as stream:
                while stream.peek(1):
                    names.update(dict.fromkeys(_globals(stream)))
    except (ValueError, zipfile.BadZipFile, OSError):
        # The storages follow the pickles in the old format: what was read until there is the answer.
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
    shown = ", ".join(foreign[:_GLOBALS_SHOWN])
    more = len(foreign) - _GLOBALS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


_CALLABLE_IN_SIZES = re.compile(
    r"(Floor|Clean|IntTrue|FloatTrue)Div|(Python)?Mod|ModularIndexing|Max|Min|Eq|Ne|[LG][te]|And|Or|Not"
    r"|Where|Identity|Piecewise|(Float)?Pow|PowByNatural|Mul|Add|Abs|ToFloat|(Trunc|Ceil|Floor|Round)To\w+"
    r"|RoundDecimal|floor|ceiling|Rational|Integer|Float|Symbol"
    r"|(Strict)?(Greater|Less)Than|Equality|Unequality"
)
_SIZE_EXPRESSION = re.compile(r"[\w\s+\-*/(),<>=!&|~.]*")
_NOT_ARITHMETIC = re.compile(r"__|\)\s*\(|[A-Za-z_)]\s*\.|\.\s*[A-Za-z_]|\b(lambda|import|for|if|else)\b")


def unsafe_export_parts(path: Path) -> str | None:
    """What in a torch.export archive would run code on loading beyond its pickles, or ``None``.

    torch runs compiled libraries and pickled objects found in the archive and evaluates the texts of its
    symbolic sizes as Python; a size is accepted when it is plain arithmetic on the operators of sympy.

    Raises:
        ModelLoadError: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # Two readers may pick different members of the same name.
            if len({name.lower() for name in names}) != len(names):
                return "two members of the same name"
            for name in names:
                if "/data/aotinductor/" in f"/{name}":
                    return "compiled code"
                if name.endswith(".json") or "/models/" in f"/{name}":
                    reason = _unsafe_json(json.loads(archive.read(name)))
                    if reason:
                        return reason
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelLoadError(f"{str(path)!r} is a damaged torch.export archive ({error})") from error
    return None


def _unsafe_json(value: Any) -> str | None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            pending.extend(item.values())
            expression, file_name = item.get("expr_str"), item.get("path_name")
            if isinstance(expression, str) and not _is_arithmetic(expression):
                return f"the size {expression[:60]!r}"
            if isinstance(file_name, str) and re.match(r"(custom|opaque)_obj", file_name):
                return "pickled objects"
    return None


def _is_arithmetic(expression: str) -> bool:
    expression = re.sub(r"'([\w.+-]+)'", r"\1", expression)  # names and decimals are quoted
    if not _SIZE_EXPRESSION.fullmatch(expression) or _NOT_ARITHMETIC.search(expression):
        return False
    called = re.findall(r"([A-Za-z_]\w*)\s*\(", expression)
    return all(_CALLABLE_IN_SIZES.fullmatch(name) for name in called)
