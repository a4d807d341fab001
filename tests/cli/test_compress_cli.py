"""``edgeprune compress`` as typed: defaults found beside the model, overwriting, quiet, JSON, dry run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_project import STAGE_LINE, environment, other_lines, snapshot

FILES = {
    "README.md",
    "bom.cdx.json",
    "infer.py",
    "manifest.json",
    "model.onnx",
    "model.pt2",
    "report.json",
    "report.html",
    "report.md",
    "surgery.json",
    "weights.safetensors",
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_json_is_the_report_and_alone_on_stdout(digits: Any) -> None:
    folder, done = digits
    assert json.loads(done.stdout) == json.loads((folder / "report.json").read_text())
    assert f"written to {folder}" in done.stderr


def test_who_asked_for_the_ratio_is_stated(digits: Any) -> None:
    _, done = digits
    pruning = json.loads(done.stdout)["pruning"]
    assert (pruning["ratio_asked"], pruning["ratio_asked_by"]) == (0.25, "--ratio")
    assert "no limit was given" not in done.stderr


@pytest.fixture(scope="module")
def as_typed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported program called model.pt beside a folder of calibration images in class folders."""
    folder = tmp_path_factory.mktemp("as-typed")
    shutil.copy(project / "dynamic.pt2", folder / "model.pt")
    shutil.copytree(project / "classes", folder / "calibration")
    return folder


@pytest.mark.wide
def test_two_words_are_enough_and_again_gives_the_same_bytes(as_typed: Path, edgeprune: Any) -> None:
    done = edgeprune("compress", "model.pt", "--target", "rpi", cwd=as_typed, fork=False)
    assert done.returncode == 0, done.stderr
    assert "calibration data: calibration (found beside the model)" in done.stderr
    assert "written to model-edgeprune" in done.stderr
    assert "25.0% fewer MACs (default)" in done.stdout
    assert "for rpi4" in done.stdout
    output = as_typed / "model-edgeprune"
    assert names(output) == FILES
    report = json.loads((output / "report.json").read_text())
    assert report["calibration"]["labelled"] is True
    assert "data:image/png;base64," in (output / "report.html").read_text()

    before = snapshot(output)
    (output / "mine").write_text("x")
    again = ("compress", "model.pt", "--target", "rpi", "--overwrite", "--no-pictures", "-q")
    done = edgeprune(*again, cwd=as_typed)
    assert (done.returncode, done.stderr) == (0, "")
    assert "25.0% fewer MACs (default)" in done.stdout
    assert names(output) == {*FILES, "mine"}
    page = (output / "report.html").read_text()
    assert "data:image" not in page
    assert "Left out, as --no-pictures asks for" in page
    done = edgeprune("report", "model-edgeprune", cwd=as_typed)
    assert (done.returncode, done.stderr) == (0, f"written to {Path('model-edgeprune', 'report.html')}\n")
    assert "No pictures are kept in report.json" in (output / "report.html").read_text()
    assert names(as_typed) == {"model.pt", "calibration", "model-edgeprune"}
    after = snapshot(output)
    same = {"surgery.json", "weights.safetensors", "model.onnx", "model.pt2"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_a_dry_run_says_the_plan_and_writes_nothing(project: Path, edgeprune: Any) -> None:
    before = snapshot(project)
    command = (
        "compress",
        "small.safetensors",
        "--arch",
        "nets.py:small",
        "--calibration",
        "flat",
        "--dry-run",
    )
    done = edgeprune(*command, "--ratio", "0.4", "--mean", "0", "--std", "1")
    assert done.returncode == 0, done.stderr
    assert "dry run, nothing written" in done.stdout
    assert "8 -> " in done.stdout
    assert other_lines(done.stderr) == []

    done = edgeprune(*command, "--ratio", "0.25", "--json", "-q")
    plan = json.loads(done.stdout)
    assert plan["ratio_asked"] == 0.25
    assert plan["macs_after"] <= 0.75 * plan["macs_before"]
    assert done.stderr == ""
    assert snapshot(project) == before


def test_a_project_file_beside_the_model_gives_the_defaults(
    project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    for name in ("nets.py", "whole.pt", "grey.npz"):
        shutil.copy(project / name, tmp_path / name)
    (tmp_path / "edgeprune.toml").write_text(
        'calibration = "grey.npz"\ntarget = "rpi3"\nratio = 0.3\n[preprocessing]\nmean = 0.5\nstd = 0.5\n'
    )
    before = snapshot(tmp_path)
    command = ("compress", "whole.pt", "--trust-pickle", "--dry-run", "--json")
    done = edgeprune(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["target"], plan["ratio_asked"]) == ("rpi3", 0.3)
    assert "the file is a pickle and was trusted" in plan["notes"]
    assert "defaults from edgeprune.toml" in done.stderr

    done = edgeprune(*command, "--ratio", "0.5", cwd=tmp_path)
    assert json.loads(done.stdout)["ratio_asked"] == 0.5
    assert {k: v for k, v in snapshot(tmp_path).items() if not k.startswith("scratch")} == before


def test_off_a_terminal_every_stage_is_a_line_with_the_time_on_stderr(digits: Any) -> None:
    _, done = digits
    told = [line for line in done.stderr.splitlines() if STAGE_LINE.fullmatch(line)]
    stages = [line.partition("] ")[2] for line in told if ":" not in line.partition("] ")[2]]
    timed = [time["stage"] for time in json.loads(done.stdout)["stage_times"]]
    assert stages == timed
    assert {"load", "rank", "recover", "export", "profile"} <= set(stages)
    elapsed = [int(m) * 60 + int(s) for m, s in (line[1:].split("]")[0].split(":") for line in told)]
    assert elapsed == sorted(elapsed)


def test_on_a_terminal_there_are_no_lines_of_stages(project: Path, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    command = (sys.executable, "-m", "edgeprune", "compress", "small.safetensors", "--arch", "nets.py:small")
    with subprocess.Popen(
        [*command, "--calibration", "flat", "--dry-run", "--ratio", "0.25", "--mean", "0", "--std", "1"],
        cwd=project, env=environment(tmp_path / "scratch"), stdout=subprocess.PIPE, stderr=theirs, text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 65536):
                said += part
        printed, _ = process.communicate(timeout=100)
    os.close(ours)
    assert process.returncode == 0, said.decode()
    assert "dry run, nothing written" in printed
    assert "ranking channels by Shapley values" in said.decode()
    assert "] load" not in said.decode()
