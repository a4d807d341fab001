"""Numbers out of range, networks that compute nothing, and code of the user that ends the process."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_project import run_in_turn, sentence

from edgeprune.cli import main

HUGE = "9" * 5000
COMPRESS = ("compress", "small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz")
NUMBERS: dict[tuple[str, ...], str] = {
    (*COMPRESS, "--threads", "9" * 20): f"--threads {'9' * 20} was given; accepted is a whole number from",
    (*COMPRESS, "--threads", "0"): "--threads 0 was given; accepted is a whole number from 1 to 1024",
    (*COMPRESS, "--seed", str(2**64)): f"--seed {2**64} was given; accepted is a whole number from 0 to",
    (*COMPRESS, "--seed", "-1"): "--seed -1 was given; accepted is a whole number from 0 to",
    (*COMPRESS, "--resize", "99999999"): "--resize 99999999 was given; accepted is a whole number from 1",
    (*COMPRESS, "--crop", "99999999"): "--crop 99999999 was given; accepted is a whole number from 1 to 8192",
    (*COMPRESS, "--max-images", HUGE): "...999999999999999 was given; accepted is a whole number from 1 to",
    (*COMPRESS, "--max-images", "1.5"): "--max-images 1.5 was given; accepted is a whole number",
    (*COMPRESS, "--width-quantum", HUGE): "accepted is a whole number from 1 to 4096",
    (*COMPRESS, "--batch-size", HUGE): "accepted is a whole number from 1 to 4096",
    (*COMPRESS, "--held-out", "nan"): "--held-out nan was given; accepted is the share",
    (*COMPRESS, "--input-shape", f"1x{HUGE}x8"): "is not accepted: give channels, height and width",
    (*COMPRESS, "--input-shape", "1x60000x60000"): "each at most 65536 and at most 268435456 together",
    ("rank", *COMPRESS[1:], "--max-evaluations", HUGE): "accepted is a whole number from 1 to",
    ("rank", *COMPRESS[1:], "--recover-at", "nan"): "--recover-at nan was given; accepted is a share",
    ("profile", "x.onnx", "--batch-size", HUGE): "accepted is a whole number from 1 to 4096",
    ("verify", "a", "b", "--tolerance", "nan"): "--tolerance nan was given; accepted is",
    ("verify", "a", "b", "--max-images", "1"): "accepted is a whole number from 2 to",
}  # fmt: skip


@pytest.mark.parametrize("arguments", NUMBERS, ids=lambda a: f"{a[0]} {a[-2]} {a[-1][:12]}")
def test_numbers_out_of_range_are_usage_errors(
    arguments: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(project)
    assert main(arguments) == 2
    printed, said = capsys.readouterr()
    assert (printed, said.count("\n")) == ("", 1)
    assert said.startswith("error: ")
    assert NUMBERS[arguments] in said
    assert len(said) < 400


ODD = """
import sys
import torch
from torch import nn
import nets

class Stop(KeyboardInterrupt): pass

class Late(nets.Small):
    def forward(self, x): sys.exit(5)

class Nan(nets.Small):
    def forward(self, x): return super().forward(x) * float("nan")

def exits(): sys.exit(3)
def stops(): raise Stop("no more")
def late(): return Late()
def nan(): return Nan()

def columns():
    network = nets.Small()
    network.head = nn.Linear(8, 0)
    return network

def huge():
    network = nets.Small()
    network.second.weight.data.fill_(1e30)
    return network

def zeros():
    network = nets.Small()
    for parameter in network.parameters():
        parameter.data.zero_()
    return network
"""
NETWORKS = {
    "exits": (3, "odd.py:exits' raised SystemExit (3); it is called with no arguments"),
    "stops": (3, "odd.py:stops' raised Stop (no more); it is called with no arguments"),
    "late": (5, "SystemExit: 5 was raised in"),
    "nan": (5, "output 0 of the model has NaN everywhere"),
    "columns": (5, "output 0 of the model has no values: it is of the shape batch x 0"),
    "huge": (5, "its largest weight is 1e+30, in 'second.weight'"),
    "zeros": (0, "the model gives the same outputs for every random image"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_odd_networks_are_told_as_what_they_are(
    name: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgeprune: Any
) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    (tmp_path / "nets.py").write_text((project / "nets.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    odd = importlib.reload(importlib.import_module("odd"))
    state = odd.nets.Small() if name in {"exits", "stops"} else getattr(odd, name)()
    torch.save(state.state_dict(), tmp_path / "odd.pt")
    asked = ("inspect", "odd.pt", "--arch", f"odd.py:{name}", "--input-shape", "1x8x8")
    done = edgeprune(*asked, cwd=tmp_path)
    status, said = NETWORKS[name]
    if status:
        assert said in sentence(done, status)
    else:
        assert done.returncode == 0
        assert said in done.stderr


def test_folders_given_as_models_are_called_so(project: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(project)
    grey = ("--calibration", "grey.npz")
    for arguments, status in (
        (("compress", "flat"), 3), (("profile", "flat"), 10), (("quantize", "flat", *grey), 13),
        (("verify", "flat", "small.pt", *grey), 3), (("inspect", "flat"), 3),
    ):  # fmt: skip
        assert main([*arguments, "-q"]) == status
        assert "'flat' is a folder; give the " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"])
def test_variables_of_torch_make_no_good_file_unreadable_and_no_bad_one_readable(
    name: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    shape, small = ("--input-shape", "1x8x8", "-q"), ("--arch", "nets.py:small")
    models = (("dynamic.pt2",), ("small.pt", *small), ("trap.pt", *small))
    commands = [("inspect", *model, *shape) for model in models]
    *good, bad = run_in_turn(commands, cwd=project, scratch=tmp_path / "scratch")
    assert [done.returncode for done in good] == [0, 0], [done.stderr for done in good]
    assert "run code" in sentence(bad, 3)
    assert not (project / "executed").exists()


def test_what_torch_only_warns_of_is_in_the_sentence(project: Path, tmp_path: Path, edgeprune: Any) -> None:
    """Programs of another version, or whose parts do not fit together: what torch says behind its warning."""
    with zipfile.ZipFile(project / "dynamic.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    program = next(name for name in members if name.endswith("/models/model.json"))

    def other(change: Callable[[Any], object]) -> bytes:
        content = json.loads(members[program])
        change(content)
        return json.dumps(content).encode()

    changes: dict[str, Callable[[Any], object]] = {
        "major": lambda c: c["schema_version"].update(major=999),
        "minor": lambda c: c["schema_version"].update(major=-1),
        "operator": lambda c: c["graph_module"]["graph"]["nodes"][0].update(inputs=[]),
        "outputs": lambda c: c["graph_module"]["graph"]["outputs"].clear(),
        "inputs": lambda c: c["graph_module"]["graph"]["inputs"].clear(),
        "names": lambda c: c["graph_module"]["graph"]["tensor_values"].clear(),
    }
    for kind, change in changes.items():
        with zipfile.ZipFile(tmp_path / f"{kind}.pt2", "w") as archive:
            for name, data in {**members, program: other(change)}.items():
                archive.writestr(name, data)
        said = sentence(edgeprune("inspect", f"{kind}.pt2", "-q", cwd=tmp_path), 3)
        assert "above" not in said, said
        assert "torch" in said
