"""``edgeprune compress --ratio`` that is stopped keeps its stages, goes on, and ends in the same bytes."""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_project import interrupted, sentence, signalled, snapshot

IN_ROUNDS = ("compress", "small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", "--threads", "1")
SMALL = (*IN_ROUNDS, "--effort", "quick")
WEIGHTS = ("model.onnx", "weights.safetensors", "surgery.json")


def killed(project: Path, tmp_path: Path, *asked: str, once: str) -> Path:
    """Start a command and kill it as soon as its journal has the file ``once``; gives the journal."""
    journal = tmp_path / "out.journal"
    done = signalled(
        *asked, "-o", str(tmp_path / "out"), cwd=project, scratch=tmp_path / "killed",
        by=signal.SIGKILL, when=lambda _said: (journal / once).exists(),
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    return journal


def same_bytes(one: Path, two: Path) -> bool:
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in WEIGHTS)


@contextlib.contextmanager
def digit_changed(path: Path) -> Iterator[None]:
    """A record in which one digit of a number is another, or weights of which one is."""
    good = path.read_bytes()
    if path.suffix == ".json":
        place = random.Random(path.name).choice([found.start() for found in re.finditer(rb"(?<=\.)\d", good)])
        changed = good[:place] + (b"1" if good[place : place + 1] != b"1" else b"2") + good[place + 1 :]
    else:
        changed = good[:-4] + struct.pack("<f", 0.125)
    assert changed != good
    path.write_bytes(changed)
    yield
    path.write_bytes(good)


@pytest.fixture(scope="module")
def straight(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Output of a command, undisturbed."""
    from small_project import run_forked

    base = tmp_path_factory.mktemp("straight")
    made: dict[tuple[str, ...], Path] = {}

    def output(*asked: str) -> Path:
        if asked not in made:
            made[asked] = base / f"{len(made)}"
            done = run_forked(*asked, "-o", str(made[asked]), cwd=project, scratch=base / "scratch")
            assert done.returncode == 0, done.stderr
            assert not made[asked].with_name(f"{made[asked].name}.journal").exists()
        return made[asked]

    return output


@pytest.mark.wide
def test_ctrl_c_while_the_result_is_written_keeps_ranking_and_recovered_network(
    project: Path, tmp_path: Path, edgeprune: Any, straight: Any
) -> None:
    before = snapshot(project)
    asked = (*SMALL, "--ratio", "0.25", "-o", str(tmp_path / "out"))
    done = interrupted(project, tmp_path / "stopped", "export", *asked)
    journal = tmp_path / "out.journal"
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == (
        f"interrupted: gradient estimates, the ranking and the recovered network are kept in {journal}; "
        "run the same command with --resume to go on"
    )
    assert not (tmp_path / "out").exists()
    kept = snapshot(journal)
    assert "add --resume" in sentence(edgeprune(*asked), 2)
    assert "begun with another ratio" in sentence(edgeprune(*asked, "--ratio", "0.3", "--resume"), 2)
    assert "begun with another calibration set and another seed" in sentence(
        edgeprune(*asked, "--seed", "1", "--resume"), 2
    )
    for name in ("ranking-0.25.json", "recovered.safetensors"):
        with digit_changed(journal / name):
            refused = sentence(edgeprune(*asked, "--resume"), 2)
            assert f"{str(journal / name)!r} is damaged" in refused
    assert snapshot(journal) == kept

    resumed = edgeprune(*asked, "--resume", "-v")
    assert resumed.returncode == 0, resumed.stderr
    assert "info: the ranking for a cut of 25% is on file" in resumed.stderr
    assert "info: the recovered network is on file" in resumed.stderr
    assert "info: rank\n" not in resumed.stderr
    assert not journal.exists()
    assert same_bytes(tmp_path / "out", straight(*SMALL, "--ratio", "0.25"))
    assert snapshot(project) == before
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["sessions"] == 2
    assert {"rank", "recover", "profile"} <= {time["stage"] for time in report["stage_times"]}


@pytest.mark.wide
def test_resume_without_a_journal_begins_anew_and_says_so(tmp_path: Path, edgeprune: Any) -> None:
    done = edgeprune(*SMALL, "--ratio", "0.25", "--resume", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert f"there is no journal {str(tmp_path / 'out.journal')!r} of a run that was stopped" in done.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["sessions"] == 1


def test_half_an_estimate_is_kept_when_the_run_is_killed(
    project: Path, tmp_path: Path, edgeprune: Any, straight: Any
) -> None:
    asked = (*SMALL, "--ratio", "0.25")
    journal = killed(project, tmp_path, *asked, once="hybrid-0.25-values.npz")
    assert not (journal / "recovered.json").exists()
    resumed = edgeprune(*asked, "--resume", "-o", str(tmp_path / "out"))
    assert resumed.returncode == 0, resumed.stderr
    assert same_bytes(tmp_path / "out", straight(*SMALL, "--ratio", "0.25"))


@pytest.mark.wide
def test_rounds_go_on_behind_the_last_one_that_was_ranked(
    project: Path, tmp_path: Path, edgeprune: Any, straight: Any
) -> None:
    asked = (*IN_ROUNDS, "--ratio", "0.5")
    journal = killed(project, tmp_path, *asked, once="recovered-0.35.json")
    assert (journal / "ranking-0.35.json").exists()
    assert not (journal / "ranking-0.5.json").exists()
    resumed = edgeprune(*asked, "--resume", "-v", "-o", str(tmp_path / "out"))
    assert resumed.returncode == 0, resumed.stderr
    assert "info: the ranking for a cut of 35% is on file" in resumed.stderr
    assert "info: the recovered-0.35 network is on file" in resumed.stderr
    assert same_bytes(tmp_path / "out", straight(*asked))


@pytest.mark.wide
def test_training_goes_on_from_the_recovered_network(
    project: Path, tmp_path: Path, edgeprune: Any, straight: Any
) -> None:
    more = ("--ratio", "0.25", "--held-out", "0.2", "--finetune", "30")
    journal = killed(project, tmp_path, *SMALL, *more, once="recovered.json")
    assert not (journal / "fine-tuned.json").exists()
    resumed = edgeprune(*SMALL, *more, "--resume", "-v", "-o", str(tmp_path / "out"))
    assert resumed.returncode == 0, resumed.stderr
    assert "info: the recovered network is on file" in resumed.stderr
    assert same_bytes(tmp_path / "out", straight(*SMALL, *more))


@pytest.mark.wide
def test_a_trained_network_is_not_trained_again(
    project: Path, tmp_path: Path, edgeprune: Any, straight: Any
) -> None:
    more = ("--ratio", "0.25", "--held-out", "0.2", "--finetune", "30")
    journal = killed(project, tmp_path, *SMALL, *more, once="fine-tuned.json")
    (journal / "recovered.json").rename(tmp_path / "aside.json")
    record = journal / "fine-tuned.json"
    damaged = record.read_text()[:-20]
    whole = record.read_text()
    record.write_text(damaged)
    asked = (*SMALL, *more, "--resume", "-v", "-o", str(tmp_path / "out"))
    refused = edgeprune(*asked)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"error: {str(record)!r} is damaged" in refused.stderr
    record.write_text(whole)
    resumed = edgeprune(*asked)
    assert resumed.returncode == 0, resumed.stderr
    assert "info: the fine-tuned network is on file" in resumed.stderr
    assert same_bytes(tmp_path / "out", straight(*SMALL, *more))


def test_a_run_that_is_stopped_before_anything_is_found_leaves_nothing(project: Path, tmp_path: Path) -> None:
    done = interrupted(
        project, tmp_path / "scratch", "capture", *SMALL, "-o", str(tmp_path / "out"), delay_s=0.0
    )
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "interrupted: nothing was written"
    assert {path.name for path in tmp_path.iterdir()} == {"scratch"}


def test_nothing_to_resume_begins_anew(project: Path, tmp_path: Path, edgeprune: Any, straight: Any) -> None:
    done = edgeprune(*SMALL, "--ratio", "0.25", "--resume", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert same_bytes(tmp_path / "out", straight(*SMALL, "--ratio", "0.25"))


def test_training_with_too_few_images_is_refused_before_anything_is_ranked(
    tmp_path: Path, edgeprune: Any
) -> None:
    few = ("--max-images", "8", "--finetune", "3s", "--ratio", "0.25")
    done = edgeprune(*SMALL, *few, "-o", str(tmp_path / "out"))
    assert "--finetune keeps 8 images back" in sentence(done, 4)
    assert "] rank" not in done.stderr
    assert not list(tmp_path.glob("out*"))
