"""State of a long estimate on disk, so that an interrupted one resumes with the same result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import UsageError
from edgeprune.storage.documents import UnreadableError, read_arrays
from edgeprune.storage.files import atomic_write

State = Mapping[str, NDArray[Any]]
"""Everything an estimate needs to go on, by name; the state of its random numbers included."""

_FINGERPRINT = "fingerprint"
_DIGEST = "digest"
_INTERVAL_S = 5.0
_LEAST_WORK_PER_SAVE = 20.0
"""Seconds of work between saves for each second that a save took."""


class Checkpoint(Protocol):
    """Stores the state of one estimate."""

    def restored(self) -> State | None:
        """The state that an earlier run left; ``None`` at a first start."""
        ...

    def offer(self, state: Callable[[], State]) -> None:
        """Store the state if it is due."""
        ...

    def keep(self, state: Callable[[], State]) -> None:
        """Store the state."""
        ...


class NoCheckpoint:
    """Checkpoint of estimates that are not stored."""

    def restored(self) -> State | None:
        """No state."""
        return None

    def offer(self, state: Callable[[], State]) -> None:
        """Stores nothing."""

    def keep(self, state: Callable[[], State]) -> None:
        """Stores nothing."""


class FileCheckpoint:
    """The state in one ``.npz`` file, replaced atomically every few seconds.

    Args:
        path: in a folder that exists.
        fingerprint: everything that determines the estimate; a file of another one is refused.
        interval_s: minimum time between stored offers; longer where saving takes long.

    Raises:
        UsageError: the file was begun with other settings or is damaged.
    """

    def __init__(self, path: Path, *, fingerprint: str, interval_s: float = _INTERVAL_S) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self._interval_s = interval_s
        self._wait_s = interval_s
        self._kept_at = time.monotonic()
        self._restored = self._read() if path.exists() else None

    def restored(self) -> State | None:
        """The state that the file held when it was opened."""
        return self._restored

    def offer(self, state: Callable[[], State]) -> None:
        """Store the state if the last one is old enough."""
        if time.monotonic() - self._kept_at >= self._wait_s:
            self.keep(state)

    def keep(self, state: Callable[[], State]) -> None:
        """Replace the file.

        Raises:
            OutputError: it cannot be written.
        """
        started = time.monotonic()
        arrays = dict(state())
        words = {_FINGERPRINT: _bytes_of(self._fingerprint), _DIGEST: _bytes_of(_digest(arrays))}
        atomic_write(self.path, lambda stream: np.savez(stream, **words, **arrays))  # type: ignore[arg-type]
        self._kept_at = time.monotonic()
        self._wait_s = max(self._interval_s, _LEAST_WORK_PER_SAVE * (self._kept_at - started))

    def _read(self) -> State:
        try:
            arrays = read_arrays(self.path)
            fingerprint, digest = _text_of(arrays.pop(_FINGERPRINT)), _text_of(arrays.pop(_DIGEST))
            if digest != _digest(arrays):
                raise ValueError("other content than was written")
        except (UnreadableError, ValueError, KeyError) as error:
            raise UsageError(
                f"{str(self.path)!r} is damaged, so the run cannot go on with it: delete it to begin this "
                "estimate anew"
            ) from error
        if fingerprint != self._fingerprint:
            raise UsageError(
                f"{str(self.path)!r} was begun with other settings and is of no use here: ask for the same "
                "again, or delete it to begin this estimate anew"
            )
        return arrays


def generator_state(rng: np.random.Generator) -> NDArray[np.uint8]:
    """State of the random generator, as bytes (k,)."""
    return _bytes_of(json.dumps(rng.bit_generator.state, default=lambda array: array.tolist()))


def set_generator(rng: np.random.Generator, state: NDArray[np.uint8]) -> None:
    """Restore a state of the random generator from ``generator_state``."""
    rng.bit_generator.state = json.loads(_text_of(state))


def _digest(state: State) -> str:
    """Hash of all names and arrays, to verify them when they are read back."""
    hasher = hashlib.sha256()
    for name, array in sorted(state.items()):
        hasher.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def _bytes_of(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


def _text_of(array: NDArray[Any]) -> str:
    return array.tobytes().decode("utf-8")
