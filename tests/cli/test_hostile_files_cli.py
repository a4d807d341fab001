"""Crafted and damaged files on the real process: status 3 or 4, one sentence, and nothing of theirs runs."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_project import run, run_forked, sentence
from torch import nn
from torch.export import Dim

PAYLOAD = "__import__('os').system('touch PWNED')"
NAME = f'0") if {PAYLOAD} else getattr(self, "0'
INSPECT = ("inspect", "crafted.pt2")


def exported(change: Callable[[str, bytes], bytes]) -> None:
    """An archive with every member changed."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    program = torch.export.export(network, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(program, "good.pt2")
    with zipfile.ZipFile("good.pt2") as old, zipfile.ZipFile("crafted.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def name() -> None:
    exported(lambda _, data: data.replace(b'"0.weight"', json.dumps(NAME).encode()))


def wide_size() -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) for c in "eval")
    text = json.dumps(f"Max({wide}('1'), {PAYLOAD})").encode()

    def change(member: str, data: bytes) -> bytes:
        changed = re.sub(rb'"expr_str": "[^"]*"', lambda _: b'"expr_str": ' + text, data)
        return changed if "/models/" in member else data

    exported(change)


def operator() -> None:
    exported(lambda _, data: data.replace(b"torch.ops.aten.relu.default", b"torch.os.system"))


def itself() -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, "crafted.pt")


def zeroed() -> None:
    torch.save(nn.Linear(100, 100).state_dict(), "crafted.pt")
    data = bytearray(Path("crafted.pt").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 5000] = bytes(5000)
    Path("crafted.pt").write_bytes(data)


def pipe() -> None:
    Path("images").mkdir()
    for index in range(3):
        Path(f"images/{index}.ppm").write_bytes(b"P6 8 8 255\n" + bytes([index]) * 192)
    os.mkfifo("images/x.png")
    Path("hostile_arch.py").write_text("from torch import nn\ndef net(): return nn.Conv2d(3, 4, 3)\n")
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), "crafted.pt")


WITH_ARCHITECTURE = ("inspect", "crafted.pt", "--arch", "torchvision:resnet18")
CASES: dict[str, tuple[Callable[[], None], tuple[str, ...], int, str]] = {
    "name": (name, INSPECT, 3, "runs code"),
    "size": (wide_size, INSPECT, 3, "the size"),
    "operator": (operator, INSPECT, 3, "the operator 'torch.os.system'"),
    "itself": (itself, WITH_ARCHITECTURE, 3, "dictionaries within dictionaries"),
    "zeroed": (zeroed, WITH_ARCHITECTURE, 3, "CRC"),
    "pipe": (
        pipe,
        ("compress", "crafted.pt", "--arch", "hostile_arch.py:net", "--calibration", "images"),
        4,
        "no regular file",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    make, command, status, part = CASES[case]
    monkeypatch.chdir(tmp_path)
    make()
    start = run if case == "name" else run_forked
    assert part in sentence(start(*command, cwd=tmp_path, scratch=tmp_path / "scratch"), status)
    assert not (tmp_path / "PWNED").exists()
