"""ONNX files with faults of many kinds, through each command that reads one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_onnx import FAULTS, bad_files, network
from onnx import ModelProto, TensorProto, helper, numpy_helper
from small_project import leftovers, run_in_turn, sentence

STATUSES = {"profile": 10, "quantize": 13, "verify": 10}
RUNS_ANYWAY = {("output that is a sequence", "profile")}
"""Nothing that ``profile`` tells depends on what the output is."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", images=images, labels=np.arange(40) % 4)
    (tmp_path / "good.onnx").write_bytes(network().SerializeToString())
    return tmp_path


def commands(path: Path) -> dict[str, tuple[str, ...]]:
    data = ("--calibration", "grey.npz", "--mean", "0", "--std", "1", "--threads", "1")
    return {
        "profile": ("profile", str(path), "--threads", "1"),
        "quantize": ("quantize", str(path), *data, "-o", "out.onnx"),
        "verify": ("verify", "good.onnx", str(path), *data),
    }


@pytest.mark.parametrize(
    "command",
    ["profile", *(pytest.param(command, marks=pytest.mark.wide) for command in ("quantize", "verify"))],
)
def test_every_kind_of_fault_is_one_sentence_with_its_status(folder: Path, command: str) -> None:
    asked = [
        (name, commands(path.relative_to(folder))[command])
        for name, path in bad_files(folder / "bad")
        if (name, command) not in RUNS_ANYWAY
    ]
    assert len(FAULTS) >= 80
    results = run_in_turn([a for _, a in asked], cwd=folder, scratch=folder / "scratch")
    for (name, _), done in zip(asked, results, strict=True):
        said = sentence(done, STATUSES[command])
        assert re.search(r"bad\.onnx|onnxruntime", said), name
        assert said.isprintable(), name
    assert not (folder / "out.onnx").exists()
    assert leftovers(folder / "scratch") == []


def unsorted() -> ModelProto:
    """The network with its nodes the other way round."""
    model = network()
    nodes = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_function() -> ModelProto:
    """The network whose ReLU is a function of its own."""
    model = network()
    opset = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "f", ["x"], ["y"], body, opset))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "f", "own"
    return model


def with_odd_names() -> ModelProto:
    """The network whose inner tensors have names that a terminal would obey."""
    model = network()
    odd = "\x1b[31mred\x07"
    model.graph.node[1].output[0] = model.graph.node[2].input[0] = odd
    model.graph.node[1].name = odd
    return model


def with_shared_data(folder: Path) -> ModelProto:
    """The network with constants in another file, one of them read twice."""
    model = network()
    data = b"".join(tensor.raw_data for tensor in model.graph.initializer)
    (folder / "data.bin").write_bytes(data)
    offset = 0
    for tensor in model.graph.initializer:
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "data.bin", "offset": str(offset), "length": str(length)}.items():
            tensor.external_data.add(key=key, value=value)
        offset += length
    return model


def with_values_in_fields() -> ModelProto:
    """The network with its weight as numbers instead of bytes, and a bias of 16 bits that is widened."""
    model = network()
    weight = model.graph.initializer[0]
    weight.float_data.extend(numpy_helper.to_array(weight).ravel().tolist())
    weight.ClearField("raw_data")
    half = numpy_helper.to_array(model.graph.initializer[1]).astype(np.float16)
    model.graph.initializer[1].CopyFrom(
        helper.make_tensor("half", TensorProto.FLOAT16, half.shape, half.ravel().tolist())
    )
    model.graph.node.insert(0, helper.make_node("Cast", ["half"], ["b"], to=TensorProto.FLOAT))
    return model


def test_what_is_unusual_but_sound_is_taken(folder: Path) -> None:
    sound = {
        "unsorted": unsorted(),
        "function": with_function(),
        "odd": with_odd_names(),
        "shared": with_shared_data(folder),
        "fields": with_values_in_fields(),
    }
    asked: list[Any] = []
    for name, model in sound.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
        own = commands(Path(f"{name}.onnx"))
        asked += [own["profile"], own["verify"]]
    asked.append((*commands(Path("unsorted.onnx"))["quantize"][:-1], "q.onnx"))
    results = run_in_turn(asked, cwd=folder, scratch=folder / "scratch")
    for arguments, done in zip(asked, results, strict=True):
        assert done.returncode == 0, (arguments, done.stderr)
        assert (done.stdout + done.stderr).replace("\n", "").isprintable()
