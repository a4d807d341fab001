"""What is in a cache: listed, held against its hashes, and removed."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgeprune.caching.keys import Stage
from edgeprune.caching.store import ENTRY_NAME, LOCKS, DamagedEntryError, checked_entry
from edgeprune.storage.ownership import remove_abandoned


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One result; ``fault`` says what is damaged, empty where nothing is.

    ``duration_s`` is what computing it took; that and ``decided_by`` are empty where the record is damaged.
    """

    stage: str
    digest: str
    path: str
    size_bytes: int
    used_utc: str
    duration_s: float
    decided_by: dict[str, str]
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class CacheListing:
    """All entries of a cache, those used last first; ``is_there``: its folder exists."""

    folder: str
    entries: tuple[CacheEntry, ...]
    is_there: bool = True

    @property
    def size_bytes(self) -> int:
        """Of all entries."""
        return sum(entry.size_bytes for entry in self.entries)

    @property
    def damaged(self) -> tuple[CacheEntry, ...]:
        """Entries that do not hold their hashes."""
        return tuple(entry for entry in self.entries if entry.fault)


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was removed from a cache, and what is left."""

    removed: tuple[CacheEntry, ...]
    left: CacheListing


def read_cache(folder: Path) -> CacheListing:
    """Every entry, held against its hashes. A folder that is not there has none."""
    found = sorted(
        map(_read, _places(folder)), key=lambda entry: (entry.used_utc, entry.digest), reverse=True
    )
    return CacheListing(folder=str(folder), entries=tuple(found), is_there=folder.is_dir())


def prune(folder: Path, max_age_s: float | None = None, max_size_bytes: int | None = None) -> Pruned:
    """Remove damaged entries, those not used for ``max_age_s``, and those used longest ago beyond a size.

    A run that reads an entry meanwhile computes it anew.
    """
    for stage in Stage:
        remove_abandoned(folder / stage.value)
    oldest = None if max_age_s is None else _utc(time.time() - max_age_s)
    kept_bytes, removed, left = 0, [], []
    for entry in read_cache(folder).entries:
        is_old = oldest is not None and entry.used_utc < oldest
        too_much = max_size_bytes is not None and kept_bytes + entry.size_bytes > max_size_bytes
        if entry.fault or is_old or too_much:
            _remove(folder, entry)
            removed.append(entry)
        else:
            kept_bytes += entry.size_bytes
            left.append(entry)
    kept = CacheListing(folder=str(folder), entries=tuple(left), is_there=folder.is_dir())
    return Pruned(removed=tuple(removed), left=kept)


def _places(folder: Path) -> Iterator[Path]:
    for stage in Stage:
        with contextlib.suppress(OSError):
            for few in sorted((folder / stage.value).iterdir()):
                if few.is_dir() and not few.name.startswith("."):
                    yield from (place for place in sorted(few.iterdir()) if place.is_dir())


def _read(place: Path) -> CacheEntry:
    used_s, size = 0.0, 0
    for path in (place, *place.rglob("*")):
        with contextlib.suppress(OSError):
            status = path.stat()
            size += status.st_size if path.is_file() else 0
            used_s = max(used_s, status.st_mtime if path.name == ENTRY_NAME else 0.0)
    plain = CacheEntry(
        stage=place.parent.parent.name,
        digest=place.name,
        path=str(place),
        size_bytes=size,
        used_utc=_utc(used_s),
        duration_s=0.0,
        decided_by={},
    )
    try:
        record = checked_entry(place)
        parts = {str(name): str(words) for name, words in record["parts"].items()}
        return replace(plain, decided_by=parts, duration_s=float(record["duration_s"]))
    except (DamagedEntryError, AttributeError, TypeError, ValueError) as error:
        return replace(plain, fault=str(error))


def _remove(folder: Path, entry: CacheEntry) -> None:
    shutil.rmtree(entry.path, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / LOCKS / f"{entry.digest}.lock").unlink()
    with contextlib.suppress(OSError):
        Path(entry.path).parent.rmdir()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
