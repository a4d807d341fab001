"""Parsers of option values with units, such as ``40ms``, ``2GB`` or ``10min``."""

from __future__ import annotations

import re

from edgeprune import limits
from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.choices import Finetune
from edgeprune.errors import UsageError
from edgeprune.showing import in_short

_SHOWN = 60
_FLAGS = re.IGNORECASE | re.ASCII
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(value: str, *, option: str) -> int:
    """A number of bytes from ``2GB``, ``512 MiB`` or ``1.5gb``; kB, MB and GB are powers of 1,000.

    Raises:
        UsageError: not a positive number with one of the units.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([a-z]+)\s*", value, flags=_FLAGS)
    unit = _UNITS.get(match[2].lower()) if match is not None else None
    size = int(float(match[1]) * unit) if match is not None and unit is not None else 0
    if size < 1:
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted is a number with a unit, such as 2GB, 500MB or "
            "1GiB (kB, MB, GB: powers of 1000; KiB, MiB, GiB: powers of 1024)"
        )
    return size


_TIMES_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_TIMES_S = {"s": 1, "min": 60, "h": 3600}


def parse_latency(value: str, *, option: str) -> tuple[float | None, float | None]:
    """Milliseconds from ``40ms``, ``800us`` or ``1.5s``, or a share of the original's from ``50%``.

    Raises:
        UsageError: not a positive number with one of the units.
    """
    match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d+)?|\.\d+)\s*(us|µs|ms|s|%)\s*", value, flags=_FLAGS)
    number = float(match[1]) if match is not None else 0.0
    if match is None or number <= 0.0:
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted is a time with its unit, such as 40ms, 800us or "
            "1.5s, or a share of the original's latency, such as 50%"
        )
    unit = match[2].lower()
    return (None, number / 100) if unit == "%" else (number * _TIMES_MS[unit], None)


def parse_finetune(value: str, *, option: str) -> Finetune:
    """Steps from ``250``, or a time from ``60s`` or ``2min``.

    Raises:
        UsageError: neither a whole number from 1 on nor a positive time with its unit.
    """
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d+)?)\s*(s|min|h)?\s*", value, flags=_FLAGS)
    number = float(match[1]) if match is not None else 0.0
    if match is None or number <= 0.0 or (match[2] is None and not number.is_integer()):
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted are steps, such as 250, or a time, "
            "such as 60s or 2min"
        )
    if match[2] is None:
        limits.FINETUNE_STEPS.check(option, int(number))
        return Finetune(steps=int(number))
    return Finetune(time_limit_s=_seconds(match, option))


def parse_duration(value: str, *, option: str) -> float:
    """Seconds from ``90s``, ``10min`` or ``1.5h``.

    Raises:
        UsageError: not a positive time with its unit.
    """
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d+)?)\s*(s|min|h)\s*", value, flags=_FLAGS)
    if match is None or float(match[1]) <= 0.0:
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted is a time with its unit, such as 90s or 10min"
        )
    return _seconds(match, option)


def _seconds(match: re.Match[str], option: str) -> float:
    """Seconds from a matched number and unit, checked against the limits."""
    seconds = float(match[1]) * _TIMES_S[match[2].lower()]
    limits.TIME_S.check(option, seconds)
    return seconds


def parse_points(value: str, *, option: str) -> float:
    """Percentage points from ``1``, ``0.5%`` or ``1.5 points``.

    Raises:
        UsageError: not a number from 0 to 100.
    """
    match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d+)?|\.\d+)\s*(%|points?|pp)?\s*", value, flags=_FLAGS)
    if match is None or float(match[1]) > 100:
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted are percentage points of accuracy from 0 to 100, "
            "such as 1 or 0.5%"
        )
    return float(match[1])


def parse_budget(
    max_latency: str | None, max_size: str | None, max_memory: str | None, max_drop: str | None
) -> Budget:
    """The budget given by the options.

    Raises:
        UsageError: a value has no known unit, or is out of range.
    """
    time_ms, share = (
        (None, None) if max_latency is None else parse_latency(max_latency, option="--max-latency")
    )
    return Budget(
        max_latency_ms=time_ms,
        max_latency_share=share,
        max_size_bytes=None if max_size is None else parse_bytes(max_size, option="--max-size"),
        max_memory_bytes=None if max_memory is None else parse_bytes(max_memory, option="--max-memory"),
        max_drop_points=None if max_drop is None else parse_points(max_drop, option="--max-drop"),
    )


def _shown(value: str) -> str:
    """The value as typed; quoted if it is blank, shortened if it is long."""
    return value if value.strip() and len(value) <= _SHOWN else in_short(value)
