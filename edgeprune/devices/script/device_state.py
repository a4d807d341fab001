"""What a device is, and the state that decides how fast it is: clock, temperature, throttling. Python 3.9 on.

What its system does not tell is ``None``. Beside ``measure.py`` on devices.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_NOISY = 1.5
_SLOWED = 0.9
_THROTTLED_NOW, _SINCE_START = 0xF, 0xF0000
_CPU = Path("/sys/devices/system/cpu")


def state() -> dict[str, Any]:
    """What changes while a device works."""
    clocks = [read(path) for path in _CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    warm = read(Path("/sys/class/thermal/thermal_zone0/temp"))
    return {
        "clock_khz": max((int(text) for text in clocks if text and text.isdigit()), default=None),
        "temperature_c": int(warm) / 1000 if warm and warm.lstrip("-").isdigit() else None,
        "throttled": throttled_flags(),
    }


def throttled_flags() -> str | None:
    """``vcgencmd get_throttled`` of a Raspberry Pi, such as ``0x50005``."""
    try:
        done = subprocess.run(["vcgencmd", "get_throttled"], stdout=subprocess.PIPE, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("ascii", "replace").strip().partition("=")[2] or None


def machine(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What decides how fast a device is; what its system does not tell is null."""
    import numpy as np
    import onnxruntime as ort

    board = read(Path("/proc/device-tree/model"))
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "cpu_name": board.strip("\0") if board else cpu_name(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "governor": read(_CPU / "cpu0/cpufreq/scaling_governor"),
        "clock_khz_before": before["clock_khz"],
        "clock_khz_after": after["clock_khz"],
        "temperature_c_before": before["temperature_c"],
        "temperature_c_after": after["temperature_c"],
        "throttled_flags": after["throttled"],
        "load_average": os.getloadavg()[0],
    }


def cpu_name() -> str | None:
    """Of the first processor."""
    for line in (read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware", "model") and not value.strip().isdigit():
            return value.strip()
    return platform.machine() or None


def cautions(before: dict[str, Any], after: dict[str, Any], models: dict[str, Any]) -> list[str]:
    """Why the figures may be less than they seem."""
    told = []
    flags = after["throttled"] or "0"
    since = int(flags, 16) & ~int(before["throttled"] or "0", 16) & _SINCE_START
    if int(flags, 16) & _THROTTLED_NOW or since:
        told.append(f"the device was throttled during the measurement (flags {flags})")
    clocks = before["clock_khz"], after["clock_khz"]
    if None not in clocks and clocks[1] < _SLOWED * clocks[0]:
        told.append(f"the clock fell from {clocks[0] // 1000} to {clocks[1] // 1000} MHz")
    worst = max((m["latency_p90_ms"] / m["latency_p50_ms"] for m in models.values()), default=1.0)
    if worst > _NOISY:
        told.append(f"one run in ten took {worst:.1f} times the median or more, so the device was busy")
    return told


def read(path: Path) -> str | None:
    """Text of a file of the system, if there is one."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
