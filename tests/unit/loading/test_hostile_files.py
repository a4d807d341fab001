"""Small files that would hang, fill the memory or load damaged: one sentence each, and at once."""

from __future__ import annotations

import collections
import json
import os
import random
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.calibration import load_calibration
from edgeprune.errors import CalibrationError, ModelLoadError
from edgeprune.loading import load_model
from edgeprune.storage.zips import IMAGE_LIMITS, MODEL_LIMITS, ZipFaultError, check_zip

ARCHITECTURE = (
    "from torch import nn\ndef net(): return nn.Sequential(nn.Linear(40, 40), nn.BatchNorm1d(40))\n"
)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("hostile_arch.py").write_text(ARCHITECTURE)
    return tmp_path


def state() -> dict[str, torch.Tensor]:
    return nn.Sequential(nn.Linear(40, 40), nn.BatchNorm1d(40)).state_dict()


def refused(path: str, *parts: str, **options: Any) -> None:
    with pytest.raises(ModelLoadError) as info:
        load_model(path, architecture="hostile_arch.py:net", **options)
    assert "\n" not in str(info.value)
    for part in parts:
        assert part in str(info.value)


# --- checkpoints that contain themselves


def itself(key: str) -> Any:
    content: dict[str, Any] = {"epoch": 1}
    content[key] = content
    return content


def in_turn() -> Any:
    first: dict[str, Any] = {}
    first["state_dict"] = {"model": first}
    return first


def in_a_list() -> Any:
    content: list[Any] = []
    content.append(content)
    return {"state_dict": content}


def deep() -> Any:
    content: Any = state()
    for _ in range(200):
        content = {"model": content}
    return content


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        *(itself(key) for key in ("state_dict", "model", "ema", "net", "weights")),
        in_turn(),
        in_a_list(),
        deep(),
    ],
    ids=lambda _: "",
)
def test_a_checkpoint_without_end_is_refused(content: Any, trust: bool) -> None:
    torch.save(content, "w.pt")
    refused("w.pt", trust_pickle=trust)


class Filled:
    """Unpickles to a bytearray of any size."""

    def __reduce__(self) -> Any:
        return (bytearray, (1 << 40,))


@pytest.mark.parametrize("zipped", [True, False])
def test_memory_that_a_checkpoint_asks_for_is_refused(zipped: bool) -> None:
    torch.save({"state_dict": state(), "x": Filled()}, "w.pt", _use_new_zipfile_serialization=zipped)
    refused("w.pt", "bytearray", "fill the memory")


# --- tensors


def changed(key: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return state() | {key: tensor}


TENSORS: dict[str, tuple[torch.Tensor, str]] = {
    "complex": (torch.zeros(40, 40, dtype=torch.complex64), "complex"),
    "half complex": (torch.zeros(40, 40, dtype=torch.complex32), "complex"),
    "boolean": (torch.zeros(40, 40, dtype=torch.bool), "boolean"),
    "whole": (torch.zeros(40, 40, dtype=torch.int64), "int64"),
    "bytes": (torch.zeros(40, 40, dtype=torch.uint8), "uint8"),
    "sparse": (torch.zeros(40, 40).to_sparse(), "sparse"),
    "compressed rows": (torch.zeros(40, 40).to_sparse_csr(), "sparse"),
    "meta": (torch.zeros(40, 40, device="meta"), "meta"),
    "quantized": (torch.quantize_per_tensor(torch.zeros(40, 40), 0.1, 0, torch.qint8), "quantized"),
    "repeated": (torch.zeros(1).expand(10**6, 10**6), "repeating"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TENSORS)
def test_unusual_tensors_are_named(kind: str) -> None:
    tensor, part = TENSORS[kind]
    torch.save(changed("0.weight", tensor), "w.pt")
    refused("w.pt", "'0.weight'", part, "accepted")


def test_half_precision_and_counters_of_another_type_still_load() -> None:
    torch.save(changed("0.weight", torch.zeros(40, 40).bfloat16()), "w.pt")
    load_model("w.pt", architecture="hostile_arch.py:net")
    torch.save(changed("1.num_batches_tracked", torch.tensor(7.0)), "w.pt")
    load_model("w.pt", architecture="hostile_arch.py:net")


# --- damage


def test_damage_anywhere_in_the_weights_is_found(scratch: Path) -> None:
    torch.save(state(), "w.pt")
    data = Path("w.pt").read_bytes()
    with zipfile.ZipFile("w.pt") as archive:
        member = max(archive.infolist(), key=lambda m: m.file_size)
    start = data.index(bytes(torch.load("w.pt")["0.weight"].numpy().tobytes()[:64]))
    rng = random.Random(0)
    for length in [1] * 20 + [64, 1000, 5000]:
        place = start + rng.randrange(member.file_size - length)
        broken = bytearray(data)
        broken[place : place + length] = bytes(255 - b for b in data[place : place + length])
        Path("broken.pt").write_bytes(broken)
        refused("broken.pt", "damaged", "CRC")


def safetensors_file(header: Any, content: bytes, *, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(text) if length is None else length)
    Path("w.safetensors").write_bytes(size + text + content)


def two(first: list[int], second: list[int]) -> dict[str, Any]:
    entry = {"dtype": "F32", "shape": [4]}
    return {"a": entry | {"data_offsets": first}, "b": entry | {"data_offsets": second}}


HEADERS: dict[str, Any] = {
    "overlap": two([0, 16], [8, 24]),
    "same bytes": two([0, 16], [0, 16]),
    "hole": two([0, 16], [20, 36]),
    "hole at the start": two([4, 20], [20, 36]),
    "beyond the end": two([0, 16], [16, 999]),
    "far beyond": two([0, 16], [2**62, 2**62 + 16]),
    "negative": two([0, 16], [-16, 0]),
    "backwards": two([16, 0], [16, 32]),
    "left over": two([0, 16], [16, 32]),
    "size and shape differ": {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 40]}},
    "endless shape": {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 40]}},
    "unknown type": {"a": {"dtype": "X", "shape": [10], "data_offsets": [0, 40]}},
    "deep": b'{"a":' * 50_000,
    "no mapping": b"{1}",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_safetensors_header_that_does_not_fit_its_content_is_refused(name: str) -> None:
    safetensors_file(HEADERS[name], bytes(40))
    refused("w.safetensors", "damaged safetensors")


# --- archives


def plain(names: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile("a.zip", "w", method) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return Path("a.zip").read_bytes()


def overlapping() -> bytes:
    data = bytearray(plain({"a": b"1234", "b": b"1234"}))
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    return bytes(data)


def edited(offset: int, value: bytes) -> Callable[[], bytes]:
    """With other bytes in the first entry of the directory."""

    def make() -> bytes:
        data = bytearray(plain({"a": b"1234", "b": b"1234"}))
        place = data.index(b"PK\x01\x02") + offset
        data[place : place + len(value)] = value
        return bytes(data)

    return make


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "bomb": (edited(24, struct.pack("<L", 400 << 20)), "unpacks to 400 MiB"),
    "members that overlap": (overlapping, "overlap|two names"),
    "something before": (lambda: b"PK\x03\x04" + bytes(60) + plain({"a": b"1"}), "two directories"),
    "archive behind another": (lambda: plain({"a": b"1"}) + plain({"b": b"2"}), "two directories"),
    "something behind": (lambda: plain({"a": b"1"}) + bytes(30), "behind its directory|damaged"),
    "twins": (lambda: plain({"a": b"1", "A": b"2"}), "same name"),
    "name with an end": (lambda: plain({"a\tb": b"1"}), "unusual name"),
    "other letters": (lambda: plain({"\uff41": b"1"}), "unusual name"),
    "encrypted": (edited(8, b"\x01\x00"), "encrypted"),
    "unknown compression": (edited(10, b"\x63\x00"), "compression"),
    "larger than told": (edited(24, struct.pack("<L", 999)), "two sizes"),
    "wrong checksum": (edited(16, b"\x00\x00\x00\x00"), "CRC"),
    "other place": (edited(42, struct.pack("<L", 5)), "should be|overlap"),
    "cut": (lambda: plain({"a": b"1" * 99})[:-30], "damaged"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_not_what_it_says_is_refused(name: str) -> None:
    make, part = ARCHIVES[name]
    Path("x.pt").write_bytes(make())
    with pytest.raises(ZipFaultError, match=part):
        check_zip(Path("x.pt"), MODEL_LIMITS)


def test_plain_archives_pass() -> None:
    for name in ("w.pt", "epoch=3,loss=0.1.pt", "model (1).pt", "größe.pt"):
        torch.save(state(), name)
        check_zip(Path(name), MODEL_LIMITS)
    np.savez_compressed("a.npz", images=np.zeros((64, 64, 64, 3), np.uint8))
    check_zip(Path("a.npz"), IMAGE_LIMITS)


# --- calibration data


def test_an_archive_of_images_that_grows_without_measure_is_refused() -> None:
    np.savez_compressed("a.npz", images=np.zeros((190, 3, 512, 512), np.uint8))
    with pytest.raises(CalibrationError, match=r"would take 0\.6 GiB"):
        load_calibration("a.npz")


def headed(shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
    with zipfile.ZipFile("h.npz", "w") as archive:
        archive.writestr("images.npy", array)


@pytest.mark.parametrize(
    "shape",
    [
        "(9,)",
        "(4, 1000000, 1000000)",
        "(-1, 8, 8)",
        "(0, 10**30)",
        "(1e9,)",
        f"({10**30}, 0, 3, 3)",
        "'x'",
        "(" * 300,
    ],
)
def test_the_header_of_an_array_is_not_believed(shape: str) -> None:
    headed(shape)
    with pytest.raises(CalibrationError):
        load_calibration("h.npz")


@pytest.fixture
def special(scratch: Path) -> Iterator[dict[str, Callable[[Path], None]]]:
    kept = []

    def sock(path: Path) -> None:
        server = socket.socket(socket.AF_UNIX)
        kept.append(server)
        server.bind(str(path.relative_to(scratch)))

    yield {
        "pipe": os.mkfifo,
        "socket": sock,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "link to nothing": lambda path: path.symlink_to("nothing"),
        "link to a pipe": lambda path: (os.mkfifo(scratch / "p"), path.symlink_to(scratch / "p"))[1],
    }
    for server in kept:
        server.close()


@pytest.mark.parametrize("place", ["", "class"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to nothing", "link to a pipe"])
def test_what_is_no_file_among_images_is_named(special: Any, scratch: Path, place: str, kind: str) -> None:
    from PIL import Image

    folder = scratch / "images" / place
    folder.mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index}.png")
    special[kind](folder / "x.png")
    with pytest.raises(CalibrationError, match=r"x\.png' is no regular file"):
        load_calibration(scratch / "images")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_as_calibration_data_is_named(special: Any, scratch: Path, kind: str) -> None:
    special[kind](scratch / "x.npz")
    with pytest.raises(CalibrationError, match="nor a regular file"):
        load_calibration(scratch / "x.npz")


def test_a_program_for_pillow_to_run_is_no_image(scratch: Path) -> None:
    folder = scratch / "images"
    folder.mkdir()
    for index in range(2):
        (folder / f"{index}.png").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
        )
    with pytest.raises(CalibrationError, match="no image"):
        load_calibration(folder)


def test_kinds_do_not_repeat() -> None:
    assert max(collections.Counter(part for _, part in TENSORS.values()).values()) <= 2
