"""``apply_surgery`` on damaged and crafted files: one sentence, status 11."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_apply_surgery import chain, refusal, write_run

import edgeprune
from edgeprune.errors import SurgeryError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    write_run(chain(), folder)
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Path:
    """The files of a run, to be damaged."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path


def replay(folder: Path) -> torch.nn.Module:
    return edgeprune.apply_surgery(chain(), folder / "surgery.json", folder / "weights.safetensors")


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def with_tensor(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        found = state(folder)
        save_file(
            found | {"head.weight": change(found["head.weight"]).contiguous()}, folder / "weights.safetensors"
        )

    return make


def with_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        data = (folder / "weights.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        text = json.dumps(change(json.loads(data[8 : 8 + size]))).encode()
        content = struct.pack("<Q", len(text)) + text + data[8 + size :]
        (folder / "weights.safetensors").write_bytes(content)

    return make


def offsets(first: int, last: int) -> Callable[[Path], None]:
    return with_header(
        lambda header: header | {"head.bias": header["head.bias"] | {"data_offsets": [first, last]}}
    )


def typed(name: str) -> Callable[[Path], None]:
    return with_header(lambda header: header | {"head.bias": header["head.bias"] | {"dtype": name}})


def cut(length: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / "weights.safetensors", length)


def as_pipe(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    os.mkfifo(folder / "weights.safetensors")


DAMAGED = "a damaged safetensors file"
WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "complex": (with_tensor(lambda t: t.to(torch.complex64)), "'head.weight'"),
    "boolean": (with_tensor(lambda t: t > 0), "boolean"),
    "whole numbers": (with_tensor(lambda t: (9 * t).long()), "int64"),
    "not a number": (with_tensor(lambda t: t * float("nan")), "NaN or infinite values in 'head.weight'"),
    "infinite": (with_tensor(lambda t: t / 0), "NaN or infinite"),
    "another shape": (with_tensor(lambda t: t.T), "another run or model"),
    "a scalar": (with_tensor(lambda t: t.sum()), "another run or model"),
    "nothing": (with_tensor(lambda t: t[:0]), "another run or model"),
    "offsets beyond": (offsets(0, 10**9), DAMAGED),
    "offsets backwards": (offsets(8, 0), DAMAGED),
    "offsets shared": (offsets(0, 16), DAMAGED),
    "offsets negative": (offsets(-16, 0), DAMAGED),
    "unknown type": (typed("Q4"), DAMAGED),
    "another width": (typed("F64"), DAMAGED),
    "no header": (with_header(lambda header: [1]), DAMAGED),
    "deep header": (with_header(lambda header: header | {"a": json.loads("[" * 300 + "]" * 300)}), DAMAGED),
    "cut in the header": (cut(20), DAMAGED),
    "cut in the content": (cut(900), DAMAGED),
    "empty": (cut(0), DAMAGED),
    "pipe": (as_pipe, "is no regular file"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights(kind: str, run: Path) -> None:
    make, said = WEIGHTS[kind]
    make(run)
    assert said in refusal(lambda: replay(run))


def test_half_precision_is_taken(run: Path) -> None:
    found = state(run)
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in found.items()}, run / "weights.safetensors"
    )
    torch.testing.assert_close(replay(run).head.weight, found["head.weight"], atol=1e-3, rtol=1e-2)


def kept(indices: bytes, more: bytes = b"") -> bytes:
    return b'{"schema_version": "1.1", "kept_indices": {' + indices + b"}" + more + b"}"


RECIPES = {
    "deep": b'{"kept_indices":' * 90_000,
    "deep and closed": b"[" * 700 + b"]" * 700,
    "no number": b'{"schema_version": NaN}',
    "digits": b'{"schema_version": ' + b"9" * 5_000 + b"}",
    "a version without end": b'{"schema_version": "' + b"1.1" * 9_000 + b'"}',
    "no text": b"\xff\xfe{}",
    "escapes": b'{"schema_version": "1.1", "kept_indices": {"\\u001b[2J": {"\\u0663": [0]}}}',
    "huge dimension": kept(b'"head.weight": {"' + b"9" * 40 + b'": [0]}'),
    "dropped blocks": kept(b"", b', "dropped_blocks": 5'),
    "an input without end": kept(b"", b', "input_shape": [99999, 99999, 99999]'),
    "an attribute": b'{"schema_version": "1.1", "kept_indices": {"head.weight.data": {"0": [0]}}}',
    "a method": b'{"schema_version": "1.1", "kept_indices": {"forward.__self__.head.weight": {"0": [0]}}}',
}  # fmt: skip


@pytest.mark.parametrize("kind", RECIPES)
def test_recipes(kind: str, run: Path) -> None:
    (run / "surgery.json").write_bytes(RECIPES[kind])
    assert "\x1b" not in refusal(lambda: replay(run))


def test_a_recipe_that_is_huge_or_a_pipe_is_not_read(run: Path) -> None:
    os.truncate(run / "surgery.json", 400 << 20)
    assert "has more than 64 MiB" in refusal(lambda: replay(run))
    (run / "surgery.json").unlink()
    os.mkfifo(run / "surgery.json")
    assert "is no regular file" in refusal(lambda: replay(run))


ABSURD = (
    None,
    True,
    -1,
    0,
    3,
    2**62,
    1e308,
    "x",
    "9" * 3_000,
    [],
    [0],
    [2**40],
    [1, 0],
    {},
    {"0": [0]},
    [[0]],
)


def ways(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from ways(item, (*path, key))


def test_a_recipe_with_any_value_changed_is_replayed_or_refused(run: Path) -> None:
    content = json.loads((run / "surgery.json").read_text())
    chance = random.Random(0)
    outcomes = set()
    for way in chance.choices(list(ways(content)), k=250):
        found = json.loads(json.dumps(content))
        place = found
        for key in way[:-1]:
            place = place[key]
        place[way[-1]] = chance.choice(ABSURD)
        (run / "surgery.json").write_text(json.dumps(found))
        outcomes.add(outcome(run))
    assert outcomes == {"refused", "replayed"}


def outcome(folder: Path) -> str:
    try:
        replay(folder)
    except SurgeryError as error:
        told = str(error)
    else:
        return "replayed"
    assert "\n" not in told
    assert len(told) < 900
    return "refused"


class Ends(BaseException):
    pass


@pytest.mark.parametrize("kind", [SystemExit, Ends, RecursionError, MemoryError, KeyError])
def test_a_class_that_raises_in_its_forward_pass_is_told(kind: type[BaseException], run: Path) -> None:
    class Raises(type(chain())):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise kind("no more")

    network = chain()
    network.__class__ = Raises
    said = refusal(
        lambda: edgeprune.apply_surgery(network, run / "surgery.json", run / "weights.safetensors")
    )
    assert "does not run on images of 3x8x8" in said
    assert "no more" in said
