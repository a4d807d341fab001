"""What is compared: one run's files, and figures that images can tell."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gate_files import tiny_onnx
from synthetic_report import synthetic_report

from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.artifacts.report import AnswerCounts, Grade, RunReport
from edgeprune.cli import main
from edgeprune.commands.check.subjects import agreement_of, quality_of, read_subject
from edgeprune.errors import UsageError
from edgeprune.reporting.json_report import read_json, report_to_json, write_json
from edgeprune.storage.outputs import write_manifest


def folder_of_a_run(folder: Path, *, manifest: bool) -> Path:
    folder.mkdir()
    write_json(synthetic_report(), folder / "report.json")
    tiny_onnx(folder / "model.onnx")
    if manifest:
        write_manifest(folder, inputs={}, seed=0, command="edgeprune compress", versions={})
    return folder


def test_a_file_that_took_the_place_of_the_model_is_refused(tmp_path: Path) -> None:
    folder = folder_of_a_run(tmp_path / "out", manifest=True)
    assert read_subject(folder).onnx == folder / "model.onnx"
    tiny_onnx(folder / "model.onnx", width=9)
    with pytest.raises(UsageError, match=r"not the file that the report\.json beside it is of"):
        read_subject(folder)
    (folder / "report.json").unlink()
    assert read_subject(folder).report is None, "the file alone can be judged"


def test_without_a_manifest_nothing_tells(tmp_path: Path) -> None:
    folder = folder_of_a_run(tmp_path / "out", manifest=False)
    assert read_subject(folder).report is not None


def judged_by_few_boxes(*, kind: AccuracyKind, told: bool) -> RunReport:
    report = synthetic_report()
    assert report.usability is not None
    figures = tuple(
        AccuracyFigure(stage=stage, value=1.0, low=1.0, high=1.0, images=6) for stage in ("original", "ONNX")
    )
    usability = replace(
        report.usability,
        grade=Grade.USABLE if told else Grade.INCONCLUSIVE,
        answers=None,
        loss=0.0 if told else None,
        low=0.0 if told else None,
        high=0.0 if told else None,
    )
    return replace(report, accuracy_kind=kind, accuracy=figures, usability=usability)


@pytest.mark.parametrize("kind", [AccuracyKind.AP, AccuracyKind.AP_AGREEMENT, AccuracyKind.MEAN_IOU])
def test_what_cannot_be_judged_is_open(kind: AccuracyKind) -> None:
    """Draws of two boxes have no spread: taken for an interval, any limit would hold."""
    for told in (True, False):
        report = judged_by_few_boxes(kind=kind, told=told)
        facts, agreement = quality_of(report), agreement_of(report)
        assert facts is not None
        assert facts.lost is not None
        ends = [(facts.lost.low, facts.lost.high), (facts.figure.low, facts.figure.high)]
        assert ends == ([(0.0, 0.0), (1.0, 1.0)] if told else [(-100.0, 100.0), (0.0, 1.0)])
        assert (agreement is None) == (kind is not AccuracyKind.AP_AGREEMENT)
        if agreement is not None:
            assert (agreement.low, agreement.high) == ((1.0, 1.0) if told else (0.0, 1.0))


@pytest.mark.parametrize(
    "counts",
    [
        {"images": 10, "kept_from": 8, "lost": 9, "gained": 0},
        {"images": 10, "kept_from": 8, "lost": 0, "gained": 3},
        {"images": 10, "kept_from": 11, "lost": 0, "gained": 0},
        {"images": 10, "kept_from": 8, "lost": 0, "gained": -1},
        {"images": -1, "kept_from": 0, "lost": 0, "gained": 0},
    ],
)
def test_counts_that_contradict_themselves_are_refused(tmp_path: Path, counts: dict[str, int]) -> None:
    assert not AnswerCounts(**counts).consistent
    data = json.loads(report_to_json(synthetic_report()))
    data["usability"]["answers"] = counts
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match="contradicts itself"):
        read_json(path)


@pytest.mark.parametrize(
    ("place", "value", "accepted"),
    [
        ("compressed.size_bytes", 0, "above 0"),
        ("original.size_bytes", -5, "above 0"),
        ("compressed.latency.latency_p50_ms", 0.0, "above 0"),
        ("compressed_prediction.latency_ms", 0, "above 0"),
        ("compressed_prediction.low_ms", -1.0, "not negative"),
        ("latency_ratio.high", "NaN", "above 0"),
        ("compressed.macs", -1, "not negative"),
        ("original.peak_memory_bytes", -1, "not negative"),
    ],
)
def test_figures_that_no_file_has_are_refused(
    tmp_path: Path, capsys: Any, place: str, value: Any, accepted: str
) -> None:
    data = json.loads(report_to_json(synthetic_report()))
    *sections, field = place.split(".")
    section = data["deployment"]
    for name in sections:
        section = section[name]
    assert field in section
    section[field] = value
    path, whole = tmp_path / "report.json", tmp_path / "whole.json"
    path.write_text(json.dumps(data))
    write_json(synthetic_report(), whole)
    told = rf"report '.*report\.json' does not fit schema .*: deployment\.{re.escape(place)} is .*{accepted}"
    with pytest.raises(UsageError, match=told):
        read_subject(path)
    for command in (("compare", str(whole), str(path)), ("check", str(path), "--baseline", str(whole))):
        assert main([*command]) == 2
        assert f"deployment.{place} is" in capsys.readouterr().err
