"""``--effort`` and ``--max-time``: what they change and leave alone, and what the report says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_project import digits_like, sentence

SMALL = ("small.pt", "--arch", "nets.py:small", "--threads", "1")
WEIGHTS = ("model.onnx", "weights.safetensors", "surgery.json")


@pytest.fixture(scope="module")
def many(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with 200 images, of which 150 are to fit with."""
    folder = tmp_path_factory.mktemp("many")
    for name in ("nets.py", "small.pt"):
        shutil.copy(project / name, folder / name)
    images, labels = digits_like(200)
    np.savez(folder / "calibration.npz", images=images, labels=labels)
    return folder


def compressed(edgeprune: Any, many: Path, output: Path, *more: str) -> Any:
    asked = (*SMALL, "--calibration", "calibration.npz", *more, "-o", str(output))
    done = edgeprune("compress", *asked, cwd=many)
    assert done.returncode == 0, done.stderr
    return json.loads((output / "report.json").read_text())


def about(report: Any, word: str) -> list[str]:
    return [note for note in report["notes"] if word in note]


def recovered_with(report: dict[str, Any]) -> int:
    """Images that recovery fitted to or decided by."""
    return int(report["recovery"]["images"] + report["recovery"]["deciding_images"])


@pytest.mark.wide
def test_normal_is_usual_enough_time_changes_nothing_and_quick_is_less_of_everything(
    many: Path, tmp_path: Path, edgeprune: Any
) -> None:
    usual = compressed(edgeprune, many, tmp_path / "usual", "--ratio", "0.4")
    asked = ("--ratio", "0.4", "--effort", "normal", "--max-time", "2h")
    normal = compressed(edgeprune, many, tmp_path / "normal", *asked)
    for name in WEIGHTS:
        assert (tmp_path / "normal" / name).read_bytes() == (tmp_path / "usual" / name).read_bytes()
    assert about(normal, "--effort") == about(usual, "--effort") == about(normal, "--max-time") == []
    assert (usual["ranking"]["images"], recovered_with(usual)) == (150, 150)
    assert usual["ranking"]["rounds"] == [0.25]

    quick = compressed(edgeprune, many, tmp_path / "quick", "--ratio", "0.4", "--effort", "quick")
    assert about(quick, "--effort") == [
        "--effort quick: a quarter of the passes of a ranking, 128 of 150 images to rank and recover with, "
        "one round, however deep the cut"
    ]
    assert (quick["ranking"]["images"], recovered_with(quick)) == (128, 128)
    assert quick["calibration"]["held_out_images"] == usual["calibration"]["held_out_images"]
    assert quick["ranking"]["rounds"] == []
    assert quick["ranking"]["evaluations"] < usual["ranking"]["evaluations"]
    assert quick["pruning"]["macs_removed_share"] >= 0.4


@pytest.mark.wide
def test_thorough_makes_more_passes_and_trains(many: Path, tmp_path: Path, edgeprune: Any) -> None:
    found = compressed(
        edgeprune, many, tmp_path / "out", "--ratio", "0.25", "--effort", "thorough", "--max-time", "30s"
    )
    assert about(found, "--effort") == [
        "--effort thorough: 4 times the passes of a ranking, 500 steps of fine-tuning"
    ]
    distillation = found["recovery"]["distillation"]
    assert distillation["steps"] > 0
    cut = about(found, "steps of fine-tuning in")
    assert (distillation["steps"] < 500) == bool(cut)
    asked = compressed(
        edgeprune, many, tmp_path / "own", "--effort", "thorough", "--finetune", "20", "--ratio", "0.25"
    )
    assert about(asked, "--effort") == ["--effort thorough: 4 times the passes of a ranking"]
    assert asked["recovery"]["distillation"]["steps"] == 20
    assert asked["ranking"]["evaluations"] >= found["ranking"]["evaluations"]


def test_too_short_a_time_is_cut_to_the_least_and_said_to_be_exceeded(
    many: Path, tmp_path: Path, edgeprune: Any
) -> None:
    found = compressed(edgeprune, many, tmp_path / "out", "--ratio", "0.5", "--max-time", "0.01s")
    (passes,) = about(found, "a ranking makes ")
    assert passes.startswith("--max-time: ")
    assert "passes over a batch, the fewest that tell anything; they take " in passes
    assert about(found, "in one round fewer for a cut of 50%")
    assert about(found, "in one round fewer for a cut of 35%")
    assert found["ranking"]["rounds"] == []
    (exceeded,) = about(found, "was exceeded")
    assert exceeded.startswith("--max-time of 0.01 s was exceeded: the run took ")
    assert found["pruning"]["macs_removed_share"] >= 0.5


def test_rank_has_them_too_and_what_it_wrote_is_taken_at_the_same_effort(
    many: Path, tmp_path: Path, edgeprune: Any
) -> None:
    def ranked(folder: str, *more: str) -> Any:
        data = ("--calibration", "calibration.npz", "-o", str(tmp_path / folder), "--json")
        done = edgeprune("rank", *SMALL, *data, "--criterion", "hybrid", *more, cwd=many)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    found = ranked("ranking", "--criterion", "l1", "--effort", "quick")
    hybrid, l1 = found["criteria"]
    assert (hybrid["images"], l1["evaluations"]) == (128, 0)
    assert len(about(found, "--effort quick: a quarter of the passes")) == 1
    assert not about(found, "--max-time")

    found = ranked("in-no-time", "--max-time", "0.01s")
    (hybrid,) = found["criteria"]
    (cut,) = about(found, "hybrid makes at most")
    allowed, wanted = (int(n) for n in cut.split("at most ")[1].split(" passes")[0].split(" of "))
    assert hybrid["evaluations"] <= allowed < wanted
    assert hybrid["images"] == 150
    assert about(found, "was exceeded")

    given = ("--ranking", str(tmp_path / "ranking"), "--ratio", "0.25")
    compressed(edgeprune, many, tmp_path / "out", *given, "--effort", "quick")
    refused = edgeprune(
        "compress",
        *SMALL,
        "--calibration",
        "calibration.npz",
        *given,
        "-o",
        str(tmp_path / "other"),
        cwd=many,
    )
    assert "(--held-out, --max-images, --effort)" in sentence(refused, 2)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--max-time", "10"), "--max-time 10 was given; accepted is a time with its unit"),
        (("--max-time", "0s"), "--max-time 0s was given; accepted is a time with its unit"),
        (("--max-time", "soon"), "such as 90s or 10min"),
        (("--effort", "lazy"), "'lazy' is not one of 'quick', 'normal', 'thorough'"),
    ],
)
@pytest.mark.parametrize("command", ["compress", "rank"])
def test_what_is_not_accepted_is_one_sentence(
    command: str, options: tuple[str, ...], part: str, many: Path, tmp_path: Path, edgeprune: Any
) -> None:
    data = ("--calibration", "calibration.npz", "-o", str(tmp_path / "out"))
    done = edgeprune(command, *SMALL, *data, *options, cwd=many)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_a_gpu_that_is_not_there_is_refused_at_once_and_auto_does_without(
    many: Path, tmp_path: Path, edgeprune: Any
) -> None:
    for command in ("compress", "rank"):
        asked = ("--calibration", "calibration.npz", "--device", "cuda", "-o", str(tmp_path / command))
        done = edgeprune(command, *SMALL, *asked, cwd=many)
        assert "finds no CUDA device here; accepted are cpu, and auto" in sentence(done, 2)
        assert not (tmp_path / command).exists()
    usual, auto = tmp_path / "usual", tmp_path / "auto"
    for output, more in ((usual, ()), (auto, ("--device", "auto"))):
        compressed(edgeprune, many, output, "--effort", "quick", "--ratio", "0.2", *more)
    for name in WEIGHTS:
        assert (usual / name).read_bytes() == (auto / name).read_bytes()
