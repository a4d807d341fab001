"""Whatever code of a user raises, wherever it runs: one sentence that names it, with its status."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_project import networks, sentence

CODE = '''
import itertools
import os
import sys
import threading

import torch
from torch import nn
import nets


class Stop(BaseException): pass
class Key(KeyboardInterrupt): pass
class Odd(Exception):
    def __str__(self): return "first line\\nsecond \\x1b[31mline"


def raising(kind):
    """Raise it in a way that its own code would."""
    if kind == "RecursionError":
        return raising(kind)
    if kind == "SystemExit":
        sys.exit("no more")
    if kind == "GeneratorExit":
        raise GeneratorExit
    found = {"Stop": Stop, "Key": Key, "Odd": Odd}.get(kind) or getattr(__builtins__, kind, None)
    raise (found or __builtins__[kind])("no more")


KIND, AT = os.environ.get("KIND", "none"), int(os.environ.get("AT", "0"))
calls = itertools.count()


class Late(nets.Small):
    """Raises at one of its calls; torch.export traces one of them."""

    def forward(self, x):
        if next(calls) == AT:
            raising(KIND)
        return super().forward(x)


class Data(torch.utils.data.Dataset):
    def __init__(self, place): self.place = place
    def __len__(self):
        if self.place == "length": raising(KIND)
        return 12
    def __getitem__(self, index):
        if self.place == index: raising(KIND)
        return torch.full((1, 8, 8), index / 12) + torch.eye(8) * 0.01, index % 4


class Labelled(Data):
    @property
    def classes(self): raising(KIND)


def late(): return Late()
def first(): return Data(0)
def seventh(): return Data(7)
def length(): return Data("length")
def classes(): return Labelled(None)
def generator(): raising(KIND); yield 1
def lazily(): return (raising(KIND) for _ in range(3))
def factory(): raising(KIND)
def recipe(network): raising(KIND)


class Returned(nets.Small):
    def forward(self, x): raising(KIND)


def other(network):
    network.__class__ = Returned
    return network


class Pickled:
    def __reduce__(self): return (raising, (KIND,))
'''
KINDS = (
    "SystemExit", "Stop", "Key", "Odd", "RecursionError", "MemoryError", "GeneratorExit", "StopIteration",
    "AssertionError", "OSError",
)  # fmt: skip
MODEL = ("small.pt", "--arch", "code_of_others.py:late")
DATA = ("--calibration", "grey.npz", "--threads", "1")
NETS = ("small.pt", "--arch", "nets.py:small")


@pytest.fixture
def place(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("small.pt", "grey.npz", "nets.py"):
        (tmp_path / name).symlink_to(project / name)
    (tmp_path / "code_of_others.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(kind: str, said: str) -> None:
    expected = {
        "Stop": "no more", "Odd": "first line", "RecursionError": "recursion",
        "GeneratorExit": "GeneratorExit",
    }.get(kind, "no more")  # fmt: skip
    assert expected in said or kind in said, said
    assert "fault in edgeprune" not in said
    assert "second" not in said


PLACES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "first item": (("compress", *NETS, "--calibration", "code_of_others.py:first"), 4, "item 0 of"),
    "seventh item": (("compress", *NETS, "--calibration", "code_of_others.py:seventh"), 4, "item 7 of"),
    "length": (("compress", *NETS, "--calibration", "code_of_others.py:length"), 4, "length"),
    "classes": (("compress", *NETS, "--calibration", "code_of_others.py:classes"), 4, "'classes'"),
    "generator": (
        ("compress", *NETS, "--calibration", "code_of_others.py:generator"), 4, "of type generator",
    ),
    "generator expression": (
        ("compress", *NETS, "--calibration", "code_of_others.py:lazily"), 4, "generator",
    ),
    "data factory": (("compress", *NETS, "--calibration", "code_of_others.py:factory"), 4, "factory"),
    "architecture": (("inspect", "small.pt", "--arch", "code_of_others.py:factory"), 3, "factory"),
    "forward": (("inspect", *MODEL, "--input-shape", "1x8x8"), 5, "model"),
    "pickle": (("inspect", "pickled.pt", "--trust-pickle", "--input-shape", "1x8x8"), 3, "'pickled.pt'"),
}  # fmt: skip


def pickled(place: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("KIND", kind)
    networks(place)
    module = importlib.reload(importlib.import_module("code_of_others"))
    torch.save({"state_dict": {"a": torch.zeros(2)}, "extra": module.Pickled()}, place / "pickled.pt")


@pytest.mark.parametrize("name", PLACES)
def test_what_is_raised_is_told(
    name: str, place: Path, edgeprune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, status, where = PLACES[name]
    # Every kind somewhere, the ones that end processes everywhere.
    rng = np.random.default_rng(len(name))
    for kind in ("SystemExit", "Stop", *rng.choice(KINDS[2:], 2, replace=False).tolist()):
        monkeypatch.setenv("KIND", kind)
        if name == "pickle":
            pickled(place, monkeypatch, kind)
        said = sentence(edgeprune(*command, "-q", cwd=place), status)
        assert where in said
        assert "\x1b" not in said
        if "generator" not in name:  # which nobody asks for an item
            told(kind, said)


@pytest.mark.parametrize("at", range(5))
def test_a_model_that_raises_late_is_told_at_every_call(
    at: int, place: Path, edgeprune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls: as it is, the export, another batch, once more, and on calibration images."""
    monkeypatch.setenv("AT", str(at))
    command = (
        "compress",
        *MODEL,
        *DATA,
        "--ratio",
        "0.25",
        "--effort",
        "quick",
        "--one-round",
        "-q",
    )
    for kind in ("SystemExit", KINDS[1 + at]):
        monkeypatch.setenv("KIND", kind)
        done = edgeprune(*command, "-o", f"out-{kind}", cwd=place)  # what a run kept stays for --resume
        said = sentence(done, 5)
        told(kind, said)
        assert re.search(r"\bmodel\b", said)
        assert not (place / f"out-{kind}").exists()


@pytest.mark.parametrize("function", ["recipe", "other"])
@pytest.mark.parametrize("kind", ["SystemExit", "Stop", "Odd"])
def test_a_recipe_that_raises_is_told(
    function: str, kind: str, place: Path, edgeprune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIND", kind)
    command = ("compress", *NETS, *DATA, "--target", "rpi4", "--ratio", "0.25", "--effort", "quick", "-q")
    asked = ("--recipe", f"code_of_others.py:{function}", "-o", "out")
    said = sentence(edgeprune(*command, *asked, cwd=place), 2)
    told(kind, said)
    assert "recipe" in said
    assert not (place / "out").exists()


def test_a_program_of_a_fixed_batch_that_fails_is_told(place: Path, edgeprune: Any) -> None:
    class Picks(torch.nn.Module):
        """Takes a value of its buffer for a row: beyond the end where somebody changed the buffer."""

        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(1, 4, 3)
            self.register_buffer("row", torch.tensor([0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.convolution(x).mean((2, 3)).index_select(1, self.row)

    network = Picks().eval()
    program = torch.export.export(network, (torch.rand(1, 1, 8, 8),))
    program.state_dict["row"].fill_(99)
    torch.export.save(program, str(place / "fails.pt2"))
    said = sentence(edgeprune("inspect", "fails.pt2", "-q", cwd=place), 3)
    assert "'fails.pt2', run on 1 images, raised" in said
