"""Temporary names that identify their process, so that leftovers of killed ones can be removed."""

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
    """Token unique to this process: process id, start time, machine, random part."""
    pid = os.getpid()
    return f"{pid}-{_started(pid) or _NOT_TOLD}-{_place()}-{secrets.token_hex(6)}"


def hidden_name() -> str:
    """Name of a hidden file or folder that this process is filling."""
    return f"{HIDDEN_PREFIX}{owned_token()}{TEMPORARY_SUFFIX}"


def is_abandoned(name: str) -> bool:
    """Whether the process that a name identifies has ended; false if it ran elsewhere or is unknown.

    Elsewhere is another machine, another container, or this machine before a reboot.
    """
    match = _OWNER.search(name)
    if match is None or match[3] != _place():
        return False
    pid, started = int(match[1]), int(match[2])
    if not _is_alive(pid):
        return True
    # A later process may have got the same process id.
    now = _started(pid)
    return _NOT_TOLD not in (started, now or _NOT_TOLD) and now != started


def abandoned(folder: Path, prefix: str, suffix: str = "") -> Iterator[Path]:
    """Leftovers of killed processes of the same user in ``folder``, by prefix and suffix."""
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
    """Delete leftovers of killed processes in ``folder``; what cannot be deleted stays."""
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
    """Whether a process has ended but was not reaped yet."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in ("Z", "X")


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; ``None`` if unknown."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """The fields of Linux's ``/proc/PID/stat`` after the name, which may hold any characters."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _place() -> str:
    """Hash of this machine, its boot id and its process namespace."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
