"""Full disks, streams that take nothing, signals, inputs in the output: on the real process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_project import (
    DIGITS_DATA,
    DIGITS_MODEL,
    environment,
    interruptible,
    leftovers,
    sentence,
    snapshot,
)

from edgeprune.storage.files import scratch_folder
from edgeprune.storage.outputs import staged_output, write_manifest
from edgeprune.storage.ownership import owned_token
from edgeprune.system.data import data_dir

EDGEPRUNE = f"{sys.executable} -m edgeprune"


def shell(line: str, cwd: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    """A line of bash with ``$E`` for the command; its status is that of the first command of a pipe."""
    return subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=200,
        check=False, cwd=cwd, env={**environment(scratch), "E": EDGEPRUNE},
    )  # fmt: skip


STREAMS = {
    "a full stdout": ("$E targets list > /dev/full", 7, "error: the result cannot be written to standard"),
    "a full stdout for help": ("$E pick --help > /dev/full", 7, "error: the result cannot be written to"),
    "a closed stdout": ("$E targets list >&-", 0, ""),
    "a full stderr": ("$E targets show rpi44 2> /dev/full", 9, ""),
    "both closed": ("$E targets show rpi44 >&- 2>&-", 9, ""),
    "a reader of the help that left": ("$E compress --help | true", 141, ""),
    "a reader of all help that left": ("$E --help | true", 141, ""),
    "a reader that left": ("$E targets show rpi4 --json | true", 141, ""),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_that_take_nothing(name: str, tmp_path: Path) -> None:
    line, status, said = STREAMS[name]
    done = shell(line, tmp_path, tmp_path / "scratch")
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == (1 if said else 0)


@pytest.mark.wide
def test_a_limit_on_files_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    asked = f"{' '.join(DIGITS_MODEL)} --calibration {DIGITS_DATA} --target rpi4 --ratio 0.25 --max-images 60"
    line = f"ulimit -f 98; $E compress {asked} --threads 1 -q -o {place}/out"
    done = shell(line, tmp_path, tmp_path / "scratch")
    said = sentence(done, 7)
    assert "File too large" in said
    assert "make room" in said
    assert list(place.iterdir()) == []
    assert leftovers(tmp_path / "scratch") == []


STOPPED = """
import signal, sys, threading, time
from edgeprune.cli import entry
from edgeprune.cli.process.session import Session

def action():
    try:
        for name in sys.argv[1:]:
            signal.pthread_kill(threading.main_thread().ident, getattr(signal, name))  # in this order
        time.sleep(0.2)
    finally:
        for name in sys.argv[1:]:
            signal.pthread_kill(threading.main_thread().ident, getattr(signal, name))  # in this order
        time.sleep(0.2)
        print("cleaned up")
    return 0

sys.exit(entry.guarded(action, Session()))
"""


@pytest.mark.parametrize(
    ("before", "names", "status", "said"),
    [
        ("", "SIGTERM", 143, "interrupted by SIGTERM: nothing was written\n"),
        ("", "SIGHUP SIGTERM", 129, "interrupted by SIGHUP: nothing was written\n"),
        ("trap '' HUP;", "SIGHUP", 0, ""),
    ],
)
def test_signals_end_a_run_as_ctrl_c_does_and_only_once(
    before: str, names: str, status: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED)
    with interruptible():
        done = shell(f"{before} {sys.executable} stopped.py {names}", tmp_path, tmp_path / "scratch")
    assert (done.returncode, done.stdout, done.stderr) == (status, "cleaned up\n", said)


def old_output(project: Path, out: Path) -> None:
    """As a run left it."""
    with staged_output(out) as folder:
        shutil.copy(project / "dynamic.pt2", folder / "model.pt2")
        write_manifest(folder, inputs={}, seed=0, command="edgeprune compress", versions={})


def test_sigterm_leaves_an_old_output_as_it_was(project: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    old_output(project, place / "out")
    before = snapshot(place)
    command = [*EDGEPRUNE.split(), "-v", "compress", "small.pt", "--arch", "nets.py:small", "--calibration"]
    with subprocess.Popen(
        [*command, "grey.npz", "--ratio", "0.25", "-o", str(place / "out"), "--overwrite"],
        cwd=project, env=environment(tmp_path / "scratch"), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert any(line == "info: capture\n" for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert said.splitlines()[-1].startswith("interrupted by SIGTERM: ")
    assert "Traceback" not in said
    shutil.rmtree(place / "out.journal", ignore_errors=True)
    assert snapshot(place) == before
    assert leftovers(tmp_path / "scratch") == []


def test_an_output_that_holds_the_input_is_refused_before_any_work(
    project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    """The output of one run is the input of the next."""
    old_output(project, tmp_path / "out")
    shutil.copy(DIGITS_DATA, tmp_path / "out" / "images.npz")
    before = snapshot(tmp_path / "out")
    model, data = str(tmp_path / "out" / "model.pt2"), str(tmp_path / "out" / "images.npz")
    there = ("-o", str(tmp_path / "out"), "--overwrite")
    said = sentence(edgeprune("compress", model, "--calibration", DIGITS_DATA, *there, fork=False), 7)
    assert f"holds the model '{model}', which this run reads" in said
    said = sentence(edgeprune("rank", *DIGITS_MODEL, "--calibration", data, *there), 7)
    assert f"holds the calibration data '{data}'" in said
    assert snapshot(tmp_path / "out") == before


def test_every_file_that_a_run_reads_keeps_its_folder(project: Path, tmp_path: Path, edgeprune: Any) -> None:
    """Code, weights, card, target, ranking and the current folder, each in a folder of output."""
    out = tmp_path / "out"
    old_output(project, out)
    for name in ("nets.py", "small.pt", "grey.npz"):
        shutil.copy(project / name, out / name)
    (out / "card.toml").write_text("mean = 0\nstd = 1\n")
    shutil.copy(data_dir("targets") / "rpi4.toml", out)
    (out / "deeper").mkdir()
    before = snapshot(out)
    model, data = ("small.pt", "--arch", "nets.py:small"), ("--calibration", "grey.npz")
    there = ("-o", str(out), "--overwrite")
    for arguments in (
        ("compress", "small.pt", "--arch", f"{out / 'nets.py'}:small", *data, *there),
        ("compress", str(out / "small.pt"), *model[1:], *data, *there),
        ("compress", *model, "--calibration", str(out / "grey.npz"), *there),
        ("compress", *model, *data, "--card", str(out / "card.toml"), *there),
        ("compress", *model, *data, "--recipe", f"{out / 'nets.py'}:small", *there),
        ("compress", *model, *data, "--target", str(out / "rpi4.toml"), *there),
        ("compress", *model, *data, "--ranking", str(out), *there),
        ("rank", *model, *data, "--card", str(out / "card.toml"), *there),
    ):
        said = sentence(edgeprune(*arguments), 7)
        assert "which this run reads" in said, arguments
    for folder in (out, out / "deeper"):  # the current one, or one above it
        said = sentence(edgeprune("compress", str(project / "dynamic.pt2"), "--calibration", DIGITS_DATA,
                                  *there, cwd=folder), 7)  # fmt: skip
        assert "current folder" in said
    assert snapshot(out) == before


def test_an_output_that_cannot_be_written_is_noticed_before_the_work(project: Path, edgeprune: Any) -> None:
    model, data = ("small.pt", "--arch", "nets.py:small"), ("--calibration", "grey.npz")
    for arguments in (
        ("compress", *model, *data, "-o", "/proc/out"),
        ("compress", *model, *data, "-o", "small.pt/out"),
        ("compress", *model, *data, "--max-drop", "1", "-o", "/proc/out"),
        ("rank", *model, *data, "-o", "/proc/out"),
        ("inspect", *model, "--input-shape", "1x8x8", "--graph", "/proc/out.svg"),
        ("inspect", *model, "--input-shape", "1x8x8", "--graph", "small.pt/out.svg"),
        ("quantize", "small.onnx", *data, "-o", "/proc/out.onnx"),
    ):
        done = edgeprune(*arguments)
        assert "cannot be" in sentence(done, 7) or "is a file" in done.stderr, arguments
        assert done.stderr.count("\n") == 1, arguments  # no stage has begun


def test_temporary_folders_of_dead_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with subprocess.Popen(["true"]) as gone:
        pass
    parts = owned_token().split("-")
    dead = "-".join([str(gone.pid), *parts[1:]])
    for name in (f"edgeprune-activations-{dead}-x", f"edgeprune-{dead}-x", f"edgeprune-{owned_token()}-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0").touch()
    with scratch_folder() as mine:
        left = sorted(path.name for path in tmp_path.iterdir())
        assert len(left) == 2
        assert mine.name in left
        assert all(f"-{os.getpid()}-" in name for name in left)
