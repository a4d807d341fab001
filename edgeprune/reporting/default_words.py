"""Report text of the default search: candidates side by side, which one paid off, and the confidence."""

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
    """Goal of the default search, and the number of candidates."""
    tried = count_words(sum(not _is_original(c) for c in section.candidates), "candidate")
    return f"the fastest within {_limit(section)} of {section.drop_of}, since no limit was given; {tried}"


def sure_line(section: BudgetSection) -> str:
    """Confidence that the delivered loss is within the default limit; empty for a limit given by the user, or
    if nothing was changed."""
    chosen = next((c for c in section.candidates if c.name == section.chosen), None)
    if not section.by_default or chosen is None or chosen.paired is None or _is_original(chosen):
        return ""
    paired, confidence = chosen.paired, chosen.paired.confidence
    if confidence is None:
        return ""
    lost = (
        f"{chosen.drop_points:.2f} points lost (95% interval {paired.low_points:.1f} to "
        f"{paired.high_points:.1f}) on {count_words(paired.images, 'held-out image')}"
    )
    if confidence >= _DECIDED:
        return f"{lost}: at most {_limit(section)} with {confidence:.0%} confidence"
    return (
        f"{lost}: chosen by that figure; that the true loss is at most {_limit(section)} is "
        f"{confidence:.0%} sure; {_more(paired, _limit(section))}"
    )


def way_columns() -> tuple[str, ...]:
    """Column titles of ``way_rows``."""
    return ("model", "way", "latency", "latency share", "ONNX file", "points lost", "sure", "verdict")


def way_rows(section: BudgetSection) -> tuple[tuple[str, ...], ...]:
    """The original and every candidate, in the order in which they were tried.

    The original built as a candidate, delivered if nothing else is within the limit, is not repeated.
    """
    tried = (c for c in section.candidates if not _is_original(c))
    return tuple(_row(c, section) for c in (section.original, *tried))


def ways_remark(section: BudgetSection) -> str:
    """Remark on which candidate paid off, and where the figures come from."""
    chosen = next((c for c in section.candidates if c.name == section.chosen), None)
    paid = "Nothing paid: the original is delivered."
    if chosen is not None and not _is_original(chosen):
        paid = f"What paid: {_way(chosen)}, {format_share(1 - chosen.latency_share)} off the latency."
    return (
        f"{paid} Points lost are of {section.drop_of} on held-out images with their 95% interval, image by "
        f"image against the original's answers; sure: the confidence that the true loss is at most "
        f"{_limit(section)}. The same images chose among the candidates, so that of the delivered one is a "
        "little too good."
    )


def _row(candidate: Candidate, section: BudgetSection) -> tuple[str, ...]:
    paired = candidate.paired
    lost = MISSING if candidate.drop_points is None else f"{candidate.drop_points:.2f}"
    if paired is not None and not _is_original(candidate):
        lost += f" ({paired.low_points:.1f} to {paired.high_points:.1f})"
    known = paired is not None and paired.confidence is not None and not _is_original(candidate)
    return (
        candidate.name,
        "as it was" if _is_original(candidate) else _way(candidate),
        format_ms(candidate.latency_ms, candidate.latency_provenance),
        format_share(candidate.latency_share),
        format_bytes(candidate.size_bytes),
        lost,
        f"{paired.confidence:.0%}" if known and paired is not None else "",
        _verdict(candidate, section),
    )


def _verdict(candidate: Candidate, section: BudgetSection) -> str:
    chosen = next((c for c in section.candidates if c.name == section.chosen), section.original)
    if candidate.name == section.chosen or (_is_original(candidate) and _is_original(chosen)):
        return "delivered"
    if candidate.name == section.original.name:
        return ""
    if candidate.exceeded:
        return "loses too much"
    if candidate.precision is not Precision.FP32 and not candidate.fewer_bits:
        return "no gain: nothing is faster in 8 bits"
    if candidate.latency_share <= chosen.latency_share:
        return "not surely faster than the original"
    return "slower than the delivered one"


def _is_original(candidate: Candidate) -> bool:
    return not _is_cut(candidate) and candidate.precision is Precision.FP32


def _is_cut(candidate: Candidate) -> bool:
    return candidate.macs_share < 1.0 or bool(candidate.dropped)


def _way(candidate: Candidate) -> str:
    """How the candidate was made."""
    if not _is_cut(candidate):
        return f"nothing pruned, {_BITS[candidate.precision]}"
    blocks = f" without {', '.join(candidate.dropped)}" if candidate.dropped else ""
    return (
        f"{format_share(1 - candidate.macs_share)} of the MACs pruned{blocks}, {_BITS[candidate.precision]}"
    )


def _limit(section: BudgetSection) -> str:
    points = section.budget.max_drop_points
    return "any loss" if points is None else f"{points:g} {'point' if points == 1 else 'points'}"


def _more(paired: PairedDrop, limit: str) -> str:
    if paired.images_to_decide is None:
        return "it is too near to the limit for any reasonable number of images to decide"
    return (
        f"about {paired.images_to_decide:,} held-out images would decide at {_DECIDED:.0%} whether it is at "
        f"most {limit} (--calibration, --held-out)"
    )
