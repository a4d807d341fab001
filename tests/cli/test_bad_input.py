"""Every bad input: its exit status, one clear sentence, and nothing left behind; on the real process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_project import interrupted, leftovers, sentence, snapshot

SMALL = ("compress", "small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz")
GREY = ("--calibration", "grey.npz")


def small_with(*options: str) -> tuple[str, ...]:
    return (*SMALL, *options)


def arch(factory: str, model: str = "small.pt", *options: str) -> tuple[str, ...]:
    return ("compress", model, "--arch", f"nets.py:{factory}", *(options or GREY))


CASES: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    # the model
    "missing file": (
        ("compress", "smal.pt", *GREY),
        3,
        ("'smal.pt' does not exist", "did you mean 'small.pt'", "state_dict"),
    ),
    "text": (("compress", "text.pt", *GREY), 3, ("'text.pt' is a text file", "accepted are", ".pt2")),
    "noise": (("compress", "noise.pt2", *GREY), 3, ("'noise.pt2' is", "unknown kind", "accepted are")),
    "cut program": (
        ("compress", "cut.pt2", *GREY),
        3,
        ("'cut.pt2' is a damaged archive: after ", "copy or download"),
    ),
    "torchscript": (("compress", "script.pt", *GREY), 3, ("TorchScript", "torch.export.export(")),
    "untrusted pickle": (("compress", "trap.pt", *GREY), 3, ("'trap.pt'", "run code", "--trust-pickle")),
    "no architecture": (("compress", "small.pt", *GREY), 3, ("is a state_dict", "--arch")),
    "weights of another network": (
        arch("colour"),
        3,
        ("do not fit 'nets.py:colour'", "unexpected: norm.weight", "another size: first.weight"),
    ),
    "missing keys": (arch("small", "part.pt"), 3, ("4 missing: norm.weight, norm.bias, norm.running_mean",)),
    "unknown torchvision name": (
        ("compress", "small.pt", "--arch", "torchvision:resnet81", *GREY),
        3,
        ("no model 'resnet81'", "did you mean", "resnet18"),
    ),
    "torchvision name of a model without weights here": (
        ("compress", "torchvision:squeezenet1_1", *GREY),
        3,
        ("torchvision:squeezenet1_1", "could not be downloaded", "--weights none"),
    ),
    "factory that raises": (arch("raises"), 3, ("RuntimeError (the width is missing)",)),
    "no such factory": (arch("smal"), 3, ("'smal'", "did you mean small")),
    "factory of something else": (arch("number"), 3, ("returned int", "torch.nn.Module")),
    "NaN weights": (arch("small", "nan.pt"), 3, ("NaN or infinite values in 'second.weight'",)),
    # what the model does
    "control flow": (arch("decides"), 5, ("torch.export could not capture", "nets.py:", "control flow")),
    "class numbers": (arch("label"), 5, ("returns int64", "before argmax")),
    "two inputs": (
        arch("two"),
        5,
        ("'y'", "accepted is one input, or calibration data with an array for each"),
    ),
    # the input's shape
    "channels": (
        arch("colour", "colour.pt"),
        5,
        ("shape 1x8x8", "channels x height x width", "convolution takes 3 channels", "--input-shape"),
    ),
    "size": (
        arch("colour", "colour.pt", *GREY, "--input-shape", "3x8x8"),
        5,
        ("does not run on inputs of the shape 3x8x8", "--input-shape"),
    ),
    "shape beside the data": (
        small_with("--input-shape", "3x32x32"),
        4,
        ("the images are", "(3, 32, 32)", "--resize 32 --crop 32"),
    ),
    "program of another size": (
        ("compress", "dynamic.pt2", "--calibration", "colour.npz"),
        4,
        ("the images are (1, 32, 32)", "the model takes (1, 8, 8)"),
    ),
    # the data
    "no data": (arch("small", "small.pt", "-v"), 4, ("no calibration data", "--calibration")),
    "empty folder": (arch("small", "small.pt", "--calibration", "empty"), 4, ("'empty' is empty", ".png")),
    "damaged image": (
        arch("small", "small.pt", "--calibration", "damaged"),
        4,
        ("'damaged/01.png' cannot be read", "replace or remove it"),
    ),
    # options
    **{
        f"ratio {value}": (
            small_with("--ratio", value),
            2,
            ("ratio", value, "between 0 and 1", "0.25 cuts a quarter"),
        )
        for value in ("1.5", "0", "nan")
    },
    "impossible ratio": (small_with("--ratio", "0.99"), 6, ("0.99", "at most", "ask for less")),
    "unknown target": (small_with("--target", "rpi44"), 9, ("'rpi44'", "did you mean 'rpi4'", "jetson-nano")),
    # the output
    "output below a file": (small_with("-o", "text.pt/out"), 7, ("'text.pt/out'", "is a file")),
    "output is a file": (small_with("-o", "text.pt"), 7, ("'text.pt' is a file",)),
    "output of someone else": (
        small_with("-o", "classes", "--overwrite"),
        7,
        ("holds no manifest.json", "--overwrite will not delete it"),
    ),
    # nothing to prune
    "one linear layer": (arch("linear", "linear.pt"), 6, ("no channel of the model can be removed",)),
    "only the output": (arch("one_conv", "one_conv.pt"), 6, ("no channel of the model can be removed",)),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, project: Path, edgeprune: Any) -> None:
    arguments, status, parts = CASES[name]
    before = snapshot(project)
    fork = status not in {2, 7, 9} and name != "missing file"
    said = sentence(edgeprune(*arguments, fork=fork), status)
    for part in parts:
        assert part in said
    assert snapshot(project) == before


def test_nothing_of_an_untrusted_pickle_runs(project: Path, edgeprune: Any) -> None:
    marker = project / "executed"
    assert not marker.exists()
    edgeprune("inspect", "trap.pt")
    edgeprune("inspect", "trap.pt", "--arch", "nets.py:small", "--input-shape", "1x8x8")
    assert not marker.exists()
    edgeprune("inspect", "trap.pt", "--trust-pickle")
    assert marker.exists(), "the trap itself does not work"
    marker.unlink()


def test_an_existing_output_stays_as_it_is(
    project: Path, tmp_path: Path, digits: Any, edgeprune: Any
) -> None:
    shutil.copytree(digits[0], tmp_path / "out")
    before = snapshot(tmp_path / "out")
    said = sentence(edgeprune(*SMALL, "--ratio", "0.25", "-o", str(tmp_path / "out")), 7)
    assert "exists already" in said
    assert "--overwrite" in said
    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize("stage", ["rank", "export"])
def test_ctrl_c_leaves_an_old_output_intact_and_says_what_is_kept_beside_it(
    stage: str, project: Path, tmp_path: Path, digits: Any
) -> None:
    place = tmp_path / "place"
    shutil.copytree(digits[0], place / "out")
    before, project_before = snapshot(place), snapshot(project)
    asked = (*SMALL, "--ratio", "0.25", "-o", str(place / "out"), "--overwrite")
    done = interrupted(project, tmp_path / "scratch", stage, *asked)
    assert (done.returncode, done.stdout) == (130, "")
    journal = place / "out.journal"
    kept = f" kept in {journal}; run the same command with --resume to go on"
    last = done.stderr.splitlines()[-1]
    assert last.endswith(kept) if journal.exists() else last == "interrupted: nothing was written"
    assert journal.exists() or stage == "rank"
    assert "Traceback" not in done.stderr
    shutil.rmtree(journal, ignore_errors=True)
    assert snapshot(place) == before
    assert snapshot(project) == project_before
    assert leftovers(tmp_path / "scratch") == []


def test_ctrl_c_leaves_no_folder_made_for_the_output_but_what_is_kept(project: Path, tmp_path: Path) -> None:
    done = interrupted(
        project, tmp_path / "scratch", "export", *SMALL, "--ratio", "0.25", "-o", str(tmp_path / "a/b/out")
    )
    assert done.returncode == 130
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out.journal"]
