"""Kinds of faults in models and images, many files of each, on the real process: one sentence each."""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_project import CHECKOUT, leftovers, run_in_turn, sentence

sys.path.insert(0, str(CHECKOUT / "tests" / "unit" / "loading"))

import test_hostile_files as hostile  # its tables of files
import test_program_security as programs

MODEL = ("--arch", "nets.py:small", "--input-shape", "1x8x8")
SMALL = ("compress", "small.pt", "--arch", "nets.py:small", "--target", "rpi4", "--dry-run", "--calibration")
ARCHIVES: dict[str, tuple[int, bytes]] = {
    "encrypted": (8, b"\x01\x00"),
    "unknown method": (10, b"\x63\x00"),
    "method of the future": (10, b"\x5f\x00"),
    "odd version": (6, b"\xff\x00"),
    "no encoding": (46, b"\xff\xfe"),
    "another checksum": (16, b"\x00\x00\x00\x01"),
    "another place": (42, struct.pack("<L", 5)),
    "larger than told": (24, struct.pack("<L", 999)),
    "6 GiB": (24, struct.pack("<L", (6 << 30) & 0xFFFFFFFF)),
    "4 GiB": (24, struct.pack("<L", 0xFFFFFFF0)),
    "endless name": (28, b"\xff\xff"),
}
"""Bytes in the first entry of an archive's directory: offset and value."""


@pytest.fixture
def place(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model, its code and the images."""
    for name in ("small.pt", "grey.npz", "nets.py"):
        (tmp_path / name).symlink_to(project / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(place: Path, commands: dict[str, tuple[str, ...]], status: int) -> dict[str, str]:
    """The one sentence of each command, all of which end with ``status``; what code makes is not there."""
    done = run_in_turn([(*c, "-q") for c in commands.values()], cwd=place, scratch=place / "scratch")
    said = {}
    for name, one in zip(commands, done, strict=True):
        assert one.returncode == status, f"{name}: {one.returncode} {one.stdout} {one.stderr}"
        said[name] = sentence(one, status)
        assert said[name].isprintable(), name
    assert not list(place.rglob("PWNED"))
    assert leftovers(place / "scratch") == []
    return said


def changed_programs(members: dict[str, bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Code in a name of every field, in turn of every kind, in sizes, in operators, and other structures."""
    for end in (programs.MODEL, programs.WEIGHTS):
        good = programs.content(members, end)
        kinds = [
            (kind, place)
            for kind, place in programs.kinds(good).items()
            if place[-1] is None or not programs.REMARKS & set(map(str, place))
        ]
        for number, (kind, place) in enumerate(kinds[::2]):
            name = list(programs.NAMES)[number % len(programs.NAMES)]
            yield f"{name} in {kind}", {end: programs.replaced(good, place, programs.NAMES[name])}
    good = programs.content(members, programs.MODEL)
    for size in programs.SIZES[::4]:
        yield f"size {size[:30]}", {programs.MODEL: programs.with_sizes(good, size)}
    for target in programs.TARGETS[::4]:
        yield f"operator {target}", {programs.MODEL: with_target(good, target)}


def with_target(good: Any, target: str) -> Any:
    return programs.replaced(good, ("graph_module", "graph", "nodes", 0, "target"), target)


def test_programs_that_carry_code_or_endless_sizes(place: Path) -> None:
    members = programs.good_members(place / "good.pt2")
    commands: dict[str, tuple[str, ...]] = {}
    for number, (name, change) in enumerate(changed_programs(members)):
        Path(programs.write(members, change)).rename(f"{number}.pt2")
        commands[f"{number}: {name}"] = ("inspect", f"{number}.pt2")
    assert len(commands) > 40
    for said in refused(place, commands, 3).values():
        assert ".pt2' is a" in said


def test_checkpoints_without_end_and_tensors_of_every_kind(place: Path) -> None:
    good = hostile.state()
    (place / "hostile_arch.py").write_text(hostile.ARCHITECTURE)
    contents: dict[str, Any] = {
        **{f"itself as {key}": hostile.itself(key) for key in ("state_dict", "model", "ema", "weights")},
        "in turn": hostile.in_turn(),
        "in a list": hostile.in_a_list(),
        "deep": hostile.deep(),
        "filled": {"state_dict": good, "x": hostile.Filled()},
        **{kind: good | {"0.weight": tensor} for kind, (tensor, _) in hostile.TENSORS.items()},
    }
    for number, content in enumerate(contents.values()):
        torch.save(content, f"{number}.pt", _use_new_zipfile_serialization=number % 3 > 0)
    architecture = ("--arch", "hostile_arch.py:net", "--input-shape", "3x8x8")
    commands = {kind: ("inspect", f"{n}.pt", *architecture) for n, kind in enumerate(contents)}
    said = refused(place, commands, 3)
    for number, kind in enumerate(contents):
        if kind not in hostile.TENSORS or number % 3 == 0:  # torch reads fewer types in its old format
            continue
        assert hostile.TENSORS[kind][1] in said[kind]
        assert "'0.weight'" in said[kind]


def test_weights_that_are_not_what_was_stored(place: Path, project: Path) -> None:
    rng, commands = random.Random(0), {}
    data = (project / "small.pt").read_bytes()
    with zipfile.ZipFile(project / "small.pt") as archive:
        member = max(archive.infolist(), key=lambda m: m.file_size)
    start = member.header_offset + 30 + sum(struct.unpack("<HH", data[member.header_offset :][26:30]))
    for number, length in enumerate([1] * 6 + [64, 500]):
        begin = start + rng.randrange(member.file_size - length)
        changed = bytes(255 - b for b in data[begin : begin + length])
        Path(f"{number}.pt").write_bytes(data[:begin] + changed + data[begin + length :])
        commands[f"{length} at {begin}"] = ("inspect", f"{number}.pt", *MODEL)
    assert all("CRC" in said for said in refused(place, commands, 3).values())
    commands = {}
    for number, (name, header) in enumerate(hostile.HEADERS.items()):
        hostile.safetensors_file(header, bytes(40))
        Path("w.safetensors").rename(f"{number}.safetensors")
        commands[name] = ("inspect", f"{number}.safetensors", *MODEL)
    assert all("damaged safetensors" in said for said in refused(place, commands, 3).values())


@pytest.mark.parametrize(("source", "status"), [("small.pt", 3), ("dynamic.pt2", 3), ("grey.npz", 4)])
def test_archives_that_no_reader_agrees_on(source: str, status: int, place: Path, project: Path) -> None:
    data = (project / source).read_bytes()
    entry = data.index(b"PK\x01\x02")
    commands: dict[str, tuple[str, ...]] = {}
    for number, (name, (offset, value)) in enumerate(ARCHIVES.items()):
        file = f"{number}{Path(source).suffix}"
        begin = entry + offset
        Path(file).write_bytes(data[:begin] + value + data[begin + len(value) :])
        commands[name] = ("inspect", file, *MODEL) if status == 3 else (*SMALL, file)
    refused(place, commands, status)


def test_arrays_whose_headers_are_not_believed(place: Path) -> None:
    descriptions = (
        "'|u1'",
        "'|O'",
        "'<f16'",
        "'|V8'",
        "'<M8[s]'",
        "'<c8'",
        "'<U3'",
        "None",
        programs.PAYLOAD,
    )
    shapes = (
        "(4, 1000000, 1000000)", "(-1, 8, 8)", "(0, 10**30)", "(1e9,)", f"({10**30}, 0, 3, 3)",
        "(True, 8, 8)", "'x'", "(" * 300, programs.PAYLOAD, "(4000000000, 1, 1)", "9" * 5000,
    )  # fmt: skip
    kinds = [("'|u1'", shape) for shape in shapes] + [(kind, "(1, 8, 8)") for kind in descriptions[1:]]
    commands: dict[str, tuple[str, ...]] = {}
    for name in ("images", "labels"):
        for kind, shape in kinds:
            header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
            array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
            file = f"{len(commands)}.npz"
            np.savez(file, images=np.zeros((40, 8, 8), np.uint8))
            with zipfile.ZipFile(file, "w" if name == "images" else "a") as archive:
                archive.writestr(f"{name}.npy", array)
            commands[f"{name} {kind} {shape[:20]}"] = (*SMALL, file)
    refused(place, commands, 4)


def test_what_is_no_file_among_images(place: Path, project: Path) -> None:
    def sock(path: Path) -> None:
        kept.append(socket.socket(socket.AF_UNIX))
        kept[-1].bind(str(path.relative_to(place)))

    kept: list[socket.socket] = []
    kinds: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "socket": sock,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "null device": lambda path: path.symlink_to("/dev/null"),
        "link to itself": lambda path: path.symlink_to(path.name),
        "link to nothing": lambda path: path.symlink_to("nothing"),
    }
    commands: dict[str, tuple[str, ...]] = {}
    for kind, make in kinds.items():
        folder = place / kind.replace(" ", "-")
        folder.mkdir()
        for image in sorted((project / "flat").iterdir())[:3]:
            (folder / image.name).symlink_to(image)
        make(folder / "x.png")
        commands[kind] = (*SMALL, folder.name)
    for said in refused(place, commands, 4).values():
        assert "x.png' is no regular file" in said
    for server in kept:
        server.close()
