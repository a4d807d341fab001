"""Constants in 16 bits: those whose values 16 bits cannot hold stay in 32."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeprune.onnx_io.passes.base import rewritten
from edgeprune.quantization.passes.half_constants import HalfConstants, fits_in_16_bits


def scaled(factors: np.ndarray, node_names: tuple[str, str] = ("multiply", "add")) -> onnx.ModelProto:
    """``x * k + o`` with large ``o``."""
    size = len(factors)
    nodes = [
        helper.make_node("Mul", ["x", "k"], ["m"], name=node_names[0]),
        helper.make_node("Add", ["m", "o"], ["y"], name=node_names[1]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name in "xy"]
    constants = [
        numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in (("k", factors), ("o", np.zeros(size)))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def outputs(proto: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": values})[0], np.float64)


@settings(max_examples=100, deadline=None)
@given(exponent=st.floats(-44, 38), spread=st.floats(0, 3), seed=st.integers(0, 1000))
def test_factors_of_any_size_keep_their_values(exponent: float, spread: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = np.clip(rng.standard_normal(96) * 10.0**exponent * np.exp(spread * rng.random(96)), -3e38, 3e38)
    factors = factors.astype(np.float32)
    halved = HalfConstants()
    made = rewritten(scaled(factors), halved)
    assert ("k" in halved.kept) != ("k" in halved.stored)
    (before, after) = (outputs(each, np.ones((1, 96), np.float32)) for each in (scaled(factors), made))
    assert np.linalg.norm(after - before) <= 2.0**-10 * np.linalg.norm(before)


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        (np.zeros(64), True),
        (np.full(64, 65504.0), True),
        (np.full(64, 65505.0), False),
        (np.full(64, 1e-7), False),
        (np.full(64, 1e-30), False),
        (np.append(np.full(64, 1e-9), 1.0), True),
        (np.append(np.ones(64), np.inf), False),
    ],
)
def test_the_whole_constant_decides(values: np.ndarray, fits: bool) -> None:
    assert fits_in_16_bits(values.astype(np.float32)) is fits


@pytest.mark.parametrize("names", [("k_cast", "o_cast"), ("o_cast", "k_cast"), ("k_cast", "k_cast_")])
def test_nodes_of_the_file_may_be_called_like_ours(names: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    proto = scaled(rng.standard_normal(96), names)
    made = rewritten(proto, HalfConstants())
    assert len({node.name for node in made.graph.node}) == len(made.graph.node) == 4
    given_values = rng.standard_normal((2, 96)).astype(np.float32)
    np.testing.assert_allclose(outputs(made, given_values), outputs(proto, given_values), atol=1e-2)
