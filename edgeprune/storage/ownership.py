"""Temporary names that tell who made them, so that what a killed process left can be removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_OWNER = re.compile(r"(\d+)-(\d+)-([0-9a-f]{8})-[0-9a-f]{12}")
_NOT_TOLD = 0
HIDDEN_PREFIX = ".edgeprune-"
TEMPORARY_SUFFIX = ".tmp"


def owned_token() -> str:
    """A word that no other process makes: process id, when it started, where it runs, chance."""
    pid = os.getpid()
    return f"{pid}-{_started(pid) or _NOT_TOLD}-{_place()}-{secrets.token_hex(6)}"


def hidden_name() -> str:
    """Name of a hidden file or folder that is being filled by this process."""
    return f"{HIDDEN_PREFIX}{owned_token()}{TEMPORARY_SUFFIX}"


def is_abandoned(name: str) -> bool:
    """Whether the process that a name tells of is gone; not where it ran elsewhere or nothing is told.

    Elsewhere is another machine, another container, or this machine before it was started anew.
    """
    found = _OWNER.search(name)
    if found is None or found[3] != _place():
        return False
    pid, started = int(found[1]), int(found[2])
    if not _is_alive(pid):
        return True
    # A later process may have got the same number.
    now = _started(pid)
    return _NOT_TOLD not in (started, now or _NOT_TOLD) and now != started


def abandoned(folder: Path, prefix: str, suffix: str = "") -> Iterator[Path]:
    """What killed processes of the same user left in ``folder`` under such names."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if name.startswith(prefix) and name.endswith(suffix) and is_abandoned(name):
            path = folder / name
            with contextlib.suppress(OSError):
                if not hasattr(os, "geteuid") or path.lstat().st_uid == os.geteuid():
                    yield path


def remove_abandoned(folder: Path, prefix: str = HIDDEN_PREFIX, suffix: str = TEMPORARY_SUFFIX) -> None:
    """Delete what killed processes left in ``folder``; what cannot be deleted stays."""
    for path in abandoned(folder, prefix, suffix):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # of another user
    return not _is_finished(pid)


def _is_finished(pid: int) -> bool:
    """Whether only the entry of an ended process is left, which nobody has asked for yet."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in ("Z", "X")


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since the system did; ``None`` where that is not told."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """The fields of Linux's ``/proc/PID/stat`` behind the name, which may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _place() -> str:
    """This machine since it started, and the part of it whose processes are seen here."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
