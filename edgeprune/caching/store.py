"""A folder of results by the hash of what decided them; several processes may use it at once.

``STAGE/ab/DIGEST/`` has ``entry.json``, a record of the key and of the hashes of the files beside it. An
entry is filled in a hidden folder and renamed, so that it is whole or not there.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.caching.keys import Key, Stage
from edgeprune.caching.locks import held
from edgeprune.errors import OutputError
from edgeprune.storage.documents import UnreadableError
from edgeprune.storage.files import check_room
from edgeprune.storage.ownership import hidden_name, remove_abandoned
from edgeprune.storage.records import check_files, read_record, write_record
from edgeprune.system.folders import cache_folder

_log = logging.getLogger("edgeprune.caching")

ENTRY_NAME = "entry.json"
LOCKS = "locks"

Result = TypeVar("Result")


class Origin(Enum):
    """Where a result came from."""

    COMPUTED = "computed"
    TAKEN = "taken"


@dataclass(frozen=True, kw_only=True)
class Use:
    """One result that a run needed: computed now and kept, or taken from the cache.

    ``damaged``: an entry was there and did not hold its hashes. ``duration_s`` is the time that computing it
    took: now, without other results that were made for it, or then, with them.
    """

    stage: Stage
    digest: str
    origin: Origin
    duration_s: float
    damaged: bool = False


class DamagedEntryError(Exception):
    """An entry does not hold what was written; the message says what is wrong."""


class Store:
    """The cache in ``folder`` (that of the user where ``None``), and what was asked of it so far."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()).expanduser()
        self.uses: list[Use] = []
        self._inner_s = 0.0  # of results that were made while another one is

    def check(self) -> None:
        """Check that entries can be written, and remove those of killed processes that were not finished.

        A folder that is not there is made with the first entry, so that a refused run leaves nothing.

        Raises:
            OutputError: the folder cannot be made or written.
        """
        try:
            there = next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists())
            reason = "" if there.is_dir() else f"{str(there)!r} is no folder"
        except OSError as error:
            reason = str(error.strerror)
        if reason:
            raise OutputError(
                f"the cache {str(self.folder)!r} cannot be made ({reason}); name another folder"
            )
        check_room(there, str(self.folder))
        for stage in Stage:
            remove_abandoned(self.folder / stage.value)

    def place(self, key: Key) -> Path:
        """The folder of an entry."""
        return self.folder / key.stage.value / key.digest[:2] / key.digest

    def get(
        self,
        key: Key,
        make: Callable[[], Result],
        write: Callable[[Path, Result], None],
        read: Callable[[Path], Result],
    ) -> Result:
        """The result of ``key``: read from its entry, or made now and written.

        ``write`` fills an empty folder, ``read`` gives what it wrote back, equal in every bit, or raises
        ``DamagedEntryError``. Who asks for a result that another process is making waits for it. A damaged
        entry is made anew, with a warning; another warning says where an entry cannot be written.

        Raises:
            OutputError: no lock can be had, since the folder cannot be written.
        """
        with held(self.folder / LOCKS / f"{key.digest}.lock"):
            was_damaged = False
            try:
                if (found := self._read(key, read)) is not None:
                    return found[0]
            except DamagedEntryError as error:
                was_damaged = True
                _log.warning("the cached %s %s is damaged, so it is made anew: %s",
                             key.stage.value, self.place(key), error)  # fmt: skip
            outer_s, self._inner_s = self._inner_s, 0.0
            began = time.monotonic()
            made = make()
            took_s = time.monotonic() - began
            own_s, self._inner_s = took_s - self._inner_s, outer_s + took_s
            self._write(key, took_s, lambda folder: write(folder, made))
            use = Use(stage=key.stage, digest=key.digest, origin=Origin.COMPUTED, duration_s=own_s)
            self.uses.append(replace(use, damaged=was_damaged))
            return made

    def _read(self, key: Key, read: Callable[[Path], Result]) -> tuple[Result] | None:
        place = self.place(key)
        if not place.exists():
            return None
        entry = checked_entry(place)
        if entry["parts"] != key.parts:
            raise DamagedEntryError("it is that of another key")
        result = read(place)
        with contextlib.suppress(OSError):
            os.utime(place / ENTRY_NAME)  # what was used last is pruned last
        before_s = entry["duration_s"]
        self.uses.append(Use(stage=key.stage, digest=key.digest, origin=Origin.TAKEN, duration_s=before_s))
        return (result,)

    def _write(self, key: Key, took_s: float, fill: Callable[[Path], None]) -> None:
        place = self.place(key)
        staging = place.parent.parent / hidden_name()
        try:
            staging.mkdir(parents=True)
            fill(staging)
            filled = tuple(sorted(staging.iterdir()))
            entry = {"stage": key.stage.value, "parts": key.parts, "duration_s": took_s}
            write_record(staging / ENTRY_NAME, entry, files=filled, indent=1)
            place.parent.mkdir(exist_ok=True)
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)  # a damaged one; whoever reads it meanwhile makes it anew
            else:
                place.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                staging.rename(place)
        except (OSError, OutputError) as error:
            # What was computed is worth more than the cache.
            _log.warning("the cache %r cannot be written, so what was computed is not kept there: %s",
                         str(self.folder), error)  # fmt: skip
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def checked_entry(place: Path) -> dict[str, Any]:
    """The record of an entry, once its files are found to be those that were written.

    Raises:
        DamagedEntryError: a file is missing or was changed, or there is no record.
    """
    try:
        entry = read_record(place / ENTRY_NAME)
        check_files(place / ENTRY_NAME)
    except UnreadableError as error:
        raise DamagedEntryError(f"{ENTRY_NAME} {error}") from error
    if not isinstance(entry, dict) or entry.keys() != {"stage", "parts", "duration_s"}:
        raise DamagedEntryError(f"{ENTRY_NAME} is no record of an entry")
    took_s = entry["duration_s"]
    if type(took_s) not in (int, float) or not (math.isfinite(took_s) and took_s >= 0):
        raise DamagedEntryError(f"{ENTRY_NAME} says that it took {took_s!r} seconds")
    return entry
