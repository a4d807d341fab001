"""Memory limit of this process: that of the machine, its container or its user."""

from __future__ import annotations

from pathlib import Path

from edgeprune.system.host import physical_memory_bytes

CONTAINER_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Memory limits of Linux control groups, versions 2 and 1, as seen in a container."""


def memory_limit_bytes() -> int | None:
    """Lowest limit that the system reports; ``None`` if it reports none."""
    limits = [physical_memory_bytes(), *map(_of_container, CONTAINER_FILES), _of_process()]
    return min((limit for limit in limits if limit is not None), default=None)


def _of_container(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None  # "max" where there is none


def _of_process() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft
