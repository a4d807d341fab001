"""How many units may run at once, and what each may take."""

from __future__ import annotations

import os
from dataclasses import dataclass

from edgeprune.system.available import memory_limit_bytes

_OF_MEMORY = 0.8
"""Share of this machine's memory that units get together, where nobody says otherwise."""
_LEAST_SHARE_BYTES = 1 << 30
"""A share below that is no use: loading the libraries alone takes a third of it."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """Units at once, and the cores and bytes of memory that they have together.

    ``memory_bytes`` is ``None`` where neither the system nor anyone tells.
    """

    most_units: int
    cores: int
    memory_bytes: int | None

    @property
    def share_bytes(self) -> int | None:
        """An equal share of the memory."""
        return None if self.memory_bytes is None else self.memory_bytes // self.most_units


def room_here(
    max_parallel: int | None = None, memory_bytes: int | None = None, *, cores_each: int = 1
) -> Room:
    """Room on this machine: as many units as its cores and its memory allow, or ``max_parallel``.

    ``memory_bytes`` is what all units may take together (four fifths of what this machine or its container
    has where ``None``); ``cores_each``: what one takes.
    """
    cores = usable_cores()
    budget = memory_bytes
    if budget is None and (limit := memory_limit_bytes()) is not None:
        budget = int(_OF_MEMORY * limit)
    by_memory = cores if budget is None else max(1, budget // _LEAST_SHARE_BYTES)
    most = max_parallel or max(1, min(cores // cores_each, by_memory))
    return Room(most_units=most, cores=max(cores, most * cores_each), memory_bytes=budget)


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
