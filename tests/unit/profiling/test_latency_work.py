"""Work of hand-built ONNX models against counts done by hand."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import ProfileError
from edgeprune.profiling.kinds import OpKind
from edgeprune.profiling.work import (
    count_parameters,
    count_work,
    size_bytes,
    total_macs,
)


def constant(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    input_dims: list[int | str],
    external: bool = False,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, str(path), save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Conv 3->8 (3x3, stride 2) -> BN -> Relu -> depthwise 3x3 -> grouped 1x1 -> Add -> flatten -> Gemm."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="c1", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "s", "s", "s", "s"], ["n1"], name="n1"),
        helper.make_node("Relu", ["n1"], ["r1"], name="r1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="c2", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c2", "w3"], ["c3"], name="c3", group=2),
        helper.make_node("Add", ["c3", "r1"], ["a"], name="a"),
        helper.make_node("Flatten", ["a"], ["f"], name="f"),
        helper.make_node("Gemm", ["f", "w4"], ["y"], name="g", transB=1),
    ]
    weights = [
        constant("w1", 8, 3, 3, 3),
        constant("b1", 8),
        constant("s", 8),
        constant("w2", 8, 1, 3, 3),
        constant("w3", 8, 4, 1, 1),
        constant("w4", 5, 8 * 4 * 4),
        constant("unused", 1000),
    ]
    return save(tmp_path / "small.onnx", nodes, weights, ["batch", 3, 8, 8])


def test_macs_bytes_and_kinds_by_hand(small: Path) -> None:
    work = {op.name: op for op in count_work(small)}
    assert [op.kind for op in work.values()] == [
        OpKind.CONV,
        OpKind.FREE,
        OpKind.FREE,
        OpKind.DEPTHWISE,
        OpKind.GROUPED,
        OpKind.ELEMENTWISE,
        OpKind.FREE,
        OpKind.GEMM,
    ]
    assert work["c1"].macs == 8 * 4 * 4 * 3 * 3 * 3
    assert work["c1"].bytes_moved == 4 * (3 * 8 * 8 + 8 * 27 + 8 + 8 * 4 * 4)
    assert work["c2"].macs == 8 * 4 * 4 * 9
    assert work["c2"].is_depthwise
    assert work["c3"].macs == 8 * 4 * 4 * 4
    assert not work["c3"].is_depthwise
    assert work["a"].macs == 0
    assert work["a"].bytes_moved == 4 * 3 * 8 * 4 * 4
    assert work["g"].macs == 5 * 128
    assert total_macs(small) == 8 * 4 * 4 * (27 + 9 + 4) + 640


def test_parameters_are_floats_that_a_node_reads(small: Path) -> None:
    assert count_parameters(small) == 216 + 8 + 8 + 72 + 32 + 640


def test_a_dynamic_batch_counts_as_one(tmp_path: Path) -> None:
    node = [helper.make_node("Conv", ["x", "w"], ["y"], name="c")]
    weights = [constant("w", 4, 3, 1, 1)]
    dynamic = save(tmp_path / "dynamic.onnx", node, weights, ["n", 3, 5, 5])
    fixed = save(tmp_path / "fixed.onnx", node, weights, [1, 3, 5, 5])
    assert count_work(dynamic) == count_work(fixed)


@pytest.mark.parametrize("batch", [2, 3, 4, 7])
def test_a_file_of_a_fixed_batch_counts_one_input_though_it_repeats_its_batch(
    tmp_path: Path, batch: int
) -> None:
    """A reshape to (batch, values) in front of a matrix product, as exporters write it."""

    def written(size: int) -> Path:
        shape = helper.make_tensor("shape", TensorProto.INT64, [2], [size, 36])
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
            helper.make_node("Reshape", ["c", "shape"], ["flat"], name="r"),
            helper.make_node("Concat", ["flat", "flat"], ["both"], name="cat", axis=1),
            helper.make_node("Gemm", ["both", "m"], ["y"], name="g"),
        ]
        weights = [constant("w", 4, 3, 3, 3), constant("m", 72, 5), shape]
        return save(tmp_path / f"{size}.onnx", nodes, weights, [size, 3, 5, 5])

    assert count_work(written(batch)) == count_work(written(1))
    assert total_macs(written(batch)) == 4 * 27 * 9 + 72 * 5


def test_transposed_convolution_counts_each_input_value(tmp_path: Path) -> None:
    node = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="t", strides=[2, 2])]
    path = save(tmp_path / "t.onnx", node, [constant("w", 3, 7, 2, 2)], [1, 3, 5, 5])
    assert total_macs(path) == 3 * 5 * 5 * 7 * 2 * 2


def test_batched_matrix_product_and_transposed_gemm(tmp_path: Path) -> None:
    product = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    path = save(tmp_path / "m.onnx", product, [constant("w", 6, 7)], [1, 4, 5, 6])
    assert total_macs(path) == 4 * 5 * 6 * 7
    gemm = [helper.make_node("Gemm", ["x", "w"], ["y"], name="g", transA=1)]
    path = save(tmp_path / "g.onnx", gemm, [constant("w", 1, 7)], [1, 6])
    assert total_macs(path) == 6 * 1 * 7


def test_an_activation_with_a_second_reader_is_not_fused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
        helper.make_node("Sigmoid", ["c"], ["s"], name="s"),
        helper.make_node("Mul", ["c", "s"], ["y"], name="m"),
    ]
    path = save(tmp_path / "silu.onnx", nodes, [constant("w", 4, 3, 1, 1)], [1, 3, 5, 5])
    assert {op.name: op.kind for op in count_work(path)}["s"] is OpKind.FUNCTION


def test_nodes_on_constants_are_free(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Neg", ["w"], ["v"], name="n"),
        helper.make_node("Conv", ["x", "v"], ["y"], name="c"),
    ]
    path = save(tmp_path / "folded.onnx", nodes, [constant("w", 4, 3, 1, 1)], [1, 3, 5, 5])
    work = {op.name: op for op in count_work(path)}
    assert work["n"].kind is OpKind.FREE
    assert work["c"].macs == 4 * 25 * 3


def test_weights_in_a_constant_node_count(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], name="k", value=constant("any", 4, 3, 1, 1)),
        helper.make_node("Conv", ["x", "w"], ["y"], name="c"),
    ]
    path = save(tmp_path / "constant.onnx", nodes, [], [1, 3, 5, 5])
    assert total_macs(path) == 4 * 25 * 3
    assert count_parameters(path) == 12


def test_external_data_counts_in_the_size_and_must_be_there(tmp_path: Path) -> None:
    node = [helper.make_node("Conv", ["x", "w"], ["y"], name="c")]
    path = save(tmp_path / "e.onnx", node, [constant("w", 64, 3, 3, 3)], [1, 3, 8, 8], external=True)
    data = tmp_path / "weights.bin"
    assert size_bytes(path) == path.stat().st_size + data.stat().st_size
    assert data.stat().st_size >= 64 * 27 * 4
    assert count_parameters(path) == 64 * 27
    data.unlink()
    with pytest.raises(ProfileError, match=r"'weights\.bin' is missing"):
        size_bytes(path)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_have_the_products_of_every_step(
    op: str, gates: int, direction: str, layout: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps, inputs, hidden, ways = 7, 5, 3, 2 if direction == "bidirectional" else 1
    node = helper.make_node(
        op, ["x", "w", "r"], ["y"], name="e", hidden_size=hidden, direction=direction, layout=layout
    )
    weights = [
        constant("w", ways, gates * hidden, inputs), constant("r", ways, gates * hidden, hidden)
    ]  # fmt: skip
    # Without a batch of its own the first size is fixed at one, whichever it is.
    dims = [1, steps, inputs]
    path = save(tmp_path / "e.onnx", [node], weights, dims)
    with caplog.at_level(logging.WARNING, logger="edgeprune.profiling"):
        (work,) = count_work(path)
    # By hand: each gate of each hidden unit reads the input of a step and every hidden unit.
    assert work.macs == sum(inputs + hidden for _ in range(steps * ways * gates * hidden))
    assert work.kind is OpKind.GEMM
    assert caplog.text == ""


def test_ops_without_a_count_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = [helper.make_node("Einsum", ["x", "w"], ["y"], name="e", equation="bi,io->bo")]
    path = save(tmp_path / "e.onnx", node, [constant("w", 3, 4)], [1, 3])
    with caplog.at_level(logging.WARNING, logger="edgeprune.profiling"):
        assert total_macs(path) == 0
    assert "MACs of Einsum are not counted" in caplog.text


def test_quantized_weights_count_and_their_scales_do_not(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.int8), "w8")
    bias = numpy_helper.from_array(np.zeros(4, np.int32), "b32")
    zeros = numpy_helper.from_array(np.zeros(4, np.int8), "z")
    half = numpy_helper.from_array(np.zeros((2, 4), np.float16), "h")
    scalar = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    shape = numpy_helper.from_array(np.array([0, -1], np.int64), "shape")
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["w"], name="dw", axis=0),
        helper.make_node("DequantizeLinear", ["b32", "s"], ["b"], name="db", axis=0),
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="c"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="p"),
        helper.make_node("Reshape", ["p", "shape"], ["f"], name="f"),
        helper.make_node("Cast", ["h"], ["hf"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["f", "hf"], ["g"], name="g", transB=1),
        helper.make_node("Mul", ["g", "one"], ["y"], name="m"),
    ]
    path = save(
        tmp_path / "q.onnx",
        nodes,
        [weight, bias, zeros, half, scalar, shape, constant("s", 4)],
        [1, 3, 5, 5],
    )
    assert count_parameters(path) == 4 * 3 + 4 + 2 * 4


def test_weights_of_integer_operators_count(tmp_path: Path) -> None:
    one = numpy_helper.from_array(np.array([1.0], np.float32), "s")
    zero = numpy_helper.from_array(np.zeros(1, np.uint8), "z")
    weight = numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.uint8), "w")
    bias = numpy_helper.from_array(np.zeros(4, np.int32), "b")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q"),
        helper.make_node("QLinearConv", ["xq", "s", "z", "w", "s", "z", "s", "z", "b"], ["yq"], name="c"),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"], name="d"),
    ]
    path = save(tmp_path / "q.onnx", nodes, [one, zero, weight, bias], [1, 3, 5, 5])
    assert count_parameters(path) == 4 * 3 + 4


def test_bad_files_are_one_sentence(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text('{"schema_version": "1.1"}')  # by its name onnx would take it for a model in JSON
    with pytest.raises(ProfileError, match=r"report\.json is no valid ONNX file"):
        count_work(report)
    with pytest.raises(ProfileError, match="no ONNX file at"):
        count_work(tmp_path / "none.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("this is no protobuf at all, sorry")
    with pytest.raises(ProfileError, match=r"text\.onnx is no valid ONNX file"):
        count_work(text)
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    with pytest.raises(ProfileError, match="without nodes"):
        count_work(empty)


def test_a_dynamic_image_size_is_refused(tmp_path: Path) -> None:
    node = [helper.make_node("Conv", ["x", "w"], ["y"], name="c")]
    path = save(tmp_path / "d.onnx", node, [constant("w", 4, 3, 1, 1)], ["n", 3, "height", 5])
    with pytest.raises(ProfileError, match=r"dimension 2 of input 'x' is dynamic \(height\)"):
        count_work(path)


def test_sizes_that_the_graph_computes_are_found_by_folding(tmp_path: Path) -> None:
    """Indices from a Range, as exporters write strided access: shape inference alone gives up there."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ReduceProd", ["shape"], ["count"], keepdims=0),
        helper.make_node("Range", ["zero", "count", "one"], ["picked"]),
        helper.make_node("Reshape", ["x", "flat"], ["line"]),
        helper.make_node("Gather", ["line", "picked"], ["gathered"]),
        helper.make_node("Reshape", ["gathered", "rows"], ["table"]),
        helper.make_node("MatMul", ["table", "w"], ["y"]),
    ]
    constants = {
        "zero": np.array(0, dtype=np.int64),
        "one": np.array(1, dtype=np.int64),
        "flat": np.array([-1], dtype=np.int64),
        "rows": np.array([-1, 4], dtype=np.int64),
        "w": np.ones((4, 3), dtype=np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path / "range.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    assert total_macs(path) == 2 * 4 * 3
