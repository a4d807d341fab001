"""Sentences of a report that are about both models, or about how the delivered one is stored."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from synthetic_page import synthetic_quantization
from synthetic_report import measurement, synthetic_report

from edgeprune.artifacts.latency import LatencyMeasurement
from edgeprune.artifacts.quantization import Float16Report, MixedReport, PieceRow, Precision
from edgeprune.artifacts.report import QuantizationSection
from edgeprune.reporting import render_brief, render_markdown
from edgeprune.reporting.comparison import comparison_table
from edgeprune.reporting.document import build_document

WHERE = "onnxruntime 9.9.9 on Synthetic CPU, 2 cores, 1 thread, batch 1"


def timing_words(original: LatencyMeasurement | None, compressed: LatencyMeasurement | None) -> str:
    report = synthetic_report()
    deployment = replace(
        report.deployment,
        original=replace(report.deployment.original, latency=original),
        compressed=replace(report.deployment.compressed, latency=compressed),
        latency_ratio=None,
        compressed_prediction=None,
    )
    return comparison_table(replace(report, deployment=deployment)).remark


def timed(**changes: Any) -> LatencyMeasurement:
    return replace(measurement(0.1), **changes)


@pytest.mark.parametrize(
    ("original", "compressed", "words"),
    [
        (
            timed(),
            timed(),
            f"Times with {WHERE}, 200 repetitions after 20 to warm up, one model after the other.",
        ),
        (
            timed(),
            timed(repetitions=250, warmup=53),
            f"Times with {WHERE}, 200 repetitions after 20 to warm up for the original and 250 repetitions "
            "after 53 to warm up for the compressed model, one model after the other.",
        ),
        (
            timed(),
            timed(threads=2),
            f"Times of the original with {WHERE}, 200 repetitions after 20 to warm up and of the compressed "
            "model with onnxruntime 9.9.9 on Synthetic CPU, 2 cores, 2 threads, batch 1, 200 repetitions "
            "after 20 to warm up.",
        ),
        (timed(), None, f"Times with {WHERE}, 200 repetitions after 20 to warm up."),
        (None, timed(), f"Times with {WHERE}, 200 repetitions after 20 to warm up."),
        (None, None, ""),
    ],
)
def test_repetitions_are_told_of_both_columns(
    original: LatencyMeasurement | None, compressed: LatencyMeasurement | None, words: str
) -> None:
    assert timing_words(original, compressed) == words


def test_cautions_are_told_of_the_column_that_has_them() -> None:
    doubtful = timed(trusted=False, caution="the clock was slow")
    both = timing_words(doubtful, doubtful)
    assert both.endswith("other. These times are not to be trusted: the clock was slow.")
    assert timing_words(doubtful, timed()).endswith(
        "Times of the original are not to be trusted: the clock was slow."
    )
    assert timing_words(timed(), doubtful).endswith(
        "Times of the compressed model are not to be trusted: the clock was slow."
    )


IN_8_BITS = synthetic_quantization()
KEPT = "the 32-bit file is kept beside it"


def in_16_bits() -> QuantizationSection:
    halves = Float16Report(stored=7, kept_float=())
    return replace(IN_8_BITS, precision=Precision.FP16, integer=None, float16=halves)


def in_pieces(*integer: bool) -> QuantizationSection:
    pieces = tuple(
        PieceRow(ends_with=f"t{place}", weighted_nodes=1, integer=one, alone=None, why="faster")
        for place, one in enumerate(integer)
    )
    mixed = MixedReport(
        pieces=pieces, measured=1, integer=IN_8_BITS.integer if any(integer) else None, harm=None
    )
    return replace(IN_8_BITS, precision=Precision.AUTO, integer=None, mixed=mixed)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (IN_8_BITS, f"8 bits (int8); {KEPT}"),
        (in_16_bits(), f"weights in 16 bits (fp16); {KEPT}"),
        (in_pieces(True, False, True), f"8 bits in 2 of 3 pieces and 32 bits elsewhere (auto); {KEPT}"),
        (in_pieces(False, False), None),
        (None, None),
    ],
)
def test_the_verdict_says_that_a_file_is_stored_in_fewer_bits(
    section: QuantizationSection | None, words: str | None
) -> None:
    document = build_document(replace(synthetic_report(), quantization=section))
    assert dict(document.verdict).get("stored as") == words


def test_terminal_and_markdown_say_how_the_file_is_stored() -> None:
    report = replace(synthetic_report(), quantization=IN_8_BITS)
    stream = io.StringIO()
    Console(file=stream, width=120, color_system=None).print(render_brief(report, "out"))
    assert f"stored as  8 bits (int8); {KEPT}" in stream.getvalue()
    assert f"- **stored as**: 8 bits (int8); {KEPT}" in render_markdown(report)
