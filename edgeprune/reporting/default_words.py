"""What a report says of a search that nobody asked for: the ways side by side, which paid, and how sure."""

from __future__ import annotations

from edgeprune.artifacts.budget import BudgetSection, Candidate, PairedDrop
from edgeprune.artifacts.quantization import Precision
from edgeprune.reporting.formatting import MISSING, count_words, format_bytes, format_ms, format_share

_DECIDED = 0.95
_BITS = {
    Precision.FP32: "32 bits",
    Precision.FP16: "weights in 16 bits",
    Precision.INT8: "8 bits",
    Precision.AUTO: "8 bits where faster",
}


def default_line(section: BudgetSection) -> str:
    """What was looked for, though nobody asked, and among how many."""
    tried = count_words(sum(not _is_original(c) for c in section.candidates), "candidate")
    return f"the fastest within {_limit(section)} of {section.drop_of}, since no limit was given; {tried}"


def sure_line(section: BudgetSection) -> str:
    """How sure it is that the delivered network loses no more than the limit; empty where nobody asked less
    than that, or nothing was changed."""
    found = next((c for c in section.candidates if c.name == section.chosen), None)
    if not section.by_default or found is None or found.paired is None or _is_original(found):
        return ""
    paired, confidence = found.paired, found.paired.confidence
    if confidence is None:
        return ""
    lost = (
        f"{found.drop_points:.2f} points lost (95% interval {paired.low_points:.1f} to "
        f"{paired.high_points:.1f}) on {count_words(paired.images, 'held-out image')}"
    )
    if confidence >= _DECIDED:
        return f"{lost}: at most {_limit(section)} with {confidence:.0%} confidence"
    return (
        f"{lost}: chosen by that figure; that the true loss is at most {_limit(section)} is "
        f"{confidence:.0%} sure; {_more(paired)}"
    )


def way_columns() -> tuple[str, ...]:
    """Titles of ``way_rows``."""
    return ("model", "way", "latency", "latency share", "ONNX file", "points lost", "sure", "verdict")


def way_rows(section: BudgetSection) -> tuple[tuple[str, ...], ...]:
    """The original and every candidate, in the order in which they were tried.

    The original built as a candidate, which is delivered where nothing else holds, is not told twice.
    """
    tried = (c for c in section.candidates if not _is_original(c))
    return tuple(_row(c, section) for c in (section.original, *tried))


def ways_remark(section: BudgetSection) -> str:
    """Which way paid, and where the figures come from."""
    found = next((c for c in section.candidates if c.name == section.chosen), None)
    paid = "Nothing paid: the original is delivered."
    if found is not None and not _is_original(found):
        paid = f"What paid: {_way(found)}, {format_share(1 - found.latency_share)} off the latency."
    return (
        f"{paid} Points lost are of {section.drop_of} on held-out images with their 95% interval, image by "
        f"image against the original's answers; sure: the confidence that the true loss is at most "
        f"{_limit(section)}. The same images chose among the candidates, so that of the delivered one is a "
        "little too good."
    )


def _row(found: Candidate, section: BudgetSection) -> tuple[str, ...]:
    paired = found.paired
    lost = MISSING if found.drop_points is None else f"{found.drop_points:.2f}"
    if paired is not None and not _is_original(found):
        lost += f" ({paired.low_points:.1f} to {paired.high_points:.1f})"
    known = paired is not None and paired.confidence is not None and not _is_original(found)
    return (
        found.name,
        "as it was" if _is_original(found) else _way(found),
        format_ms(found.latency_ms, found.latency_provenance),
        format_share(found.latency_share),
        format_bytes(found.size_bytes),
        lost,
        f"{paired.confidence:.0%}" if known and paired is not None else "",
        _verdict(found, section),
    )


def _verdict(found: Candidate, section: BudgetSection) -> str:
    chosen = next((c for c in section.candidates if c.name == section.chosen), section.original)
    if found.name == section.chosen or (_is_original(found) and _is_original(chosen)):
        return "delivered"
    if found.name == section.original.name:
        return ""
    if found.exceeded:
        return "loses too much"
    if found.precision is not Precision.FP32 and not found.fewer_bits:
        return "no gain: nothing is faster in 8 bits"
    if found.latency_share <= chosen.latency_share:
        return "not surely faster than the original"
    return "slower than the delivered one"


def _is_original(found: Candidate) -> bool:
    return not _is_cut(found) and found.precision is Precision.FP32


def _is_cut(found: Candidate) -> bool:
    return found.macs_share < 1.0 or bool(found.dropped)


def _way(found: Candidate) -> str:
    """How the candidate was made."""
    if not _is_cut(found):
        return f"nothing pruned, {_BITS[found.precision]}"
    blocks = f" without {', '.join(found.dropped)}" if found.dropped else ""
    return f"{format_share(1 - found.macs_share)} of the MACs pruned{blocks}, {_BITS[found.precision]}"


def _limit(section: BudgetSection) -> str:
    points = section.budget.max_drop_points
    return "any loss" if points is None else f"{points:g} {'point' if points == 1 else 'points'}"


def _more(paired: PairedDrop) -> str:
    if paired.images_to_decide is None:
        return "it is too near to the limit for any reasonable number of images to decide"
    return f"about {paired.images_to_decide:,} held-out images would decide (--calibration, --held-out)"
