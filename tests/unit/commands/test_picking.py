"""Picking from a finished search: files with known figures, no torch needed."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from synthetic_report import candidate, synthetic_budget, synthetic_report

from edgeprune.artifacts.budget import Budget, Candidate
from edgeprune.artifacts.codec import to_jsonable
from edgeprune.artifacts.pruning import PruningPlan, RecoveryReport
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.quantization import Precision
from edgeprune.artifacts.report import AnswerCounts, Grade, RunReport
from edgeprune.commands.pick.picking import pick_candidate
from edgeprune.commands.search.candidate_records import StoredCandidate
from edgeprune.commands.search.paired_drop import drawn_drop, paired_drop, points_of
from edgeprune.errors import BudgetError, UsageError
from edgeprune.reporting.budget_words import on_front
from edgeprune.reporting.json_report import write_json
from edgeprune.storage.outputs import read_manifest
from edgeprune.storage.records import write_record

CANDIDATES = (
    candidate("candidate 1", 0.8, 60_000, drop=0.5),
    candidate("candidate 2", 0.6, 50_000, drop=2.0),
    candidate("candidate 3", 0.6, 55_000, drop=2.5),
    candidate("candidate 4", 0.4, 30_000, drop=9.0),
)


def searched(folder: Path, *, candidates: tuple[Candidate, ...] = CANDIDATES) -> Path:
    """An output folder with these candidates; every ONNX file holds its candidate's name."""
    section = dataclasses.replace(synthetic_budget(), candidates=candidates)
    folder.mkdir()
    write_json(dataclasses.replace(synthetic_report(), budget=section), folder / "report.json")
    for number, found in enumerate(candidates, 1):
        place = folder / "candidates" / f"candidate-{number}"
        place.mkdir(parents=True)
        (place / "model.onnx").write_text(found.name)
        record = StoredCandidate(
            figures=found,
            plan=PruningPlan(
                removed=(1,), groups=(), ratio_asked=0.1, macs_before=10, macs_after=9, width_quantum=1
            ),
            recovery=RecoveryReport(steps=(), images=3, deciding_images=2, duration_s=0.1),
            parity=(),
        )
        write_record(place / "candidate.json", to_jsonable(record))
    return folder


def picked(folder: Path, output: Path | None = None, **limits: float) -> str:
    budget = Budget(**limits)  # type: ignore[arg-type]
    found = pick_candidate(folder, budget, output=output, overwrite=False, command="edgeprune pick")
    return found.budget.chosen


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"max_latency_share": 0.9}, "candidate 1"),
        ({"max_latency_share": 0.7}, "candidate 2"),
        ({"max_latency_ms": 0.7}, "candidate 4"),
        ({"max_size_bytes": 52_000}, "candidate 2"),
        ({"max_drop_points": 0.5}, "candidate 1"),
        ({"max_latency_share": 0.7, "max_drop_points": 2.0}, "candidate 2"),
    ],
)
def test_what_holds_the_budget_and_loses_least_is_picked(tmp_path: Path, limits, name: str) -> None:
    assert picked(searched(tmp_path / "out"), **limits) == name


def test_its_files_are_copied_whole_with_a_manifest(tmp_path: Path) -> None:
    folder = searched(tmp_path / "out")
    picked(folder, tmp_path / "picked", max_latency_share=0.7)
    assert (tmp_path / "picked" / "model.onnx").read_text() == "candidate 2"
    manifest = read_manifest(tmp_path / "picked")
    assert manifest is not None
    written = {"model.onnx", "candidate.json", "report.md", "README.md", "bom.cdx.json", "infer.py"}
    assert {file.path for file in manifest.outputs} == written
    assert manifest.command == "edgeprune pick"


def counted(found: Candidate, *, lost: int) -> Candidate:
    """With so many of the 355 answers lost that the original has in the synthetic report."""
    counts = AnswerCounts(images=360, kept_from=355, lost=lost, gained=0)
    return dataclasses.replace(found, drop_points=points_of(counts), paired=paired_drop(counts, None))


@pytest.mark.parametrize(
    ("lost", "grade", "words"),
    [
        (4, Grade.USABLE, "loses 1.1 of 100 answers: usable"),
        (30, Grade.DEGRADED, "loses 8.5 of 100 answers: degraded"),
        (300, Grade.NOT_USABLE, "loses 85 of 100 answers: not usable"),
    ],
)
def test_a_bad_candidate_says_so_first_and_in_its_report(
    tmp_path: Path, lost: int, grade: Grade, words: str
) -> None:
    folder = searched(tmp_path / "out", candidates=(counted(CANDIDATES[3], lost=lost),))
    found = pick_candidate(
        folder, Budget(max_size_bytes=40_000), output=tmp_path / "picked", overwrite=False, command="c"
    )
    assert found.usability.grade is grade
    assert found.usability.headline.startswith(words)
    assert bool(found.usability.what_to_do) == (grade is not Grade.USABLE)
    report = (tmp_path / "picked" / "report.md").read_text()
    assert report.startswith(f"# {words[0].upper()}{words[1:]}")
    assert "candidate 4" in report
    on_terminal = Console(width=100, record=True, file=io.StringIO())
    on_terminal.print(found.render())
    assert on_terminal.export_text().startswith(words)


@pytest.mark.parametrize(
    ("points", "grade", "words"),
    [
        (0.6, Grade.USABLE, "loses 0.6 points of AP (IoU .5 to .95): usable"),
        (9.0, Grade.DEGRADED, "loses 9.0 points of AP (IoU .5 to .95): degraded"),
        (60.0, Grade.NOT_USABLE, "loses 60.0 points of AP (IoU .5 to .95): not usable"),
    ],
)
def test_a_candidate_that_is_judged_in_points_is_graded_by_their_interval(
    tmp_path: Path, points: float, grade: Grade, words: str
) -> None:
    paired = drawn_drop(np.array([points, points - 0.2, points + 0.2]), 360, None)
    found = dataclasses.replace(CANDIDATES[3], drop_points=points, paired=paired)
    folder = searched(tmp_path / "out", candidates=(found,))
    report = synthetic_report()
    whole = dataclasses.replace(report.accuracy[0], value=0.8)
    section = dataclasses.replace(synthetic_budget(), candidates=(found,))
    judged = dataclasses.replace(
        report, accuracy_kind=AccuracyKind.AP, accuracy=(whole, *report.accuracy[1:]), budget=section
    )
    write_json(judged, folder / "report.json")
    picked_one = pick_candidate(
        folder, Budget(max_size_bytes=40_000), output=None, overwrite=False, command="edgeprune pick"
    )
    assert picked_one.usability.grade is grade
    assert picked_one.usability.headline.startswith(words)


@pytest.mark.parametrize(
    ("precision", "fewer_bits", "words"),
    [
        (Precision.FP32, False, None),
        (Precision.AUTO, False, None),
        (Precision.AUTO, True, "8 bits where they pay and 32 bits elsewhere (auto)"),
        (Precision.INT8, True, "8 bits (int8)"),
        (Precision.FP16, True, "weights in 16 bits (fp16)"),
    ],
)
def test_it_says_how_it_is_stored(
    tmp_path: Path, precision: Precision, fewer_bits: bool, words: str | None
) -> None:
    only = dataclasses.replace(CANDIDATES[3], precision=precision, fewer_bits=fewer_bits)
    folder = searched(tmp_path / "out", candidates=(only,))
    found = pick_candidate(folder, Budget(max_size_bytes=40_000), output=None, overwrite=False, command="c")
    assert dict(found.document.verdict).get("stored as") == words


def test_what_nobody_counted_is_not_called_good(tmp_path: Path) -> None:
    folder = searched(tmp_path / "out")
    found = pick_candidate(folder, Budget(max_size_bytes=40_000), output=None, overwrite=False, command="c")
    assert found.usability.grade is Grade.INCONCLUSIVE


def test_where_none_holds_the_nearest_is_named(tmp_path: Path) -> None:
    folder = searched(tmp_path / "out")
    with pytest.raises(
        BudgetError, match=r"none of the 4 candidates .* the nearest, candidate 2, .* exceeds drop"
    ):
        picked(folder, max_latency_share=0.62, max_drop_points=1.9)
    with pytest.raises(BudgetError, match=r"nearest, candidate 4, .* exceeds latency"):
        picked(folder, tmp_path / "picked", max_latency_share=0.3)
    assert not (tmp_path / "picked").exists()


def test_a_run_without_a_search_and_a_damaged_folder_are_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    write_json(synthetic_report(), plain / "report.json")
    with pytest.raises(UsageError, match="was compressed without a budget"):
        picked(plain, max_drop_points=1.0)
    folder = searched(tmp_path / "out")
    (folder / "candidates" / "candidate-1" / "candidate.json").write_text("{}")
    with pytest.raises(UsageError, match=r"candidate\.json' is no record of a search, or damaged"):
        picked(folder, tmp_path / "picked", max_latency_share=0.9)
    with pytest.raises(
        UsageError, match=r"nothing' holds no report\.json; give the folder that compress wrote"
    ):
        picked(tmp_path / "nothing", max_drop_points=1.0)


def test_the_front_holds_what_nothing_else_beats_in_all() -> None:
    section = dataclasses.replace(synthetic_budget(), candidates=CANDIDATES)
    front = [c.name for c in (section.original, *CANDIDATES) if on_front(c, section)]
    assert front == ["original", "candidate 1", "candidate 2", "candidate 4"]


def test_a_report_with_a_search_is_a_run_report() -> None:
    assert isinstance(dataclasses.replace(synthetic_report(), budget=synthetic_budget()), RunReport)
