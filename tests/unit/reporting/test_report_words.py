"""Sentences of a report that are about both models, or about how the delivered one is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from synthetic_report import measurement, synthetic_report

from edgeprune.artifacts.latency import LatencyMeasurement
from edgeprune.reporting.comparison import comparison_table

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
