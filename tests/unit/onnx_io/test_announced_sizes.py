"""ONNX files of a few bytes whose constants ask for gigabytes are refused; what networks need is not."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from bad_onnx import network
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeprune.onnx_io.check import OnnxFaultError, check_model

LIMIT = 2**26
SHAPES = st.lists(st.integers(1, 2**20), min_size=1, max_size=5)
KINDS = ("ConstantOfShape", "Expand", "Tile")


def asking(op: str, sizes: list[np.ndarray], *, as_nodes: bool) -> ModelProto:
    """The network with another node whose constants are these."""
    model = network()
    names = [f"size{i}" for i in range(len(sizes))]
    tensors = [numpy_helper.from_array(value, name) for name, value in zip(names, sizes, strict=True)]
    if as_nodes:
        for tensor in tensors:
            model.graph.node.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
    else:
        model.graph.initializer.extend(tensors)
    first = ["flat"] if op in ("Expand", "Tile") else []
    model.graph.node.append(helper.make_node(op, [*first, *names], ["more"], name="asking"))
    return model


@given(st.sampled_from(KINDS), SHAPES, st.booleans())
def test_shapes_and_factors(op: str, sizes: list[int], as_nodes: bool) -> None:
    model = asking(op, [np.array(sizes, np.int64)], as_nodes=as_nodes)
    if np.prod([float(size) for size in sizes]) > LIMIT:
        with pytest.raises(OnnxFaultError, match=r"a node 'asking' that makes a tensor of \d+ values"):
            check_model(model)
    else:
        check_model(model)


@given(st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40), st.integers(-8, 8), st.booleans())
def test_ranges(start: int, end: int, step: int, as_nodes: bool) -> None:
    model = asking("Range", [np.array(x, np.int64) for x in (start, end, step)], as_nodes=as_nodes)
    if step and (end - start) / step > LIMIT:
        with pytest.raises(OnnxFaultError, match="a node 'asking' that makes a tensor of"):
            check_model(model)
    else:
        check_model(model)


@pytest.mark.parametrize("values", [np.array([np.inf, np.nan]), np.array(["a"], object)])
def test_what_is_no_size_is_left_to_others(values: np.ndarray) -> None:
    if values.dtype == object:
        tensor = helper.make_tensor("size0", TensorProto.STRING, [1], [b"a"])
    else:
        tensor = numpy_helper.from_array(values.astype(np.float32), "size0")
    model = network()
    model.graph.initializer.append(tensor)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["size0"], ["more"], name="asking"))
    with contextlib.suppress(OnnxFaultError):  # it may be refused for another reason, and nothing else
        check_model(model)
