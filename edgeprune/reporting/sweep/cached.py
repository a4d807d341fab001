"""The entries of a cache as a table."""

from __future__ import annotations

from edgeprune.caching.maintenance import CacheEntry, CacheListing
from edgeprune.reporting.formatting import count_words, format_bytes, significant
from edgeprune.reporting.table import Table

_DIGITS = 12


def cache_table(found: CacheListing) -> Table:
    """One row an entry, those used last first."""
    return Table(
        title=f"{count_words(len(found.entries), 'entry', 'entries')} of {found.folder}, "
        f"{format_bytes(found.size_bytes)}{'' if found.is_there else ' (there is no such folder yet)'}",
        columns=("stage", "entry", "used last (UTC)", "size", "took", "of", "state"),
        rows=tuple(map(_row, found.entries)),
        code_columns=frozenset({1}),
        numeric_columns=frozenset({3, 4}),
        narrow_columns=(0, 1, 3, 6),
    )


def _row(entry: CacheEntry) -> tuple[str, ...]:
    parts = entry.decided_by
    about = [f"{name} {parts[name]}" for name in ("criterion", "cut", "effort", "seed") if name in parts]
    if "removed" in parts:  # a tuple of players, as text
        count = sum(bool(each.strip()) for each in parts["removed"].strip("()").split(","))
        about.insert(0, f"without {count_words(count, 'channel')}")
    network = parts.get("network", "")
    return (
        entry.stage,
        entry.digest[:_DIGITS],
        entry.used_utc.replace("T", " ").removesuffix("+00:00"),
        format_bytes(entry.size_bytes),
        f"{significant(entry.duration_s)} s",
        ", ".join([*([f"network {network[:_DIGITS]}"] if network else []), *about]),
        f"DAMAGED: {entry.fault}" if entry.fault else "whole",
    )
