"""A sweep as a whole, with cells that take no time: failures, resuming, results and their files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sweep_cells import KILLED, REFUSED, SLOW, fake_cell, figures, project, ran

from edgeprune.artifacts.choices import ExecutorKind, JsonDocument
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.quantization import Precision
from edgeprune.caching.locks import claimed
from edgeprune.commands.sweep.figures import best_cells, with_fronts
from edgeprune.commands.sweep.sweeping import run_sweep
from edgeprune.errors import OutputError, UsageError
from edgeprune.executors.journal import UnitJournal
from edgeprune.options.sweep.sweeps import SweepOptions
from edgeprune.reporting.schemas import json_schema
from edgeprune.reporting.sweep.facts import CellReport, CellState, SweepReport
from edgeprune.reporting.sweep.files import COLUMNS, csv_of, parquet_of, read_sweep_report, row_of
from edgeprune.reporting.sweep.words import best_table
from edgeprune.storage.outputs import read_manifest


def options(folder: Path, **more: Any) -> SweepOptions:
    given = {"output": folder / "out", "max_parallel": 2, "cache": folder / "cache"}
    return SweepOptions(folder / "sweep.toml", **{**given, **more})


def swept(folder: Path, **more: Any) -> SweepReport:
    return run_sweep(options(folder, **more), fake_cell)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepReport]:
    """A sweep by two workers, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("whole")
    project(folder)
    return folder, swept(folder)


def test_all_cells_are_run_and_written(whole: tuple[Path, SweepReport]) -> None:
    tmp_path, report = whole
    assert sorted(ran(tmp_path)) == sorted({*ran(tmp_path)})
    assert len(report.cells) == 8
    assert not report.failed
    out = tmp_path / "out"
    assert not (tmp_path / "out.journal").exists()
    assert read_sweep_report(out / "sweep.json") == report
    jsonschema.validate(json.loads((out / "sweep.json").read_text()), json_schema(JsonDocument.SWEEP))
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [row["name"] for row in rows] == [cell.name for cell in report.cells]
    assert (rows[0]["precision"], rows[0]["quality"], rows[0]["failure"]) == ("fp32", "0.95", "")
    for cell in report.cells:
        assert cell.folder is not None
        told = json.loads((out / cell.folder / "surgery.json").read_text())
        assert told[1] == cell.target
    (shared,) = report.shared
    assert (shared.computed, shared.taken, shared.computed_s, shared.saved_s) == (4, 4, 8.0, 8.0)
    assert [(b.target, b.budget, b.cell) for b in report.best] == [
        ("rpi4", "half", "net_rpi4_half_fp32"), ("rpi4", "more", "net_rpi4_more_fp32"),
        ("n100", "half", "net_n100_half_fp32"), ("n100", "more", "net_n100_more_fp32"),
    ]  # fmt: skip
    manifest = read_manifest(out)
    assert manifest is not None
    assert {f.path for f in manifest.outputs} >= {"sweep.html", f"{report.cells[0].folder}/surgery.json"}
    page, words = (out / "sweep.html").read_text(), (out / "sweep.md").read_text()
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/", "")
    assert words.startswith(f"# Sweep of {tmp_path}/sweep.toml: 8 of 8 cells done, in ")


def same_cells(one: Path, two: Path) -> bool:
    files = sorted(p.relative_to(one) for p in (one / "cells").rglob("surgery.json"))
    return len(files) == 8 and all((one / f).read_bytes() == (two / f).read_bytes() for f in files)


def test_a_cell_that_fails_costs_itself_alone_and_is_tried_again(tmp_path: Path) -> None:
    project(tmp_path, KILLED)
    report = swept(tmp_path)
    (failed,) = report.failed
    assert (failed.state, failed.attempts, failed.folder) == (CellState.FAILED, 2, None)
    assert "was killed" in (failed.failure or "")
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 7
    assert "Cells that failed" in (tmp_path / "out" / "sweep.html").read_text()

    before = len(ran(tmp_path))
    (tmp_path / "cured").touch()
    with pytest.raises(UsageError, match="add --resume to go on"):
        swept(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="exists already"):
        swept(tmp_path, resume=True)
    again = swept(tmp_path, resume=True, overwrite=True)
    assert not again.failed
    assert len(ran(tmp_path)) == before + 1
    assert sorted(cell.attempts for cell in again.cells) == [0] * 7 + [1]
    assert not (tmp_path / "out.journal").exists()
    assert len(sorted((tmp_path / "out" / "cells").rglob("surgery.json"))) == 8


def test_errors_of_cells_are_in_the_report_with_their_status(tmp_path: Path) -> None:
    project(tmp_path, REFUSED)
    report = swept(tmp_path)
    assert [(c.failure, c.exit_status, c.attempts) for c in report.failed] == [
        ("the budget is out of reach", 12, 1)
    ] * 4
    rows = [row_of(cell) for cell in report.cells]
    assert {row["state"] for row in rows} == {"done", "failed"}
    assert csv_of(rows).count("the budget is out of reach") == 4


def test_ctrl_c_keeps_finished_cells_and_the_same_command_goes_on(tmp_path: Path) -> None:
    project(tmp_path, SLOW)
    records = tmp_path / "out.journal" / "units"

    def press() -> None:
        until = time.monotonic() + 60
        while not records.exists() or len(list(records.glob("*.json"))) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt, match=r"finished cells kept in .*out\.journal; run the same"):
            swept(tmp_path, max_parallel=4)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    assert not (tmp_path / "out").exists()
    finished = len(list(records.glob("*.json")))
    done = ran(tmp_path)
    (tmp_path / "cured").touch()
    report = swept(tmp_path, resume=True)
    assert not report.failed
    assert [cell.attempts for cell in report.cells].count(0) == finished
    assert len(ran(tmp_path)) == len(done) + 8 - finished
    assert not (tmp_path / "out.journal").exists()


def test_a_finished_cell_is_taken_by_a_sweep_that_asks_for_more(tmp_path: Path) -> None:
    path = project(tmp_path, REFUSED)
    swept(tmp_path)
    path.write_text(path.read_text().replace(str(REFUSED), "0.7").replace('"n100"]', '"n100", "rpi5"]'))
    before = len(ran(tmp_path))
    report = swept(tmp_path, resume=True, overwrite=True)
    assert (len(report.cells), len(report.failed)) == (12, 0)
    assert len(ran(tmp_path)) == before + 8


def test_cells_of_a_finished_sweep_are_taken_unless_they_were_changed(
    whole: tuple[Path, SweepReport], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, report = whole
    shutil.copytree(folder / "out", tmp_path / "out")
    assert report.cells[1].folder is not None
    (tmp_path / "out" / report.cells[1].folder / "surgery.json").write_text("changed")
    before = len(ran(folder))
    again = swept(folder, output=tmp_path / "out", resume=True, overwrite=True)
    assert len(ran(folder)) == before + 1
    assert [cell.attempts for cell in again.cells] == [0, 1, 0, 0, 0, 0, 0, 0]
    assert f"the files of {report.cells[1].name} in" in caplog.text
    assert same_cells(tmp_path / "out", folder / "out")
    assert [cell.figures for cell in again.cells] == [cell.figures for cell in report.cells]


def test_cells_can_be_chosen_by_their_names(tmp_path: Path) -> None:
    project(tmp_path)
    report = swept(tmp_path, only="net_*_half_*")
    assert [cell.name for cell in report.cells] == ["net_rpi4_half_fp32", "net_n100_half_fp32"]
    assert "Only cells that net_*_half_* names were run (--only)." in report.notes
    assert any(note.startswith("Budgets: half (") for note in report.notes)
    with pytest.raises(
        UsageError, match=r"no cell is called 'x' \(--only\); .* there are net_rpi4_half_fp32, "
    ):
        swept(tmp_path, only="x", output=tmp_path / "other")
    assert not (tmp_path / "other.journal").exists()


def test_cells_that_are_finished_stay_where_others_are_chosen(
    whole: tuple[Path, SweepReport], tmp_path: Path
) -> None:
    """``--only`` with ``--resume`` runs what it names, and removes nothing."""
    folder, report = whole
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / (report.cells[0].folder or ""))
    chosen = report.cells[0].name
    before = len(ran(folder))
    again = swept(folder, output=tmp_path / "out", resume=True, overwrite=True, only=chosen)
    assert [cell.name for cell in again.cells] == [cell.name for cell in report.cells]
    assert [cell.attempts for cell in again.cells] == [1, *[0] * (len(report.cells) - 1)]
    assert len(ran(folder)) == before + 1
    assert same_cells(tmp_path / "out", folder / "out")
    assert f"Only cells that {chosen} names were run (--only)." in again.notes
    without = swept(folder, output=tmp_path / "out", overwrite=True, only=chosen)
    assert [cell.name for cell in without.cells] == [chosen]


def test_a_budget_that_no_cell_holds_has_its_row(tmp_path: Path) -> None:
    project(tmp_path, REFUSED)
    report = swept(tmp_path)
    places = {(cell.target, cell.budget) for cell in report.cells}
    held = {(best.target, best.budget) for best in report.best}
    assert held < places
    rows = best_table(report).rows
    assert {row[:3] for row in rows if row[2] == "none"} == {(*place, "none") for place in places - held}
    assert {row[:2] for row in rows} == places


def test_a_second_sweep_into_the_same_output_is_refused(tmp_path: Path) -> None:
    project(tmp_path, REFUSED)
    swept(tmp_path)
    with claimed(tmp_path / "out.journal") as is_ours:
        assert is_ours
        with pytest.raises(UsageError, match=r"another process works on the sweep in .*out\.journal"):
            swept(tmp_path, resume=True, overwrite=True)
    assert len(list((tmp_path / "out.journal" / "units").glob("*.json"))) == 4
    (tmp_path / "cured").touch()
    assert swept(tmp_path, resume=True, overwrite=True).failed


def test_results_do_not_depend_on_the_number_of_workers(
    whole: tuple[Path, SweepReport], tmp_path: Path
) -> None:
    swept(whole[0], output=tmp_path / "one", max_parallel=1)
    assert same_cells(tmp_path / "one", whole[0] / "out")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"ray_address": "auto"}, "--ray-address was given without --executor ray"),
        ({"output": None}, "no output folder was given"),
    ],
)
def test_options_that_do_not_fit_are_refused(more: dict[str, Any], told: str, tmp_path: Path) -> None:
    project(tmp_path)
    with pytest.raises(UsageError, match=told):
        swept(tmp_path, **more)
    assert ran(tmp_path) == []


def test_times_of_this_machine_are_not_measured_on_a_cluster(tmp_path: Path) -> None:
    path = project(tmp_path)
    path.write_text(path.read_text().replace('"n100"', '"host"'))
    with pytest.raises(UsageError, match="the sweep has the target host"):
        swept(tmp_path, executor=ExecutorKind.RAY)


def test_what_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path)
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="Ray cannot be imported"):
        swept(tmp_path, executor=ExecutorKind.RAY)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_disk_that_is_full_ends_the_sweep_and_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project(tmp_path)
    keep, kept = UnitJournal.keep, []

    def full(journal: Any, unit: Any, result: Any) -> None:
        if len(kept) == 3:
            raise OutputError("the disk is full")
        kept.append(unit.name)
        keep(journal, unit, result)

    monkeypatch.setattr(UnitJournal, "keep", full)
    with pytest.raises(OutputError, match="the disk is full"):
        swept(tmp_path)
    assert "3 finished cells kept in" in caplog.text
    monkeypatch.undo()
    report = swept(tmp_path, resume=True)
    assert sorted(cell.attempts for cell in report.cells) == [0, 0, 0, 1, 1, 1, 1, 1]


def test_an_output_that_holds_what_is_read_is_not_replaced(
    whole: tuple[Path, SweepReport], tmp_path: Path
) -> None:
    shutil.copytree(whole[0] / "out", tmp_path / "out")
    project(tmp_path / "out")
    with pytest.raises(OutputError, match="which this run reads"):
        run_sweep(
            SweepOptions(tmp_path / "out" / "sweep.toml", output=tmp_path / "out", overwrite=True), fake_cell
        )


def cell(name: str, **changed: Any) -> CellReport:
    return CellReport(
        name=name, key="k", model="m", target="rpi4", budget="b", precision=Precision.FP32,
        state=CellState.DONE, attempts=1, duration_s=1.0, figures=figures(**changed),
    )  # fmt: skip


def test_fronts_and_best_cells_by_definition() -> None:
    cells = [
        cell("good", quality=0.9, latency_ms=2.0, size_bytes=10),
        cell("fast", quality=0.8, latency_ms=1.0, size_bytes=10),
        cell("small", quality=0.8, latency_ms=2.0, size_bytes=5),
        cell("beaten", quality=0.8, latency_ms=2.0, size_bytes=11),
        cell("equal", quality=0.9, latency_ms=2.0, size_bytes=10),
        cell("error", quality_kind=AccuracyKind.RELATIVE_ERROR, quality=0.2),
        cell("larger error", quality_kind=AccuracyKind.RELATIVE_ERROR, quality=0.3),
        cell("unknown", latency_ms=None),
    ]
    cells.append(replace(cells[3], name="elsewhere", target="n100"))
    front = [c.name for c in with_fronts(cells) if c.on_front]
    assert front == ["good", "fast", "small", "equal", "error", "elsewhere"]
    assert [(b.target, b.quality_kind, b.cell) for b in best_cells(cells)] == [
        ("rpi4", AccuracyKind.TOP1, "good"),
        ("rpi4", AccuracyKind.RELATIVE_ERROR, "error"),
        ("n100", AccuracyKind.TOP1, "elsewhere"),
    ]


def test_parquet_has_the_rows_of_the_csv() -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install 'edgeprune[parquet]'")
    import pyarrow as pa

    rows = [row_of(cell("a")), row_of(cell("b", loss=float("inf"), latency_ms=None))]
    data = parquet_of(rows)
    assert data is not None
    found = pq.read_table(pa.BufferReader(data)).to_pylist()
    assert list(found[0]) == list(COLUMNS)
    assert found[0] == rows[0]
    assert (found[1]["loss"], found[1]["latency_ms"]) == (float("inf"), None)


def test_a_damaged_report_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    for text, told in (
        ("{", "is not JSON"),
        ("{}", "schema version None"),
        ('{"schema_version": "1.0"}', "does not fit schema 1.0"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=told):
            read_sweep_report(path)


def test_going_on_from_a_finished_sweep_is_not_said_to_begin_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project(tmp_path)
    for resume in (False, True):
        swept(tmp_path, resume=resume, overwrite=resume)
    assert "begins anew" not in caplog.text
