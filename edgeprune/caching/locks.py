"""Locks between processes on files and folders; the system releases those of a process that ends."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from edgeprune.errors import OutputError

_log = logging.getLogger("edgeprune.caching")


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Wait until nobody else holds the lock of this file, and hold it in the block.

    Yields whether that was possible: without locks (Windows, some network file systems) two processes may
    both compute what one could have; what they write is whole all the same.

    Raises:
        OutputError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a")
    except OSError as error:
        raise OutputError(f"{str(path)!r} of the cache cannot be written ({error.strerror})") from error
    with stream:
        yield _locked(stream.fileno())
        # Closing the file releases the lock. It stays: one that waits for it must not hold a removed one.


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold an existing folder in the block; yields false at once where another process does, or removed it.

    Without locks nothing is held, and it yields true.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:  # Windows has no such descriptors
        _log.info("no lock of %r: %s", str(folder), error)
        yield True
        return
    try:
        yield _is_ours(folder, descriptor)
    finally:
        os.close(descriptor)


def _is_ours(folder: Path, descriptor: int) -> bool:
    try:
        _locked(descriptor, waits=False)
        return os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except (BlockingIOError, FileNotFoundError):
        return False


def _locked(descriptor: int, *, waits: bool = True) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError) as error:
        _log.info("no lock in the cache: %s", error)
        return False
    return True
