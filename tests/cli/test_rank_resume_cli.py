"""``edgeprune rank`` that is stopped and goes on, with little memory, and over residual blocks."""

from __future__ import annotations

import csv
import json
import re
import resource
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from small_project import run_forked, sentence, signalled, snapshot

SMALL = ("rank", "small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", "--threads", "1")
SHAPLEY = (*SMALL, "--criterion", "layer-shapley")

RESIDUAL = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


def residual(): return Residual()
"""


def stopped(project: Path, tmp_path: Path, *more: str, by: signal.Signals) -> tuple[int, str]:
    """Start to rank and send a signal as soon as the journal holds values."""
    done = signalled(
        *SHAPLEY, "-o", str(tmp_path / "out"), *more, cwd=project, scratch=tmp_path / "stopped",
        by=by, when=lambda _said: written(tmp_path / "out.journal"),
    )  # fmt: skip
    return done.returncode, done.stderr


def written(journal: Path) -> bool:
    """Whether more than the beginning of a file is there."""
    return any(file.stat().st_size > 20_000 for file in journal.glob("*.values"))


def figures(folder: Path) -> Any:
    found = json.loads((folder / "ranking.json").read_text())
    del found["durations_s"]
    return found


def test_an_interrupted_run_says_what_it_kept_and_goes_on(
    project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    before = snapshot(project)
    status, said = stopped(project, tmp_path, by=signal.SIGINT)
    journal = tmp_path / "out.journal"
    assert status == 130, said
    last = said.splitlines()[-1]
    assert last.startswith("interrupted: ")
    assert last.endswith(
        f" coalition values are kept in {journal}; run the same command with --resume to go on"
    )
    assert int(last.split()[1].replace(",", "")) > 30
    assert not (tmp_path / "out").exists()
    kept = snapshot(journal)

    command = (*SHAPLEY, "-o", str(tmp_path / "out"))
    assert "add --resume" in sentence(edgeprune(*command), 2)
    assert "begun with another calibration set and another seed" in sentence(
        edgeprune(*command, "--resume", "--seed", "5"), 2
    )
    refused = edgeprune(*SHAPLEY, "--resume", "--prune-normalized", "-o", str(tmp_path / "out"))
    assert "another choice of players" in sentence(refused, 2)
    assert snapshot(journal) == kept

    resumed = edgeprune(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert not journal.exists()
    straight = edgeprune(*SHAPLEY, "-o", str(tmp_path / "straight"))
    assert straight.returncode == 0, straight.stderr
    assert figures(tmp_path / "out") == figures(tmp_path / "straight")
    assert {p.name for p in tmp_path.iterdir()} == {"out", "straight", "scratch", "stopped"}
    assert snapshot(project) == before


def test_the_default_criterion_keeps_its_gradients(project: Path, tmp_path: Path, edgeprune: Any) -> None:
    """Its values are on file when they are done; the run is killed with the rest still to do."""
    journal = tmp_path / "out.journal"
    killed = signalled(
        *SMALL, "-o", str(tmp_path / "out"), cwd=project, scratch=tmp_path / "killed",
        by=signal.SIGKILL, when=lambda _said: (journal / "hybrid-values.npz").exists(),
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    asked = (*SMALL, "-o", str(tmp_path / "out"), "--resume")
    assert "begun with other settings" in sentence(edgeprune(*asked, "--ratio", "0.4"), 2)
    resumed = edgeprune(*asked)
    assert resumed.returncode == 0, resumed.stderr
    assert not journal.exists()
    straight = edgeprune(*SMALL, "-o", str(tmp_path / "straight"))
    assert straight.returncode == 0, straight.stderr
    assert figures(tmp_path / "out") == figures(tmp_path / "straight")


def test_a_killed_run_goes_on_too(project: Path, tmp_path: Path, edgeprune: Any) -> None:
    status, _ = stopped(project, tmp_path, "--layer", "first", by=signal.SIGKILL)
    assert status == -signal.SIGKILL
    command = (*SHAPLEY, "--layer", "first", "-o", str(tmp_path / "out"), "--resume")
    resumed = edgeprune(*command, "--memory-limit", "200kB")
    assert resumed.returncode == 0, resumed.stderr
    assert not (tmp_path / "out.journal").exists()
    (group,) = figures(tmp_path / "out")["criteria"][0]["groups"]
    assert (group["group"], len(group["values"])) == ("first", 8)
    assert group["standard_errors"] == [0.0] * 8


def test_little_memory_changes_no_value(project: Path, tmp_path: Path, edgeprune: Any) -> None:
    values = {}
    for name, limit in (("tight", "0.1 MiB"), ("free", "1GB")):
        done = edgeprune(*SHAPLEY, "--memory-limit", limit, "-o", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        values[name] = [v for g in figures(tmp_path / name)["criteria"][0]["groups"] for v in g["values"]]
    assert values["tight"] == pytest.approx(values["free"], abs=1e-6)


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    folder = tmp_path_factory.mktemp("residual")
    (folder / "residual_nets.py").write_text(RESIDUAL)
    made: dict[str, Any] = {}
    exec(RESIDUAL, made)
    torch.manual_seed(0)
    torch.save(made["residual"]().state_dict(), folder / "residual.pt")
    (folder / "grey.npz").write_bytes((project / "grey.npz").read_bytes())
    return folder


def test_blocks_are_valued_exactly_and_shown_without_each(residual: Path, edgeprune: Any) -> None:
    done = edgeprune(
        "rank", "residual.pt", "--arch", "residual_nets.py:residual", "--calibration", "grey.npz",
        "--players", "blocks", "-o", "out", cwd=residual,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = residual / "out"
    names = {"blocks.csv", "blocks.svg", "manifest.json", "ranking.html", "ranking.json"}
    assert {p.name for p in folder.iterdir()} == names
    assert not (residual / "out.journal").exists()
    found = figures(folder)
    assert (found["settings"]["players"], found["players"], found["groups"]) == ("blocks", 3, [])
    blocks = found["blocks"]
    assert blocks["choice"] == "all 8 coalitions of 3 players"
    assert [b["name"] for b in blocks["blocks"]] == ["blocks.0", "blocks.1", "blocks.2"]
    total = sum(b["value"] for b in blocks["blocks"])
    assert total == pytest.approx(blocks["whole_value"] - blocks["empty_value"], abs=1e-9)
    by_value = sorted(blocks["blocks"], key=lambda b: -b["value"])
    assert [b["rank"] for b in by_value] == [1, 2, 3]
    assert len({b["loss"] for b in blocks["blocks"]} | {blocks["loss"]}) == 4
    for block in blocks["blocks"]:
        assert block["quality_low"] <= block["quality"] <= block["quality_high"]
        assert block["name"] in done.stdout
    rows = list(csv.DictReader((folder / "blocks.csv").read_text().splitlines()))
    assert [float(r["value"]) for r in rows] == [b["value"] for b in blocks["blocks"]]
    svg = (folder / "blocks.svg").read_text()
    ElementTree.fromstring(svg)
    labels = re.findall("<title>[^<]*</title>", svg)
    assert labels
    assert all(label in (folder / "ranking.html").read_text() for label in labels)
    assert "accuracy without it" in done.stdout


BAD = {
    "no blocks": (("--players", "blocks"), ("no residual blocks", "leave --players out")),
    "blocks and a criterion": (
        ("--players", "blocks", "--criterion", "hybrid"),
        ("together with --criterion or --layer",),
    ),
    "blocks and a layer": (("--players", "blocks", "--layer", "first"), ("--players blocks alone",)),
    "memory without a unit": (("--memory-limit", "2000"), ("--memory-limit 2000", "2GB", "KiB")),
    "memory of nothing": (("--memory-limit", "0GB"), ("--memory-limit 0GB was given",)),
    "memory below zero": (("--memory-limit", "-1GB"), ("--memory-limit -1GB was given",)),
    "too little memory": (
        ("--criterion", "layer-shapley", "--memory-limit", "1kB"),
        ("memory_limit_bytes=1000 is too small", "one image"),
    ),
    "too few evaluations": (
        ("--criterion", "layer-shapley", "--max-evaluations", "7"),
        ("max_evaluations=7 is too few", "at least 20"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(case: str, tmp_path: Path, edgeprune: Any) -> None:
    options, parts = BAD[case]
    said = sentence(edgeprune(*SMALL, *options, "-o", str(tmp_path / "out")), 2)
    for part in parts:
        assert part in said
    assert {p.name for p in tmp_path.iterdir()} <= {"scratch"}


def test_what_lies_at_the_journals_place_is_left_alone(tmp_path: Path, edgeprune: Any) -> None:
    (tmp_path / "out.journal").mkdir()
    (tmp_path / "out.journal" / "mine.txt").write_text("precious")
    for more in ((), ("--resume",)):
        assert "no journal of edgeprune" in sentence(
            edgeprune(*SHAPLEY, *more, "-o", str(tmp_path / "out")), 2
        )
    assert (tmp_path / "out.journal" / "mine.txt").read_text() == "precious"


def little_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))  # above what is tried out first


def test_a_full_disk_is_one_sentence_and_what_was_kept_stays(
    project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    done = run_forked(
        *SHAPLEY, "-o", str(tmp_path / "out"), cwd=project, scratch=tmp_path / "full", prepare=little_room
    )
    said = sentence(done, 7)
    assert "no more coalition values can be kept in" in said
    assert "make room, and run the same command with --resume" in said
    assert written(tmp_path / "out.journal")
    resumed = edgeprune(*SHAPLEY, "-o", str(tmp_path / "out"), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert not (tmp_path / "out.journal").exists()


def test_the_python_api_resumes_only_beside_an_output(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgeprune
    from edgeprune.errors import UsageError

    monkeypatch.chdir(project)
    with pytest.raises(UsageError, match="resume was asked for without an output folder"):
        edgeprune.rank("small.pt", calibration="grey.npz", arch="nets.py:small", resume=True)
