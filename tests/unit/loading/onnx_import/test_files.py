"""ONNX files as models: notes, names, and files that are refused in one sentence."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_graphs import write, write_one

import edgeprune
from edgeprune.artifacts.model import ModelFormat
from edgeprune.errors import ModelLoadError, UsageError
from edgeprune.loading.model import load_model

RANDOM = np.random.default_rng(4)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def convolution(path, **options):
    return write_one(path, "Conv", normal(4, 3, 3, 3), normal(4), **options)


def test_what_is_told_of_a_file(tmp_path):
    path = convolution(tmp_path / "m.onnx", opset=13)
    loaded = load_model(path, architecture="torchvision:resnet18")
    assert loaded.format is ModelFormat.ONNX
    assert loaded.source == str(path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.input_shape == (3, 8, 8)
    assert loaded.notes[0] == "imported from ONNX opset 13"
    assert "--arch was not needed" in loaded.notes[1]


@pytest.mark.parametrize(
    "names",
    [
        ("a.weight", "b.weight"),
        ("class", "training"),
        ("a/b c:0", "a/b_c/0"),
        ("w", "w.inner"),
        ("forward", "1.2.3"),
        ("ä", "__init__"),
        (".".join("x" * 200), "y" * 500),
        ("..", "//"),
    ],
)
def test_any_names_become_unique_identifiers(tmp_path, names):
    first, second = names
    nodes = [
        ("Mul", ["x", first], ["m"], {}),
        ("Add", ["m", second], ["y"], {}),
    ]
    constants = {first: normal(3, 1, 1), second: normal(3, 1, 1)}
    module = edgeprune.load_onnx(write(tmp_path / "m.onnx", nodes, constants))
    paths = [name for name, _ in module.named_parameters()]
    assert len(set(paths)) == 2
    for part in ".".join(paths).split("."):
        assert part.isidentifier() or part.isdigit()
    torch.export.export(module, (torch.zeros(2, 3, 8, 8),))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.opset_import[0].__setattr__("version", 6), "is of opset 6; accepted are 7 and later"),
        (
            lambda m: m.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])),
            "has 2 inputs; accepted is one",
        ),
        (
            lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", TensorProto.DOUBLE),
            "takes float64 inputs",
        ),
        (lambda m: m.graph.node[0].__setattr__("domain", "maker"), "maker"),
    ],
)
def test_files_that_are_no_network_of_one_image(tmp_path, change, said):
    path = convolution(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelLoadError) as raised:
        load_model(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_loops_are_refused_before_they_run(tmp_path):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    nodes = [("Loop", ["often", "yes", "x"], ["y"], {"body": body})]
    constants = {"often": np.int64(2**40), "yes": np.bool_(True)}
    with pytest.raises(ModelLoadError, match=r"'n0' \(Loop\) repeats a part of the graph"):
        load_model(write(tmp_path / "m.onnx", nodes, constants))


@pytest.mark.parametrize("content", [b"", b"\x08\x0a\x12\x07pytorch", b"no model at all"])
def test_files_that_are_no_onnx(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError):
        load_model(path)


def test_an_output_without_the_image_is_refused(tmp_path):
    nodes = [("Relu", ["x"], ["y"], {}), ("Identity", ["c"], ["z"], {})]
    outputs = {"y": TensorProto.FLOAT, "z": TensorProto.FLOAT}
    path = write(tmp_path / "m.onnx", nodes, {"c": normal(3)}, outputs=outputs)
    with pytest.raises(ModelLoadError, match="does not depend on the image"):
        load_model(path)


def test_load_onnx_takes_onnx_alone(tmp_path):
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(torch.nn.Conv2d(3, 4, 3).eval(), (torch.zeros(1, 3, 8, 8),)), path)
    with pytest.raises(UsageError, match=r"is no ONNX file but exported-program"):
        edgeprune.load_onnx(path)
