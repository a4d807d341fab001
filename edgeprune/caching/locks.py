"""Locks between processes on files; the system releases those of a process that ends."""

from __future__ import annotations

import contextlib
import logging
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


def _locked(descriptor: int) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except (ImportError, OSError) as error:
        _log.info("no lock in the cache: %s", error)
        return False
    return True
