"""Check that a torch.export archive is safe to pass to torch, which evaluates names and sizes in it."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edgeprune.errors import ModelLoadError
from edgeprune.loading.program_schema import UnsafePartError, check_payloads, check_program
from edgeprune.storage.archives import names_bytearray
from edgeprune.storage.zips import DAMAGE, MODEL_LIMITS, ZipFaultError, check_zip_stream, is_zip

_LARGEST_JSON_BYTES = 64 << 20
"""Graphs of some thousand nodes take a few megabytes, most of it stack traces."""

_FREE_ELEMENTS = 64 << 20
_SHARED = 4
_COMPILED = ("/data/aotinductor/", "/data/executorch/", "/executorch/")
_PICKLED = ("/data/sample_inputs/", "/data/weights/", "/data/constants/")
_OLD_PROGRAM, _OLD_PICKLES = "serialized_exported_program.json", "serialized_"


def unsafe_part(path: Path, operators: Collection[str]) -> str | None:
    """The part of a checked archive that could run code or exhaust memory on loading, or ``None``.

    Raises:
        ModelLoadError: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                _check_member(archive, name, operators)
    except UnsafePartError as part:
        return str(part)
    except ZipFaultError as fault:
        raise ModelLoadError(f"{str(path)!r} has a part that {fault}; export the model again") from fault
    except (*DAMAGE, OSError, LookupError, TypeError, RecursionError) as error:
        raise ModelLoadError(
            f"{str(path)!r} is a damaged torch.export archive ({str(error)[:100]}); export the model again"
        ) from error
    return None


def _check_member(archive: zipfile.ZipFile, name: str, operators: Collection[str]) -> None:
    place = f"/{name}"
    if any(part in place for part in _COMPILED):
        raise UnsafePartError("compiled code")
    if "/models/" in place or name == _OLD_PROGRAM:
        check_program(_json(archive, name), operators)
    elif any(part in place for part in _PICKLED) or name.startswith(_OLD_PICKLES):
        if name.endswith("_config.json"):
            content = _json(archive, name)
            check_payloads(content)
            _check_extent(content, sum(member.file_size for member in archive.infolist()))
        elif name.endswith((".pt", ".json")):
            _check_pickle(archive.read(name))


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _LARGEST_JSON_BYTES:
        raise UnsafePartError(f"a description of more than {_LARGEST_JSON_BYTES >> 20} MiB")
    # torch reads UTF-8; json.loads might detect another encoding from bytes.
    return json.loads(archive.read(name).decode("utf-8"))


def _check_pickle(data: bytes) -> None:
    """Check a nested archive; torch unpickles only tensors from it and rejects anything else."""
    stream = io.BytesIO(data)
    if is_zip(stream):
        check_zip_stream(stream, MODEL_LIMITS)
    if names_bytearray(stream):
        raise UnsafePartError("memory to be filled")


def _check_extent(content: dict[str, Any], stored_bytes: int) -> None:
    """Limit how much tensors may repeat stored values (by a stride of 0)."""
    elements = 0
    for payload in content["config"].values():
        sizes = [size.get("as_int", -1) for size in (payload.get("tensor_meta") or {}).get("sizes", [])]
        if any(size < 0 for size in sizes):
            raise UnsafePartError("a tensor of an unknown size")
        elements += math.prod(sizes)
    if elements > _SHARED * stored_bytes + _FREE_ELEMENTS:
        raise UnsafePartError("tensors much larger than the file")
