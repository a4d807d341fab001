"""Pages of a profile and of a file in fewer bits: what the terminal says, on one page that loads nothing."""

from __future__ import annotations

import dataclasses
import io
import re
from typing import Any

import pytest
from rich.console import Console
from synthetic_page import synthetic_quantization
from synthetic_report import synthetic_report

from edgeprune.artifacts.latency import LatencyPrediction, PredictedKind, Provenance
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.quantization import Float16Report, MixedReport, PieceRow, Precision
from edgeprune.results import ProfileResult, QuantizationResult
from edgeprune.results.pages import profile_page, quantization_page

HOSTILE = '</style><script>alert(1)</script><img src="//x">'
REPORT = synthetic_report()
DEPLOYMENT = REPORT.deployment
PREDICTION = LatencyPrediction(
    provenance=Provenance.PREDICTED, target="rpi4", latency_ms=4.0, low_ms=3.0, high_ms=6.0,
    compute_bound_share=0.5, basis="a roofline", memory_bytes=2**20, fits=True,
    kinds=(
        PredictedKind(kind="convolution", in_8_bits=False, nodes=3, latency_ms=3.0),
        PredictedKind(kind="pooling", in_8_bits=True, nodes=1, latency_ms=1.0),
    ),
)  # fmt: skip


def profile(**changes: Any) -> ProfileResult:
    whole = ProfileResult(
        path="out/model.onnx", target="rpi4", figures=DEPLOYMENT.compressed, baseline_path="first.onnx",
        baseline=DEPLOYMENT.original, latency_ratio=DEPLOYMENT.latency_ratio, prediction=PREDICTION,
        baseline_prediction=PREDICTION, notes=("a caution",),
    )  # fmt: skip
    return dataclasses.replace(whole, **changes)


def quantization(**changes: Any) -> QuantizationResult:
    assert DEPLOYMENT.latency_ratio is not None
    whole = QuantizationResult(
        source="model.onnx", path="model-fp16.onnx", target="host", precision=Precision.FP16,
        details=Float16Report(stored=12, kept_float=("scale",)), size_bytes=51_000, source_size_bytes=100_000,
        accuracy_kind=AccuracyKind.TOP1, accuracy=REPORT.accuracy[:2], deviation=REPORT.parity[0],
        latency_ratio=DEPLOYMENT.latency_ratio, notes=("a note",),
    )  # fmt: skip
    return dataclasses.replace(whole, **changes)


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<(style|script)>.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))


def terminal(result: ProfileResult | QuantizationResult) -> str:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(result.render())
    return console.export_text()


@pytest.mark.parametrize("result", [profile(), quantization()], ids=["profile", "quantize"])
def test_the_page_has_what_the_terminal_says(result: Any) -> None:
    page = profile_page(result) if isinstance(result, ProfileResult) else quantization_page(result)
    shown, told = words(page).lower(), terminal(result)
    for row in result.table.rows:
        for cell in row:
            assert re.sub(r"\s+", " ", cell.lower()) in shown
            assert cell in told
    assert page.count("<svg") >= 1
    assert page.count("<h1>") == 1
    assert "default-src 'none'" in page
    assert page == (profile_page(result) if isinstance(result, ProfileResult) else quantization_page(result))


def test_a_profile_shows_both_files_shares_and_cautions() -> None:
    page = words(profile_page(profile()))
    assert re.search(r"4(\.00?)? ms \(predicted, band 3(\.00?)? to 6(\.00?)?\) on rpi4", page)
    assert "prediction: a roofline" in page
    assert "caution: a caution" in page
    assert "convolution" in page


def test_a_profile_without_times_says_why_a_section_is_empty() -> None:
    bare = dataclasses.replace(DEPLOYMENT.compressed, latency=None)
    page = words(
        profile_page(
            profile(
                figures=bare, baseline=None, baseline_path=None, latency_ratio=None, prediction=None,
                baseline_prediction=None, notes=(),
            )
        )
    )  # fmt: skip
    assert "Not measured" in page
    assert "Nothing was measured or predicted by operator." in page
    assert "There is nothing to add." in page
    assert "→" not in page


def test_a_time_that_is_not_to_be_trusted_is_said_in_the_first_line() -> None:
    latency = DEPLOYMENT.compressed.latency
    assert latency is not None
    noisy = dataclasses.replace(
        DEPLOYMENT.compressed, latency=dataclasses.replace(latency, trusted=False, caution="noisy")
    )
    page = profile_page(profile(figures=noisy))
    assert re.search(r"<h1>[^<]*not to be trusted", page)
    assert 'class="doubtful"' in page


def test_what_is_slower_is_no_good_news() -> None:
    ratio = DEPLOYMENT.latency_ratio
    assert ratio is not None
    slower = dataclasses.replace(ratio, ratio=1.2, low=1.1, high=1.3)
    assert 'class="doubtful"' in quantization_page(quantization(latency_ratio=slower))
    assert 'class="good"' in quantization_page(quantization())


def test_pieces_of_a_mixture_stand_with_their_reason() -> None:
    pieces = (
        PieceRow(ends_with="relu_3", weighted_nodes=2, integer=True, alone=0.9, why="halves its time"),
        PieceRow(ends_with="output", weighted_nodes=1, integer=False, alone=None, why="loses too much"),
    )
    page = words(
        quantization_page(
            quantization(details=MixedReport(pieces=pieces, measured=2, integer=None, harm=None))
        )
    )
    assert "up to relu_3 8 bits halves its time" in page
    assert "up to output 32 bits loses too much" in page


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ((), "in 8 bits: 2 Conv; operators without an 8-bit form run in 32\n"),
        (("head",), "in 8 bits: 2 Conv; 1 node kept in 32; operators without an 8-bit form run in 32, too\n"),
        (
            ("a", "b"),
            "in 8 bits: 2 Conv; 2 nodes kept in 32; operators without an 8-bit form run in 32, too\n",
        ),
    ],
)
def test_nodes_kept_in_32_bits_are_not_all_that_run_in_them(kept: tuple[str, ...], told: str) -> None:
    details = synthetic_quantization().integer
    assert details is not None
    result = quantization(precision=Precision.INT8, details=dataclasses.replace(details, kept_float=kept))
    assert told in re.sub(" +\n", "\n", terminal(result))


def test_names_are_never_markup() -> None:
    for page in (
        profile_page(profile(path=HOSTILE, baseline_path=HOSTILE, target=HOSTILE, notes=(HOSTILE,))),
        quantization_page(quantization(path=HOSTILE, target=HOSTILE, notes=(HOSTILE,))),
    ):
        assert "<img" not in page
        assert page.count("<script>") == 1
        assert page.count("<style>") == 1
