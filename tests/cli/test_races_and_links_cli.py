"""Links in journals, files that come meanwhile, candidates that are not whole, signals at odd moments."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_onnx import network
from small_project import environment, run_forked, sentence, snapshot

from edgeprune.cli import entry
from edgeprune.cli.process.session import Session
from edgeprune.errors import OutputError
from edgeprune.storage.files import atomic_write_bytes

SMALL = ("small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", "--threads", "1")
DATA = ("--calibration", "grey.npz", "--mean", "0", "--std", "1", "--threads", "1")


@pytest.fixture(scope="module")
def searched(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    asked = ("compress", *SMALL, "--max-size", "9kB", "--effort", "quick", "--one-round", "--keep-blocks")
    done = run_forked(*asked, "-o", str(folder / "out"), cwd=project, scratch=folder / "scratch")
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_a_whole_candidate_is_handed_out(searched: Path, tmp_path: Path) -> None:
    asked = ("pick", str(searched), "--max-size", "1GB", "-o", "picked")
    done = run_forked(*asked, cwd=tmp_path, scratch=tmp_path / "scratch")
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "picked").iterdir()}
    assert files >= {"model.onnx", "weights.safetensors", "surgery.json", "report.md", "manifest.json"}


def _remove(path: Path) -> None:
    path.unlink()


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = random.Random(0).randrange(len(content))
    content[place] ^= 1
    path.write_bytes(bytes(content))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"{}")


HARMS = (_remove, _append, _flip, _folder, _empty)
PARTS = ("model.onnx", "weights.safetensors", "surgery.json", "candidate.json")


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        pytest.param(harm, name, marks=() if number % len(PARTS) == place else pytest.mark.wide)
        for number, harm in enumerate(HARMS)
        for place, name in enumerate(PARTS)
    ],
)
def test_a_candidate_that_is_not_whole_is_not_handed_out(
    harm: Callable[[Path], None], name: str, searched: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "searched"
    shutil.copytree(searched, folder)
    for record in folder.glob("candidates/*/candidate.json"):
        harm(record.with_name(name))
    asked = ("pick", str(folder), "--max-size", "1GB", "-o", "picked")
    done = run_forked(*asked, cwd=tmp_path, scratch=tmp_path / "scratch")
    sentence(done, 2)
    assert not (tmp_path / "picked").exists()


@pytest.mark.parametrize(
    "what",
    [
        "candidates",
        "",
        *(pytest.param(n, marks=pytest.mark.wide) for n in ("candidates/candidate-1", "ranking-0.25.json")),
    ],
)
def test_a_link_in_a_journal_is_refused_and_leads_nobody_astray(
    what: str, project: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    (mine / "candidate-1").mkdir(parents=True)
    (mine / "candidate-1" / "notes").write_text("mine")
    journal = tmp_path / "out.journal"
    if what:
        (journal / what).parent.mkdir(parents=True)
        (journal / "journal.json").write_text("{}")
        (journal / what).symlink_to(mine)
    else:
        (mine / "journal.json").write_text("{}")
        journal.symlink_to(mine)
    before = snapshot(mine)
    for more in (("--max-size", "9kB"), ("--ratio", "0.25")):
        asked = ("compress", *SMALL, *more, "--resume", "-o", str(tmp_path / "out"))
        done = run_forked(*asked, cwd=project, scratch=tmp_path / "scratch")
        assert "is a link, and edgeprune puts none into a journal" in sentence(done, 2)
    assert snapshot(mine) == before


def test_a_file_that_came_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    atomic_write_bytes(path, b"first", overwrite=False)
    with pytest.raises(OutputError, match="exists, since a moment ago; it stays"):
        atomic_write_bytes(path, b"second", overwrite=False)
    assert path.read_bytes() == b"first"
    atomic_write_bytes(path, b"third")
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
    assert path.read_bytes() == b"third"


def test_of_two_runs_of_quantize_at_once_one_is_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", images=images)
    (tmp_path / "m.onnx").write_bytes(network().SerializeToString())
    asked = [sys.executable, "-m", "edgeprune", "quantize", "m.onnx", *DATA, "-q", "-o", "two.onnx"]
    runs = [
        subprocess.Popen(
            [*asked, "--seed", str(seed)], cwd=tmp_path, env=environment(tmp_path / f"s{seed}"),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for seed in range(2)
    ]  # fmt: skip
    said = [run.communicate(timeout=200)[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 7], said
    assert (tmp_path / "two.onnx").exists()


@pytest.mark.parametrize(
    ("delay_s", "number"),
    [
        (0.02, signal.SIGINT),
        *(
            pytest.param(delay_s, number, marks=pytest.mark.wide)
            for delay_s in (0.0, 0.02, 0.1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if (delay_s, number) != (0.02, signal.SIGINT)
        ),
    ],
)
def test_a_signal_behind_the_result_never_says_that_nothing_was_written(
    number: signal.Signals, delay_s: float, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", images=images)
    (tmp_path / "m.onnx").write_bytes(network().SerializeToString())
    run = subprocess.Popen(
        [sys.executable, "-m", "edgeprune", "quantize", "m.onnx", *DATA, "-o", "out.onnx"],
        cwd=tmp_path, env=environment(tmp_path / "scratch"), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)],  # noqa: PLW1509
    )  # fmt: skip
    assert run.stderr is not None
    said = ""
    for line in run.stderr:
        said += line
        if line.startswith("written to"):
            time.sleep(delay_s)
            os.kill(run.pid, number)
    run.wait(timeout=100)
    assert (tmp_path / "out.onnx").exists()
    assert run.returncode in (0, 128 + number), said
    assert "nothing was written" not in said
    assert "Traceback" not in said
    if run.returncode:
        assert "out.onnx was written before" in said


def test_what_a_library_makes_of_an_interrupt_is_an_interrupt(capsys: Any) -> None:
    """torch turned one that came while it was being loaded into a RecursionError."""

    def loading() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RecursionError("maximum recursion depth exceeded") from None
        raise AssertionError

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert entry.guarded(loading, Session()) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "interrupted: nothing was written\n"


def test_a_limit_on_memory_that_libraries_do_not_fit_into_is_one_sentence(tmp_path: Path) -> None:
    line = f"ulimit -v 300000; {sys.executable} -m edgeprune inspect torchvision:resnet18 --weights none"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, timeout=100, cwd=tmp_path,
        env=environment(tmp_path / "scratch"),
    )  # fmt: skip
    assert "the memory of this machine does not suffice" in sentence(done, 1)


@pytest.mark.parametrize("label", [2**63, 2**64 - 1])
@pytest.mark.parametrize("command", ["compress", "rank", "inspect"])
def test_labels_that_no_signed_number_holds(label: int, command: str, project: Path, tmp_path: Path) -> None:
    with np.load(project / "grey.npz") as known:
        images = known["images"]
    np.savez(tmp_path / "u64.npz", images=images, labels=np.full(len(images), label, np.uint64))
    asked = (*SMALL[:3], "--calibration", str(tmp_path / "u64.npz"))
    done = run_forked(command, *asked, cwd=project, scratch=tmp_path / "scratch")
    assert f"has the label {label}, which no network has" in sentence(done, 4)
