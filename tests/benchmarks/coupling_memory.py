"""Memory of this process by the kernel's account (Linux with the GNU C library only)."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path


def memory_now_mb() -> float:
    """Resident MiB after all that is free was given back, which would else be used again uncounted."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Highest resident MiB since ``reset_peak``."""
    return _status_mb("VmHWM")


def reset_peak() -> None:
    """Forget the highest memory so far."""
    Path("/proc/self/clear_refs").write_text("5")


def _status_mb(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024
