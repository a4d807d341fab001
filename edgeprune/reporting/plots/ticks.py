"""Round tick values of an axis, and their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def nice_ticks(low: float, high: float, count: int = 6) -> tuple[float, ...]:
    """About ``count`` round numbers that enclose ``low`` to ``high``, in steps of 1, 2 or 5 x 10^k."""
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ValueError(f"no axis from {low} to {high}")
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        half = abs(high) * 0.5 or 1.0
        low, high = low - half, high + half
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1))


def tick_labels(ticks: Sequence[float], *, percent: bool = False) -> tuple[tuple[str, ...], str]:
    """Tick labels with the same number of decimals, and the power of ten that is factored out."""
    if percent:
        ticks = [100 * t for t in ticks]
    largest = max(abs(t) for t in ticks)
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0
    exponent = exponent if exponent < -2 or exponent > 4 else 0
    scaled = [t / 10.0**exponent for t in ticks]
    step = abs(scaled[1] - scaled[0]) if len(scaled) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    labels = tuple(f"{t:.{decimals}f}".replace("-", "\u2212") for t in scaled)
    shown = tuple(f"{label}%" for label in labels) if percent else labels
    return shown, f"\u00d710{str(exponent).translate(_SUPERSCRIPTS)}" if exponent else ""
