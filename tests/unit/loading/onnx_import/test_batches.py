"""The batch of an imported network is dynamic: shapes that follow it, and files that fix it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx_graphs import check, write, write_one
from torch import nn

from edgeprune.capture.capture import capture
from edgeprune.errors import ModelLoadError
from edgeprune.loading.model import load_model
from edgeprune.loading.onnx_import import import_onnx

RANDOM = np.random.default_rng(2)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def shape_of_the_image(*behind: int) -> tuple[list, dict]:
    """Nodes that make the shape ``s``: the batch, then ``behind``."""
    nodes = [
        ("Shape", ["x"], ["all"], {}),
        ("Gather", ["all", "zero"], ["n"], {"axis": 0}),
        ("Concat", ["n", "behind"], ["s"], {"axis": 0}),
    ]
    return nodes, {"zero": ints(0), "behind": ints(*behind)}


def test_a_shape_by_that_of_the_input(tmp_path):
    nodes, constants = shape_of_the_image(3, 64)
    path = write(tmp_path / "m.onnx", [*nodes, ("Reshape", ["x", "s"], ["y"], {})], constants)
    captured = capture(check(path), (3, 8, 8))
    assert captured.graph_module(torch.zeros(5, 3, 8, 8)).shape == (5, 3, 64)


@pytest.mark.parametrize("factor", [1, 2, 6])
def test_a_multiple_of_the_batch(tmp_path, factor):
    nodes, constants = shape_of_the_image()
    constants |= {"factor": ints(factor), "rest": ints(192 // factor)}
    nodes = [
        *nodes[:2],
        ("Mul", ["n", "factor"], ["m"], {}),
        ("Concat", ["m", "rest"], ["s"], {"axis": 0}),
        ("Reshape", ["x", "s"], ["a"], {}),
        ("Concat", ["n", "image"], ["t"], {"axis": 0}),
        ("Reshape", ["a", "t"], ["y"], {}),
    ]
    constants = {k: v for k, v in constants.items() if k != "behind"} | {"image": ints(3, 8, 8)}
    check(write(tmp_path / "m.onnx", nodes, constants))


def test_a_constant_repeated_for_each_image(tmp_path):
    nodes, constants = shape_of_the_image(1, 8, 8)
    constants |= {"token": normal(1, 1, 8, 8)}
    nodes += [("Expand", ["token", "s"], ["t"], {}), ("Concat", ["t", "x"], ["y"], {"axis": 1})]
    module = check(write(tmp_path / "m.onnx", nodes, constants))
    assert [tuple(p.shape) for p in module.parameters()] == [(1, 1, 8, 8)]


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_fixed_batch_is_freed(tmp_path, batch):
    nodes = [
        ("Reshape", ["x", "flat"], ["f"], {}),
        ("Unsqueeze", ["f", "axes"], ["u"], {}),
        ("Concat", ["token", "u"], ["c"], {"axis": 1}),
        ("Add", ["c", "offset"], ["a"], {}),
        ("Reshape", ["a", "end"], ["y"], {}),
    ]
    constants = {
        "flat": ints(batch, 192),
        "axes": ints(1),
        "token": np.repeat(normal(1, 1, 192), batch, axis=0),
        "offset": np.repeat(normal(1, 2, 192), batch, axis=0),
        "end": ints(batch, -1),
    }
    path = write(tmp_path / "m.onnx", nodes, constants, batch=batch)
    check(path)
    loaded = load_model(path)
    assert f"the file has a fixed batch of {batch}; the network takes any batch here" in loaded.notes
    assert loaded.module(torch.zeros(3, 3, 8, 8)).shape == (3, 384)


@pytest.mark.parametrize(
    "nodes",
    [
        [("Squeeze", ["x", "first"], ["s"], {}), ("Unsqueeze", ["s", "first"], ["y"], {})],
        [("Reshape", ["x", "merged"], ["y"], {})],
    ],
)
def test_a_graph_that_needs_its_fixed_batch_is_refused(tmp_path, nodes):
    constants = {"first": ints(0), "merged": ints(3, 64)}
    constants = {k: v for k, v in constants.items() if any(k in read for _, read, _, _ in nodes)}
    path = write(tmp_path / "m.onnx", nodes, constants, batch=1)
    with pytest.raises(ModelLoadError) as raised:
        import_onnx(path)
    assert "batch" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("batch", ["n", 1, 2])
@pytest.mark.parametrize("order", [list(range(192)), list(range(191, -1, -1))[:24]])
def test_strides_over_all_images(tmp_path, batch, order):
    """As exporters write ``as_strided``: the same entries of each image, from a flat tensor of all."""
    constants = {"flat": ints(-1), "zero": np.int64(0), "one": np.int64(1), "size": np.int64(192)}
    constants |= {"column": ints(-1, 1, 1), "order": ints(*order).reshape(1, -1, 1), "first": ints(0)}
    constants |= {"end": ints(-1, len(order))}
    nodes = [
        ("Shape", ["x"], ["all"], {}),
        ("Gather", ["all", "zero"], ["n"], {"axis": 0}),
        ("Range", ["zero", "n", "one"], ["r"], {}),
        ("Mul", ["r", "size"], ["m"], {}),
        ("Reshape", ["m", "column"], ["c"], {}),
        ("Add", ["c", "order"], ["i"], {}),
        ("Reshape", ["x", "flat"], ["f"], {}),
        ("Gather", ["f", "i"], ["y"], {"axis": 0}),
    ]
    constants = {k: v for k, v in constants.items() if any(k in read for _, read, _, _ in nodes)}
    check(write(tmp_path / "m.onnx", nodes, constants, batch=batch))


def test_another_value_for_each_image_is_refused(tmp_path):
    nodes = [
        ("Shape", ["x"], ["all"], {}),
        ("Gather", ["all", "zero"], ["n"], {"axis": 0}),
        ("Range", ["zero", "n", "one"], ["r"], {}),
        ("Cast", ["r"], ["c"], {"to": TensorProto.FLOAT}),
        ("Reshape", ["c", "column"], ["o"], {}),
        ("Add", ["x", "o"], ["y"], {}),
    ]
    constants = {"zero": np.int64(0), "one": np.int64(1), "column": ints(-1, 1, 1, 1)}
    with pytest.raises(ModelLoadError, match="cannot be imported for any batch"):
        import_onnx(write(tmp_path / "m.onnx", nodes, constants))


def test_sizes_of_images_that_the_file_leaves_open(tmp_path):
    path = write_one(tmp_path / "m.onnx", "Conv", normal(4, 3, 3, 3), shape=(3, "h", "w"))
    with pytest.raises(ModelLoadError, match=r"images of 3x\?x\?, .*--input-shape"):
        load_model(path)
    with pytest.raises(ModelLoadError, match=r"takes images of 3x\?x\? and the input shape given is 1x8x8"):
        load_model(path, input_shape=(1, 8, 8))
    loaded = load_model(path, input_shape=(3, 8, 10))
    assert loaded.input_shape == (3, 8, 10)
    assert isinstance(loaded.module, nn.Module)
