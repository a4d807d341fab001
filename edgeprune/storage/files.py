"""Atomic writing of files, and their hashes; shared by every stage that writes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from edgeprune.errors import OutputError
from edgeprune.showing import nearest
from edgeprune.storage.ownership import hidden_name, owned_token, remove_abandoned

_CHUNK_BYTES = 1 << 20
_PROBE_BYTES = 1 << 16
_NEAR = 0.75
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a full disk, a used-up quota and a limit on the size of files."""
SCRATCH_PREFIX = "edgeprune-"


def near_path(path: Path, *, files_only: bool = False) -> str:
    """Question suggesting what lies beside ``path`` under the nearest name; empty if nothing is near."""
    with contextlib.suppress(OSError):
        beside = sorted(e.name for e in path.parent.iterdir() if e.is_file() or not files_only)
        near = nearest(path.name, beside, _NEAR)
        if near is not None:
            return f"did you mean {str(path.with_name(near))!r}? "
    return ""


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


def atomic_write_bytes(path: str | Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write a file so that a reader sees either the old content or the new, never a part.

    Without ``overwrite`` an existing file stays, even one created a moment ago.

    Raises:
        OutputError: the folder does not exist or cannot be written, or the file must stay.
    """
    atomic_write(path, lambda stream: stream.write(data), overwrite=overwrite)


def atomic_write(path: str | Path, write: Callable[[BinaryIO], object], *, overwrite: bool = True) -> None:
    """Write a file atomically; ``write`` puts its content into a stream piece by piece.

    Raises:
        OutputError: the folder does not exist or cannot be written, or the file must stay.
    """
    destination = Path(path)
    _check_kind(path, what="")
    temporary = destination.with_name(hidden_name())
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite:
            temporary.replace(destination)
        else:
            _put_anew(temporary, destination)
    except OSError as error:
        raise OutputError(cannot_write(destination, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _put_anew(temporary: Path, destination: Path) -> None:
    """Give a file its name if that is free: otherwise a link fails, while a rename would replace."""
    try:
        os.link(temporary, destination)
    except FileExistsError as error:
        raise OutputError(f"{str(destination)!r} exists, since a moment ago; it stays") from error
    except OSError:  # a file system without links
        if destination.exists():
            raise OutputError(f"{str(destination)!r} exists, since a moment ago; it stays") from None
        temporary.replace(destination)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text the way :func:`atomic_write_bytes` does, newlines as given.

    Raises:
        OutputError: the folder does not exist or cannot be written.
    """
    atomic_write_bytes(path, text.encode("utf-8"))


def cannot_write(path: str | Path, error: OSError, *, what: str = "") -> str:
    """Message for a file or folder that the system refuses to write."""
    reason = error.strerror or str(error)
    shown = f"{what} {str(path)!r}" if what else repr(str(path))
    if error.errno in NO_ROOM:
        return f"{shown} cannot be written ({reason}); make room there, or name a path on another disk"
    return f"{shown} cannot be written ({reason}); name a path in a writable folder"


_SYSTEM_FOLDERS = ("/dev/", "/proc/", "/sys/")
_MEMORY_DISK = "/dev/shm/"


def _check_kind(path: str | Path, *, what: str) -> None:
    """Refuse what a whole file would take the place of: a device, a pipe, a socket, anything of the system's.

    Raises:
        OutputError: it is one.
    """
    absolute = Path(os.path.abspath(Path(path).expanduser()))
    special = absolute.exists() and not absolute.is_file() and not absolute.is_dir()
    system = str(absolute).startswith(_SYSTEM_FOLDERS) and not str(absolute).startswith(_MEMORY_DISK)
    if special or system:
        shown = f"{what} {str(path)!r}".strip()
        raise OutputError(
            f"{shown} cannot be written: it is no regular file and would be replaced; name another file"
        )


def check_writable(path: str | Path, *, what: str) -> None:
    """Check that a file can be written at a path, before the work whose result it is to hold.

    Raises:
        OutputError: it is a folder, a device or a pipe, or its folder is missing or not writable.
    """
    _check_kind(path, what=what)
    destination, shown = Path(path).expanduser().resolve(), repr(str(path))
    folder = destination.parent
    if destination.is_dir():
        raise OutputError(f"{what} {shown} is a folder; name a file that does not exist yet")
    if not folder.is_dir():
        raise OutputError(
            f"{what} {shown} cannot be written: {str(folder)!r} is no folder; make it first, or name another"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{what} {shown} cannot be written: folder {str(folder)!r} is not writable; name a path in a "
            "writable folder"
        )


def check_room(folder: Path, shown: str) -> None:
    """Write and remove a probe file in ``folder``, so that a write failure shows before any work.

    Raises:
        OutputError: the system refuses; ``shown`` names the output.
    """
    probe = folder / hidden_name()
    try:
        try:
            with probe.open("wb") as stream:
                stream.write(bytes(_PROBE_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(cannot_write(shown, error, what="output")) from error


@contextlib.contextmanager
def scratch_folder(kind: str = "") -> Iterator[Path]:
    """A temporary folder for the block, named after its process; folders of dead processes are removed.

    Raises:
        OutputError: it cannot be created, or the disk is full in the block.
    """
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(scratch_directory(kind))
        except OSError as error:
            raise OutputError(
                f"no temporary folder can be made ({error.strerror or error}); set TMPDIR to a folder with "
                "room that can be written"
            ) from error
        with full_disk_told():
            yield Path(made)


def scratch_directory(kind: str = "") -> tempfile.TemporaryDirectory[str]:
    """A folder as in :func:`scratch_folder`, to be cleaned up by the caller.

    Raises:
        OSError: it cannot be created.
    """
    place = Path(tempfile.gettempdir())
    remove_abandoned(place, SCRATCH_PREFIX, "")
    return tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}{kind}{owned_token()}-")


@contextlib.contextmanager
def full_disk_told() -> Iterator[None]:
    """Turn the system's error on a full disk into an ``OutputError``.

    Raises:
        OutputError: the disk is full in the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OutputError(no_room(error)) from error


def no_room(error: OSError) -> str:
    """Message for a file that does not fit on the disk."""
    where = f"of {error.filename!r} " if error.filename else f"in {tempfile.gettempdir()!r} or of the output "
    return (
        f"a file cannot be written ({error.strerror or error}): the disk {where}is full or a limit on the "
        "size of files is reached; make room, or set TMPDIR and the output to a disk with more"
    )
