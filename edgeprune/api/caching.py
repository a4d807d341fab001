"""The cache of results that runs share: listed, held against its hashes, pruned."""

from __future__ import annotations

from pathlib import Path

from edgeprune.caching.maintenance import CacheListing, Pruned, prune, read_cache
from edgeprune.errors import UsageError
from edgeprune.system.folders import cache_folder


def read_shared(folder: str | Path | None = None) -> CacheListing:
    """Every entry of a cache, held against its hashes.

    Args:
        folder: of the cache; that of the user where ``None``.

    Raises:
        UsageError: it is a file.
    """
    return read_cache(_place(folder))


def prune_shared(
    folder: str | Path | None = None,
    *,
    max_age_s: float | None = None,
    max_size_bytes: int | None = None,
) -> Pruned:
    """Remove damaged entries, and those beyond an age or a size; what was used last stays longest.

    Args:
        folder: of the cache; that of the user where ``None``.
        max_age_s: entries that were not used for so long go.
        max_size_bytes: those used longest ago go until the rest takes no more.

    Raises:
        UsageError: ``folder`` is a file.
    """
    return prune(_place(folder), max_age_s, max_size_bytes)


def _place(folder: str | Path | None) -> Path:
    place = cache_folder() if folder is None else Path(folder).expanduser()
    if place.exists() and not place.is_dir():
        raise UsageError(f"the cache {str(place)!r} is a file; name the folder of a cache")
    return place
