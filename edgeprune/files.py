"""Files that are either whole or not there, and their hashes; shared by every stage that writes."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from edgeprune.errors import OutputError

_CHUNK_BYTES = 1 << 20


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file so that a reader sees either the old content or the new, never a part.

    Raises:
        OutputError: the folder does not exist or cannot be written.
    """
    destination = Path(path)
    temporary = destination.with_name(f".{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(destination)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{str(destination)!r} cannot be written ({reason}); name a path in a writable folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text the way :func:`atomic_write_bytes` does, newlines as given.

    Raises:
        OutputError: the folder does not exist or cannot be written.
    """
    atomic_write_bytes(path, text.encode("utf-8"))
