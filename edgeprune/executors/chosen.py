"""The executor that options ask for."""

from __future__ import annotations

from edgeprune.artifacts.choices import ExecutorKind
from edgeprune.errors import UsageError
from edgeprune.executors.local import LocalExecutor
from edgeprune.executors.ray_cluster import RayExecutor
from edgeprune.executors.resources import room_here
from edgeprune.executors.units import Executor


def executor_of(
    kind: ExecutorKind,
    address: str | None,
    most_units: int | None,
    *,
    memory_bytes: int | None = None,
    threads: int | None = None,
) -> Executor:
    """An executor of a kind for most units at once, of so many threads each; see :func:`room_here`.

    Raises:
        UsageError: an address was given for what has none.
    """
    check_address(kind, address)
    if kind is ExecutorKind.RAY:
        return RayExecutor(address, most_units)
    return LocalExecutor(room_here(most_units, memory_bytes, cores_each=threads or 1))


def check_address(kind: ExecutorKind, address: str | None) -> None:
    """Check that only Ray has an address.

    Raises:
        UsageError: something else has.
    """
    if address is not None and kind is not ExecutorKind.RAY:
        raise UsageError(
            "--ray-address was given without --executor ray, which it is for; give both, or none"
        )
