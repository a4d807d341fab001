"""Formatting of figures for people; exact values are in the JSON report."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgeprune.artifacts.latency import LatencyMeasurement, LatencyPrediction, LatencyRatio, Provenance
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.artifacts.report import ChannelSummary

MISSING = "not measured"


def format_bytes(size_bytes: int) -> str:
    """A size in B, KiB, MiB or GiB (powers of 1024)."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{size_bytes} B" if unit == "B" else f"{significant(value)} {unit}"
        value /= 1024
    return f"{significant(value)} GiB"


def format_count(count: int) -> str:
    """A count with k, M or G (powers of 1000)."""
    value = float(count)
    if value < 1000:
        return str(count)
    for unit in ("k", "M"):
        value /= 1000
        if value < 999.5:
            return f"{significant(value)} {unit}"
    return f"{significant(value / 1000)} G"


def count_words(count: int, one: str, several: str | None = None) -> str:
    """``1 image``, ``1,000 images``."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def format_macs(macs: int) -> str:
    """Multiply-accumulates per image, such as ``40.8 M MACs``."""
    return f"{format_count(macs)} MACs"


def format_change(before: float, after: float) -> str:
    """Relative change in percent with its sign; empty if ``before`` is 0."""
    if before == 0:
        return ""
    change = after / before - 1.0
    return "no change" if change == 0 else f"{100 * change:+.1f}%"


def significant(value: float, digits: int = 3) -> str:
    """A number with about three significant digits and no exponent."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.{digits - 1}e}")
    magnitude = math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def format_ms(milliseconds: float, provenance: Provenance) -> str:
    """A time with its provenance; formats every millisecond in a report."""
    return f"{significant(milliseconds)} ms ({provenance.value})"


def format_prediction(prediction: LatencyPrediction) -> str:
    """A predicted time with its error band."""
    band = f"band {significant(prediction.low_ms)} to {significant(prediction.high_ms)}"
    return f"{significant(prediction.latency_ms)} ms ({prediction.provenance.value}, {band})"


def format_share(share: float) -> str:
    """A share in [0, 1] as a percentage."""
    return f"{100 * share:.1f}%"


def format_quality(figure: AccuracyFigure, kind: AccuracyKind, *, interval: bool = True) -> str:
    """A quality figure, with its 95% interval."""
    show: Callable[[float], str] = format_share if kind.is_share else significant
    text = show(figure.value)
    return f"{text} (95% interval {show(figure.low)} to {show(figure.high)})" if interval else text


def format_ratio(ratio: LatencyRatio) -> str:
    """CPU time of the compressed model over the original's, and its interpretation."""
    where = "on this host" if ratio.provenance is Provenance.MEASURED_ON_HOST else "on the target"
    return (
        f"{ratio.ratio:.2f}x the original's CPU time {where} "
        f"({ratio.confidence:.0%} interval {ratio.low:.2f} to {ratio.high:.2f}, "
        f"{ratio.provenance.value}){doubt(ratio)}: {ratio_meaning(ratio)}"
    )


def doubt(figure: LatencyMeasurement | LatencyRatio) -> str:
    """What stands behind a time that is not to be trusted; nothing behind others."""
    return "" if figure.trusted else " NOT TO BE TRUSTED"


def timing_words(latency: LatencyMeasurement) -> str:
    """With what, where and how a model was timed."""
    where = f" in {latency.processes} processes" if latency.processes > 1 else ""
    return (
        f"{latency.runtime} on {latency.machine}, {count_words(latency.threads, 'thread')}, "
        f"batch {latency.batch_size}, {latency.repetitions} repetitions{where} after {latency.warmup} "
        "to warm up"
    )


def ratio_meaning(ratio: LatencyRatio) -> str:
    """``faster`` or ``slower`` only if the whole interval is on that side of 1."""
    if ratio.high < 1.0:
        return "faster"
    if ratio.low > 1.0:
        return "SLOWER"
    return "no clear difference"


def format_error(value: float) -> str:
    """A small error, such as a parity figure."""
    return "0" if value == 0 else f"{value:.1e}"


def constant_channels(channels: ChannelSummary) -> str:
    """Warning that channels no longer depend on the image."""
    first = channels.worst[0]
    return (
        f"{channels.constant} of {channels.channels} output channels became CONSTANT (the first is channel "
        f"{first.channel} of output {first.output})"
    )


def worst_channel(channels: ChannelSummary) -> str:
    """The worst channel and how far it is off."""
    worst = channels.worst[0]
    place = f"channel {worst.channel} of output {worst.output}"
    if worst.constant:
        return f"{place}, which became CONSTANT ({channels.constant} of {channels.channels} did)"
    return f"{place}, off by {format_error(worst.relative_error)} of its spread"
