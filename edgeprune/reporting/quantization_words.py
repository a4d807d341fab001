"""What a report says of a file in fewer bits."""

from __future__ import annotations

from edgeprune.artifacts.quantization import IntegerReport
from edgeprune.artifacts.report import Deviation, InnerParity, QuantizationSection
from edgeprune.reporting.formatting import format_bytes, format_error, format_share

Rows = tuple[tuple[str, str], ...]


def quantization_rows(section: QuantizationSection) -> Rows:
    """What was stored how, and how far that is from the 32-bit file."""
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
    if section.halves is not None:
        rows += (("constants", f"{section.halves.stored} stored in 16 bits"),)
    return rows


def _deviation(found: Deviation) -> str:
    agreement = (
        "" if found.top1_agreement is None else f", same top-1 for {format_share(found.top1_agreement)}"
    )
    return (
        f"{found.candidate} against {found.reference} on {found.images} images: relative error "
        f"{format_error(found.relative_error)}, cosine {found.cosine:.6f}{agreement}"
    )


def _inner(found: InnerParity) -> str:
    if found.farthest is None:
        return "none has the same name and shape in both files"
    first = "none is" if found.first_apart is None else f"{found.first_apart.name} is the first"
    return (
        f"of {found.compared} common ones {first} apart by more than {found.tolerance:g}; the farthest is "
        f"{found.farthest.name} ({format_error(found.farthest.error)})"
    )


def _integers(report: IntegerReport) -> Rows:
    blocks = ", ".join(report.over_blocks)
    nodes = ", ".join(f"{count} {op}" for op, count in sorted(report.nodes.items()))
    return (
        ("in 8 bits", nodes),
        ("form", report.format.reason),
        (
            "ranges",
            f"{report.method.value} over {report.images} images; {report.equalized} pairs of layers "
            "equalized, "
            f"biases of {report.corrected} layers corrected",
        ),
        *((("over blocks of pixels", f"{blocks}: the same result, sooner"),) if blocks else ()),
    )
