"""Weights in 8 bits of layers that calculate in 32: the same sums of rounded weights, calculated once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeprune.onnx_io.passes.base import GraphPass, rewritten
from edgeprune.profiling.work import count_parameters, total_macs
from edgeprune.quantization.passes.half_constants import HalfConstants
from edgeprune.quantization.passes.stored_weights import LEAST_VALUES, StoredIn8Bits, in_8_bits, summed_axes

Case = tuple[onnx.ModelProto, tuple[int, ...]]


def one_layer(
    op: str,
    weight: NDArray[np.float32],
    given_shape: tuple[int, ...],
    *,
    readers: int = 1,
    **attributes: object,
) -> onnx.ModelProto:
    """``readers`` layers of one weight, side by side."""
    constants = [numpy_helper.from_array(weight, "w")]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(given_shape))]
    outputs = [helper.make_empty_tensor_value_info(f"y{i}") for i in range(readers)]
    nodes = [
        helper.make_node(op, ["x", "w"], [f"y{i}"], name=f"layer{i}", **attributes) for i in range(readers)
    ]
    graph = helper.make_graph(nodes, "one", ends, outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)


@st.composite
def layers(draw: st.DrawFn) -> Case:
    """Layers of all kinds, with channels whose sizes are up to a million apart."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    op = draw(st.sampled_from(["Conv", "ConvTranspose", "Gemm", "Gemm transposed", "MatMul", "MatMul batch"]))
    out, given_channels = draw(st.integers(1, 5)) * 8, draw(st.integers(1, 5)) * 8
    spread = np.exp(draw(st.floats(0, 14)) * rng.random(out)).astype(np.float32)
    if op in ("Conv", "ConvTranspose"):
        groups = draw(st.sampled_from([1, 1, 8])) if op == "Conv" else 1
        kernel = draw(st.sampled_from([(3,), (3, 3), (1, 5), (2, 2, 2)]))
        weight = rng.standard_normal((out, given_channels // groups, *kernel)).astype(np.float32)
        weight *= spread.reshape(-1, *[1] * (weight.ndim - 1))
        weight = weight if op == "Conv" else np.ascontiguousarray(weight.swapaxes(0, 1))
        shape = (2, given_channels, *[7] * len(kernel))
        return one_layer(op, weight, shape, group=groups), shape
    weight = rng.standard_normal((given_channels, out)).astype(np.float32) * spread
    if op.startswith("Gemm"):
        turned = op == "Gemm transposed"
        return one_layer(
            "Gemm", weight.T.copy() if turned else weight, (3, given_channels), transB=int(turned)
        ), (
            3,
            given_channels,
        )
    if op == "MatMul batch":
        weight = np.stack([weight, 2 * weight[::-1]])
        return one_layer("MatMul", weight, (2, 3, given_channels)), (2, 3, given_channels)
    return one_layer("MatMul", weight, (3, given_channels)), (3, given_channels)


def run(proto: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@settings(deadline=None, max_examples=60)
@given(layers())
def test_layers_of_all_kinds_calculate_with_rounded_weights(case: Case) -> None:
    proto, shape = case
    stored = StoredIn8Bits(frozenset({"layer0"}))
    small = rewritten(proto, stored)
    weight = numpy_helper.to_array(proto.graph.initializer[0])
    if weight.size < LEAST_VALUES:
        assert not stored.done
        assert small.graph.node == proto.graph.node
        return
    assert stored.done == ["layer0"]
    onnx.checker.check_model(small, full_check=True)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    exact, rounded = run(proto, x), run(small, x)
    axes = summed_axes(ir.from_proto(proto).graph[0])
    assert axes is not None
    step = np.broadcast_to(np.abs(weight).max(axes, keepdims=True) / 127, weight.shape)
    half_steps, sizes = onnx.ModelProto(), onnx.ModelProto()
    for each, value in ((half_steps, step / 2), (sizes, np.abs(weight))):
        each.CopyFrom(proto)
        each.graph.initializer[0].CopyFrom(numpy_helper.from_array(value.astype(np.float32), "w"))
    # Half a step of its own channel at most at every weight, and what adding in 32 bits leaves.
    most = run(half_steps, np.abs(x)) + 1e-5 * run(sizes, np.abs(x))
    assert (np.abs(exact - rounded) <= most).all()
    assert small.ByteSize() < 0.8 * proto.ByteSize()


@given(st.integers(0, 1000), st.floats(1e-30, 1e30))
def test_a_weight_is_off_by_half_a_step_at_most(seed: int, size: float) -> None:
    weight = (np.random.default_rng(seed).standard_normal((6, 4, 3, 3)) * size).astype(np.float32)
    weight[3] = 0
    codes, scale = in_8_bits(weight, (1, 2, 3))
    assert scale.shape == (6, 1, 1, 1)
    error = np.abs(codes * scale.astype(np.float64) - weight)
    assert (error <= scale * 0.5001).all()
    assert (np.abs(codes.reshape(6, -1)).max(axis=1) == [127, 127, 127, 0, 127, 127]).all()


def test_the_runtime_calculates_the_weight_once(tmp_path: Path) -> None:
    """Nothing but the layer is left in what onnxruntime runs, and the figures of the file are the same."""
    weight = np.random.default_rng(0).standard_normal((32, 16, 3, 3)).astype(np.float32)
    proto = one_layer("Conv", weight, (1, 16, 8, 8))
    small = rewritten(proto, StoredIn8Bits(frozenset({"layer0"})))
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(proto, str(before))
    onnx.save(small, str(after))
    how = onnxruntime.SessionOptions()
    how.optimized_model_filepath = str(tmp_path / "run.onnx")
    how.log_severity_level = 3
    onnxruntime.InferenceSession(str(after), how, providers=["CPUExecutionProvider"])
    ops = Counter(node.op_type for node in onnx.load(str(tmp_path / "run.onnx")).graph.node)
    assert not {"Cast", "Mul"} & ops.keys()
    assert after.stat().st_size < 0.35 * before.stat().st_size
    assert count_parameters(after) == count_parameters(before) == weight.size
    assert total_macs(after) == total_macs(before)


@pytest.mark.parametrize("taken", ["w_in_8_bits", "w_scale", "w_half"])
@pytest.mark.parametrize("stores", [StoredIn8Bits(frozenset({"layer0"})), HalfConstants()], ids=["8", "16"])
def test_a_constant_that_has_the_name_already_is_another_one(stores: GraphPass, taken: str) -> None:
    weight = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    proto = one_layer("Conv", weight, (1, 16, 5, 5))
    proto.graph.node[0].output[0] = "sum"
    proto.graph.node.append(helper.make_node("Mul", ["sum", taken], ["y0"], name="after"))
    proto.graph.initializer.append(numpy_helper.from_array(np.full((1,), 3.0, np.float32), taken))
    x = np.random.default_rng(1).standard_normal((1, 16, 5, 5)).astype(np.float32)
    exact, rounded = run(proto, x), run(rewritten(proto, stores), x)
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("fault", ["shared", "other", "not finite", "grouped transposed"])
def test_other_weights_stay(fault: str) -> None:
    weight = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    if fault == "not finite":
        weight[3, 2] = np.inf
    if fault == "grouped transposed":
        proto = one_layer("ConvTranspose", weight, (1, 16, 5, 5), group=4)
    else:
        proto = one_layer("Conv", weight, (1, 16, 5, 5), readers=2 if fault == "shared" else 1)
    stored = StoredIn8Bits(frozenset({"nobody" if fault == "other" else "layer0"}))
    assert rewritten(proto, stored).graph.initializer[0].data_type == TensorProto.FLOAT
    assert not stored.done
