"""Cells of a sweep on two devices, which are real ssh servers on the loopback address."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from loopback_sshd import Sshd, serving
from onnx_models import written
from sweep_cells import fake_cell, project, ran
from torch import nn

from edgeprune.artifacts.choices import JsonDocument
from edgeprune.artifacts.latency import Provenance
from edgeprune.commands.sweep import fleet
from edgeprune.commands.sweep.sweeping import run_sweep
from edgeprune.errors import DeviceError
from edgeprune.executors.units import Work
from edgeprune.options.sweep.fleet import SweepDevice
from edgeprune.options.sweep.sweeps import SweepOptions
from edgeprune.profiling.measurer import RunSettings
from edgeprune.reporting.schemas import json_schema
from edgeprune.reporting.sweep.facts import CellResult, SweepReport
from edgeprune.reporting.sweep.files import read_sweep_report
from edgeprune.reporting.sweep.page import render_page
from edgeprune.reporting.sweep.words import render_markdown, verdict
from edgeprune.storage.outputs import staged_output, write_manifest

RATIO_OF_BROKEN = 0.87


def measurable_cell(work: Work) -> CellResult:
    """A cell with an ONNX file, which one ratio leaves without any sense in it."""
    result = fake_cell(work)
    options = work.payload
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    with staged_output(options.folder, overwrite=True) as staging:
        if options.ratio == RATIO_OF_BROKEN:
            (staging / "model.onnx").write_bytes(b"no network")
        else:
            written(network, staging / "model.onnx", (1, 8, 8))
        write_manifest(staging, inputs={}, seed=0, command="", versions={})
    return result


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sshd]]:
    folder = tmp_path_factory.mktemp("fleet")
    with serving(folder / "one") as one, serving(folder / "two") as two:
        yield {"one": one, "two": two}


def tables(servers: dict[str, Sshd]) -> str:
    """``[[devices]]``: the first is for all targets, the second for one."""
    text = ""
    for name, server in servers.items():
        text += (
            f'[[devices]]\nname = "{name}"\nssh = "{server.destination}"\nidentity = "{server.identity}"\n'
            f'known-hosts = "{server.known_hosts}"\n'
        )
    return text + 'targets = ["rpi4"]\n'


def sweep_of(folder: Path, servers: dict[str, Sshd], ratio: float = 0.6) -> SweepOptions:
    spec = project(folder, ratio)
    text = spec.read_text().partition('[[models]]\nname = "other"')[0]
    budget = f'[[budgets]]\nname = "half"\nratio = 0.5\n[[budgets]]\nname = "more"\nratio = {ratio}\n'
    spec.write_text(text + budget + tables(servers))
    return SweepOptions(spec, output=folder / "out", max_parallel=2, cache=folder / "cache")


@pytest.fixture(scope="module")
def whole(servers: dict[str, Sshd], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepReport]:
    """A sweep of four cells, of which one device measures all and the other one two."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_sweep(sweep_of(folder, servers), measurable_cell)


def test_every_candidate_is_measured_on_every_device_that_is_for_it(
    whole: tuple[Path, SweepReport], servers: dict[str, Sshd]
) -> None:
    folder, report = whole
    asked = [(cell.name, "one") for cell in report.cells]
    asked += [(cell.name, "two") for cell in report.cells if cell.target == "rpi4"]
    assert [(found.cell, found.device) for found in report.on_devices] == asked
    assert not report.unmeasured
    for found in report.on_devices:
        assert found.latency is not None
        assert found.latency.provenance is Provenance.MEASURED_ON_TARGET
        assert found.latency.latency_p50_ms > 0
        assert found.latency.machine.startswith(servers[found.device].destination)
        assert found.latency.threads == 1
        assert found.peak_memory_bytes is not None
    assert not (folder / "out.journal").exists()
    assert [server.left_over() for server in servers.values()] == [[], []]


def test_measurements_are_in_every_file(whole: tuple[Path, SweepReport]) -> None:
    folder, report = whole
    assert read_sweep_report(folder / "out" / "sweep.json") == report
    jsonschema.validate(
        json.loads((folder / "out" / "sweep.json").read_text()), json_schema(JsonDocument.SWEEP)
    )
    rows = {row["name"]: row for row in csv.DictReader((folder / "out" / "sweep.csv").open())}
    for found in report.on_devices:
        assert found.latency is not None
        told = rows[found.cell][f"latency_p50_ms_on_{found.device}"]
        assert float(told) == found.latency.latency_p50_ms
    assert {row["latency_p50_ms_on_two"] != "" for row in rows.values() if row["target"] == "n100"} == {False}
    for text in (render_page(report), render_markdown(report)):
        assert "Measured on devices" in text
        for found in report.on_devices:
            assert found.latency is not None
            assert found.latency.trusted or f"on {found.device}: {found.latency.caution}" in text
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install 'edgeprune[parquet]'")
    columns = parquet.read_table(folder / "out" / "sweep.parquet")
    assert columns.column("latency_p50_ms_on_one").null_count == 0
    assert columns.column("latency_p50_ms_on_two").null_count == 2


def test_a_sweep_from_before_devices_is_read(whole: tuple[Path, SweepReport], tmp_path: Path) -> None:
    folder, report = whole
    data = json.loads((folder / "out" / "sweep.json").read_text())
    del data["on_devices"]
    (tmp_path / "sweep.json").write_text(json.dumps(data | {"schema_version": "1.0"}))
    read = read_sweep_report(tmp_path / "sweep.json")
    assert read == replace(report, schema_version="1.0", on_devices=())


def test_a_device_that_cannot_be_reached_ends_the_sweep_before_any_cell(
    servers: dict[str, Sshd], tmp_path: Path
) -> None:
    gone = replace(servers["two"], port=1)
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1:1"):
        run_sweep(sweep_of(tmp_path, {**servers, "two": gone}), measurable_cell)
    assert ran(tmp_path) == []
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.journal").exists()


def test_what_cannot_be_measured_has_its_reason_and_the_rest_goes_on(
    servers: dict[str, Sshd], tmp_path: Path
) -> None:
    options = sweep_of(tmp_path, {"two": servers["two"]}, RATIO_OF_BROKEN)
    report = run_sweep(options, measurable_cell)
    assert not report.failed
    assert [found.cell for found in report.unmeasured] == ["net_rpi4_more_fp32"]
    assert all(found.failure and found.exit_status for found in report.unmeasured)
    assert len(report.on_devices) == 2
    assert "1 measurement FAILED" in verdict(report)
    assert "FAILED" in render_markdown(report)
    assert (tmp_path / "out.journal").exists()


@pytest.mark.wide
def test_a_device_that_is_lost_meanwhile_is_measured_by_resuming(
    servers: dict[str, Sshd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = sweep_of(tmp_path, servers)
    moved = servers["two"].known_hosts.with_name("moved")

    def lose(_: Any) -> None:
        shutil.move(servers["two"].identity, moved)

    monkeypatch.setattr("edgeprune.commands.sweep.sweeping.check_devices", lose)
    report = run_sweep(options, measurable_cell)
    assert [found.device for found in report.unmeasured] == ["two", "two"]
    shutil.move(moved, servers["two"].identity)
    before = {found for found in report.on_devices if found.device == "one"}
    monkeypatch.setattr("edgeprune.commands.sweep.sweeping.check_devices", fleet.check_devices)
    again = run_sweep(replace(options, resume=True, overwrite=True), measurable_cell)
    assert not again.unmeasured
    assert {found for found in again.on_devices if found.device == "one"} == before, "measured once"
    assert len(ran(tmp_path)) == 4
    assert not (tmp_path / "out.journal").exists()


def test_a_connection_that_is_cut_fails_what_is_left(
    servers: dict[str, Sshd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one errand, as its process runs it: the first measurement stays, the second one has a reason."""
    for name, width in (("a", 5), ("b", 7)):  # of other content, so that each is copied there
        written(nn.Sequential(nn.Flatten(), nn.Linear(64, width)), tmp_path / f"{name}.onnx", (1, 8, 8))
    candidates = tuple(
        fleet.Candidate(cell=name, onnx_path=tmp_path / f"{name}.onnx", target="rpi4") for name in "ab"
    )
    device = SweepDevice(name="one", options=servers["one"].options)
    errand = fleet.Errand(device=device, candidates=candidates, folder=tmp_path, how=RunSettings(threads=1))
    measure, calls = fleet.DeviceMeasurer.latency, []

    def cut_second(self: Any, path: Path) -> Any:
        calls.append(path)
        if len(calls) == 2:
            assert servers["one"].cut() > 0
        return measure(self, path)

    monkeypatch.setattr(fleet.DeviceMeasurer, "latency", cut_second)
    first, second = fleet.measure_all(Work(payload=errand, seed=0))
    assert first.latency is not None
    assert second.latency is None
    assert second.exit_status == DeviceError.exit_status
    kept, now = fleet.measure_all(Work(payload=errand, seed=0))
    assert kept == first
    assert now.latency is not None
    assert len(calls) == 3
