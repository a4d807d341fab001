"""Report text of a quantized file."""

from __future__ import annotations

from edgeprune.artifacts.budget import Candidate
from edgeprune.artifacts.quantization import IntegerReport, Precision
from edgeprune.artifacts.report import Deviation, InnerParity, QuantizationSection
from edgeprune.reporting.formatting import (
    count_words,
    format_bytes,
    format_error,
    format_share,
    worst_channel,
)

Rows = tuple[tuple[str, str], ...]


def quantization_rows(section: QuantizationSection) -> Rows:
    """How the file is stored, and its deviation from the 32-bit file."""
    rows: Rows = (
        ("outputs", _deviation(section.deviation)),
        ("inner tensors", _inner(section.inner)),
        ("32-bit file", f"model-fp32.onnx, {format_bytes(section.float_size_bytes)}"),
    )
    if section.integer is not None:
        rows += _integers(section.integer)
    if section.mixed is not None:
        rows += tuple((piece.ends_with, piece.why) for piece in section.mixed.pieces)
        rows += () if section.mixed.harm is None else (("harm", section.mixed.harm),)
        rows += () if section.mixed.integer is None else _integers(section.mixed.integer)
    if section.float16 is not None:
        rows += (("constants", f"{section.float16.stored} stored in 16 bits"),)
    return rows


_BITS = {
    Precision.INT8: "8 bits",
    Precision.FP16: "weights in 16 bits",
    Precision.AUTO: "8 bits where they pay and 32 bits elsewhere",
}


def stored_line(section: QuantizationSection) -> str:
    """Bits of the delivered file in one line; empty where all of it stayed in 32 bits."""
    bits = bits_chosen(section)
    return f"{bits} ({section.precision.value}); the 32-bit file is kept beside it" if bits else ""


def bits_chosen(section: QuantizationSection) -> str:
    """Bits that were chosen for the delivered file; empty where all of it stayed in 32 bits."""
    if section.mixed is None:
        return _BITS[Precision.INT8 if section.float16 is None else Precision.FP16]
    if section.mixed.integer is None:
        return ""
    pieces = section.mixed.pieces
    count = sum(piece.integer for piece in pieces)
    stored = ", weights stored in 8" if section.mixed.integer.stored else ""
    return f"8 bits in {count} of {count_words(len(pieces), 'piece')} and 32 bits elsewhere{stored}"


def bits_of_candidate(candidate: Candidate, *, named: bool = True) -> str:
    """Bits of a candidate's file, with the name of the precision; empty where all of it stayed in 32 bits."""
    precision = candidate.precision
    name = f" ({precision.value})" if named else ""
    return f"{_BITS[precision]}{name}" if candidate.fewer_bits else ""


def _deviation(deviation: Deviation) -> str:
    agreement = (
        ""
        if deviation.top1_agreement is None
        else f", same top-1 for {format_share(deviation.top1_agreement)}"
    )
    channels = "" if deviation.by_channel is None else f"; the worst is {worst_channel(deviation.by_channel)}"
    return (
        f"{deviation.candidate} against {deviation.reference} on {deviation.images} images: relative error "
        f"{format_error(deviation.relative_error)}, cosine {deviation.cosine:.6f}{agreement}{channels}"
    )


def _inner(parity: InnerParity) -> str:
    if parity.farthest is None:
        return "none has the same name and shape in both files"
    first = "none is" if parity.first_apart is None else f"{parity.first_apart.name} is the first"
    return (
        f"of {parity.compared} common ones {first} apart by more than {parity.tolerance:g}; the farthest is "
        f"{parity.farthest.name} ({format_error(parity.farthest.error)})"
    )


def weighed_by(report: IntegerReport) -> str:
    """What weighs the errors that ranges are chosen by, in words behind the number of images."""
    if report.gradient_images:
        return f", errors weighed by the gradients of the outputs on {report.gradient_images}"
    return "" if report.no_gradients is None else ", all values alike for want of gradients"


def nodes_words(report: IntegerReport) -> str:
    """How many nodes of each op run in 8 bits."""
    return ", ".join(f"{count} {op}" for op, count in sorted(report.nodes.items())) or "no node"


def stored_words(report: IntegerReport) -> str:
    """How layers whose weights alone are in 8 bits run."""
    return f"of {count_words(len(report.stored), 'layer')}, which calculate in 32 as fast as before"


def _integers(report: IntegerReport) -> Rows:
    blocks = ", ".join(report.over_blocks)
    return (
        ("in 8 bits", nodes_words(report)),
        ("form", report.format.reason),
        (
            "ranges",
            f"{report.method.value} over {report.images} images{weighed_by(report)}; {report.equalized} "
            f"pairs of layers equalized, biases of {report.corrected} layers corrected",
        ),
        *((("over blocks of pixels", f"{blocks}: the same result, sooner"),) if blocks else ()),
        *((("weights stored in 8 bits", stored_words(report)),) if report.stored else ()),
    )
