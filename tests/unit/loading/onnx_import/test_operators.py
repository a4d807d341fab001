"""Each operator that can be imported gives what onnxruntime gives, over shapes, attributes and opsets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx_graphs import check, write, write_one
from torch import nn

from edgeprune.errors import ModelLoadError
from edgeprune.loading.onnx_import import import_onnx

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def floats(*values: float) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("op", "attributes", "opset"),
    [
        ("Relu", {}, 17),
        ("Relu", {}, 7),
        ("LeakyRelu", {}, 17),
        ("LeakyRelu", {"alpha": 0.3}, 17),
        ("Elu", {"alpha": 0.7}, 17),
        ("Celu", {"alpha": 0.7}, 17),
        ("Selu", {}, 17),
        ("Selu", {"alpha": 1.2, "gamma": 0.8}, 17),
        ("ThresholdedRelu", {"alpha": 0.4}, 17),
        ("Sigmoid", {}, 17),
        ("HardSigmoid", {}, 17),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, 17),
        ("HardSwish", {}, 17),
        ("Tanh", {}, 17),
        ("Softplus", {}, 17),
        ("Softsign", {}, 17),
        ("Mish", {}, 18),
        ("Gelu", {}, 20),
        ("Gelu", {"approximate": "tanh"}, 20),
        ("Clip", {"min": -0.5, "max": 0.5}, 10),
        ("Clip", {"max": 0.5}, 8),
        ("Softmax", {"axis": 1}, 17),
        ("Softmax", {}, 17),
        ("Softmax", {"axis": 1}, 11),
        ("Softmax", {"axis": 2}, 11),
        ("LogSoftmax", {"axis": -1}, 17),
        ("LogSoftmax", {"axis": 1}, 11),
        ("Abs", {}, 17),
        ("Neg", {}, 17),
        ("Exp", {}, 17),
        ("Erf", {}, 17),
        ("Floor", {}, 17),
        ("Ceil", {}, 17),
        ("Round", {}, 17),
        ("Sign", {}, 17),
        ("Sin", {}, 17),
        ("Cos", {}, 17),
        ("Atan", {}, 17),
        ("Identity", {}, 17),
        ("Dropout", {}, 17),
        ("Dropout", {"ratio": 0.3}, 11),
        ("LRN", {"size": 3, "alpha": 0.2, "beta": 0.6, "bias": 1.5}, 17),
        ("LpNormalization", {"axis": 1}, 17),
        ("LpNormalization", {"axis": -1, "p": 1}, 17),
        ("GlobalAveragePool", {}, 17),
        ("GlobalMaxPool", {}, 17),
        ("Flatten", {}, 17),
        ("Transpose", {"perm": [0, 2, 3, 1]}, 17),
        ("SpaceToDepth", {"blocksize": 2}, 17),
        ("ReduceMean", {"axes": [2, 3]}, 17),
        ("ReduceMean", {"axes": [-1], "keepdims": 0}, 13),
        ("ReduceSum", {"axes": [1]}, 11),
        ("ReduceMax", {"axes": [1, 2], "keepdims": 0}, 17),
        ("ReduceMin", {"axes": [3]}, 17),
        ("ReduceL1", {"axes": [1]}, 17),
        ("ReduceL2", {"axes": [1]}, 17),
        ("ReduceSumSquare", {"axes": [1]}, 17),
        ("ReduceLogSumExp", {"axes": [1]}, 17),
        ("Unsqueeze", {"axes": [1]}, 11),
        ("Slice", {"starts": [1, 2], "ends": [3, -1], "axes": [1, 3]}, 9),
        ("Pad", {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 0.5}, 10),
        ("Upsample", {"scales": [1.0, 1.0, 2.0, 2.0]}, 7),
        ("Einsum", {"equation": "nchw->nhwc"}, 17),
        ("Cast", {"to": TensorProto.FLOAT}, 17),
    ],
)
def test_of_the_image_alone(tmp_path, op, attributes, opset):
    check(write_one(tmp_path / "m.onnx", op, attributes=attributes, opset=opset))


@pytest.mark.parametrize("op", ["Sqrt", "Log", "Reciprocal", "Tan"])
def test_of_positive_values(tmp_path, op):
    nodes = [("Abs", ["x"], ["a"], {}), ("Add", ["a", "c"], ["b"], {}), (op, ["b"], ["y"], {})]
    check(write(tmp_path / "m.onnx", nodes, {"c": floats(0.3)}))


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "opset"),
    [
        ("PRelu", (normal(3, 1, 1),), {}, 17),
        ("PRelu", (normal(1),), {}, 17),
        ("PRelu", (normal(1, 8, 1),), {}, 17),
        ("Clip", (np.float32(-0.5), np.float32(0.7)), {}, 17),
        ("Clip", (None, np.float32(0.7)), {}, 17),
        ("Clip", (np.float32(0.0), np.float32(6.0)), {}, 13),
        ("Add", (normal(3, 1, 1),), {}, 17),
        ("Add", (normal(1, 3, 8, 8),), {}, 17),
        ("Sub", (np.float32(0.3),), {}, 17),
        ("Mul", (normal(8),), {}, 17),
        ("Div", (floats(1.5),), {}, 17),
        ("Pow", (np.float32(2.0),), {}, 17),
        ("Min", (np.float32(0.5), normal(3, 1, 1)), {}, 17),
        ("Max", (normal(8, 8), np.float32(0.1)), {}, 17),
        ("Sum", (normal(8), normal(3, 1, 1)), {}, 17),
        ("Mean", (normal(8), normal(3, 1, 1)), {}, 17),
        ("MatMul", (normal(8, 5),), {}, 17),
        ("MatMul", (normal(3, 8, 5),), {}, 17),
        ("Reshape", (ints(0, 3, 64),), {}, 17),
        ("Reshape", (ints(0, -1),), {}, 17),
        ("Reshape", (ints(-1, 3, 4, 2, 8),), {}, 17),
        ("Squeeze", (ints(1),), {}, 17),
        ("Unsqueeze", (ints(1, -1),), {}, 17),
        ("Expand", (ints(1, 3, 8, 8),), {}, 17),
        ("Tile", (ints(1, 2, 1, 3),), {}, 17),
        ("Slice", (ints(1), ints(100), ints(2)), {}, 17),
        ("Slice", (ints(-1), ints(-100), ints(3), ints(-2)), {}, 17),
        ("Slice", (ints(0, 1), ints(2**31 - 1, 7), ints(0, 2), ints(1, 2)), {}, 17),
        ("Slice", (ints(2, 0), ints(-(2**62), 5), ints(1, 2), ints(-1, 3)), {}, 17),
        ("Gather", (np.int64(-1),), {"axis": 1}, 17),
        ("Gather", (ints(2, 0, 0),), {"axis": 1}, 17),
        ("Gather", (ints(2, 0, 1, 5).reshape(2, 2),), {"axis": 2}, 17),
        ("Pad", (ints(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)), {}, 17),
        ("Pad", (ints(0, 1, 0, 0, 0, 2, 0, 0),), {}, 17),
        ("Pad", (ints(0, 0, -1, 2, 0, 0, 0, -3),), {}, 17),
        ("Pad", (ints(1, 2, 0, 1), None, ints(2, 3)), {}, 18),
        ("Pad", (ints(0, 0, 1, 2, 0, 0, 3, 0),), {"mode": "reflect"}, 17),
        ("Pad", (ints(0, 0, 1, 2, 0, 0, 3, 0),), {"mode": "edge"}, 17),
        ("Pad", (ints(0, 0, 1, 2, 0, 0, 3, 0),), {"mode": "wrap"}, 19),
        ("ReduceSum", (ints(1, 2),), {"keepdims": 0}, 17),
        ("ReduceMean", (ints(-1),), {}, 18),
        ("ReduceMax", (ints(1),), {}, 18),
        ("CumSum", (np.int64(2),), {}, 17),
        ("Trilu", (np.int64(1),), {}, 17),
        ("Trilu", (), {"upper": 0}, 17),
        ("InstanceNormalization", (normal(3), normal(3)), {"epsilon": 1e-3}, 17),
        ("LayerNormalization", (normal(8), normal(8)), {}, 17),
        ("LayerNormalization", (normal(3, 8, 8),), {"axis": 1, "epsilon": 1e-3}, 17),
        ("LayerNormalization", (normal(8),), {"axis": -2}, 17),
        ("RMSNormalization", (normal(8),), {}, 23),
    ],
)
def test_with_constants(tmp_path, op, constants, attributes, opset):
    shape = (1, 8, 8) if op == "Squeeze" else (3, 8, 8)
    path = tmp_path / "m.onnx"
    if op == "Expand":
        write(
            path,
            [("ReduceMean", ["x"], ["m"], {"axes": [1, 3]}), ("Expand", ["m", "c"], ["y"], {})],
            {"c": constants[0]},
        )
    else:
        write_one(path, op, *constants, attributes=attributes, opset=opset, shape=shape)
    check(path, shape)


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "opset"),
    [
        ("Flatten", (), {"axis": 0}, 17),
        ("Flatten", (), {"axis": 2}, 17),
        ("Flatten", (), {"axis": 4}, 17),
        ("Flatten", (), {"axis": -1}, 13),
        ("Reshape", (ints(-1, 8),), {}, 17),
        ("Expand", (ints(2, 1, 1, 8, 8),), {}, 17),
    ],
)
def test_the_batch_among_other_dimensions(tmp_path, op, constants, attributes, opset):
    read = ["x", *(["c"] if constants else [])]
    values = dict(zip("c", constants, strict=False)) | {"whole": ints(-1, 3, 8, 8)}
    nodes = [(op, read, ["m"], attributes), ("Reshape", ["m", "whole"], ["y"], {})]
    if op == "Expand":
        nodes[1:] = [("Transpose", ["m"], ["y"], {"perm": [1, 0, 2, 3, 4]})]
    check(write(tmp_path / "m.onnx", nodes, values, opset=opset))


def test_dimensions_in_reverse(tmp_path):
    nodes = [("Transpose", ["x"], ["t"], {}), ("Transpose", ["t"], ["y"], {"perm": [3, 1, 2, 0]})]
    check(write(tmp_path / "m.onnx", nodes, {}))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(tmp_path, groups):
    attributes = {"num_groups": groups, "epsilon": 1e-3}
    path = write_one(
        tmp_path / "m.onnx",
        "GroupNormalization",
        normal(6),
        normal(6),
        attributes=attributes,
        shape=(6, 4, 4),
        opset=21,
        declared=("n", 6, 4, 4),
    )
    (layer,) = [m for m in check(path, (6, 4, 4)).modules() if isinstance(m, nn.GroupNorm)]
    assert layer.num_groups == groups


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])
@pytest.mark.parametrize("opset", [8, 17])
def test_of_a_constant_and_the_image(tmp_path, op, opset):
    nodes = [("Abs", ["x"], ["a"], {}), ("Add", ["a", "one"], ["b"], {}), (op, ["c", "b"], ["y"], {})]
    check(write(tmp_path / "m.onnx", nodes, {"c": floats(1.7), "one": floats(1.0)}, opset=opset))


@pytest.mark.parametrize("op", ["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"])
def test_comparisons_choose(tmp_path, op):
    nodes = [
        ("Floor", ["x"], ["f"], {}),
        (op, ["f", "zero"], ["a"], {}),
        ("Greater", ["x", "channels"], ["b"], {}),
        ("And", ["a", "b"], ["both"], {}),
        ("Or", ["a", "b"], ["either"], {}),
        ("Xor", ["both", "either"], ["odd"], {}),
        ("Not", ["odd"], ["even"], {}),
        ("Where", ["a", "x", "channels"], ["u"], {}),
        ("Where", ["even", "half", "zero"], ["v"], {}),
        ("Cast", ["even"], ["w"], {"to": TensorProto.FLOAT}),
        ("Sum", ["u", "v", "w"], ["y"], {}),
    ]
    constants = {"zero": np.float32(0), "half": np.float32(0.5), "channels": normal(3, 1, 1)}
    check(write(tmp_path / "m.onnx", nodes, constants))


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("sizes", [(1, 2, 3), (2, 2, 2), None])
def test_pieces_are_joined(tmp_path, opset, sizes):
    attributes = {"axis": 1} | ({"split": sizes} if sizes and opset < 13 else {})
    if sizes is None and opset >= 18:
        attributes["num_outputs"] = 3
    read = ["x", "sizes"] if sizes and opset >= 13 else ["x"]
    nodes = [
        ("Split", read, ["a", "b", "c"], attributes),
        ("Concat", ["c", "b", "a"], ["j"], {"axis": 1}),
        ("Concat", ["j", "j"], ["y"], {"axis": -1}),
    ]
    constants = {"sizes": ints(*(sizes or (2, 2, 2)))}
    if "sizes" not in read:
        constants = {}
    check(write(tmp_path / "m.onnx", nodes, constants, shape=(6, 4, 4), opset=opset), (6, 4, 4))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(tmp_path, mode):
    attributes = {"blocksize": 2, "mode": mode}
    path = write_one(tmp_path / "m.onnx", "DepthToSpace", attributes=attributes, shape=(12, 3, 5))
    check(path, (12, 3, 5))


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(tmp_path, largest):
    kinds = {"v": TensorProto.FLOAT, "i": TensorProto.INT64}
    attributes = {"axis": 1, "largest": largest}
    path = write_one(tmp_path / "m.onnx", "TopK", ints(2), attributes=attributes, outputs=kinds)
    check(path)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("keep", [0, 1])
def test_place_of_the_extreme(tmp_path, op, keep):
    attributes, kinds = {"axis": 1, "keepdims": keep}, {"y": TensorProto.INT64}
    check(write_one(tmp_path / "m.onnx", op, attributes=attributes, outputs=kinds))


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_batch_norm(tmp_path, rank):
    shape = (4, 5, 3, 2)[: rank - 1]
    statistics = (normal(4), normal(4), normal(4), np.abs(normal(4)) + 0.1)
    nodes = [
        ("Mul", ["x", "x"], ["s"], {}),
        ("BatchNormalization", ["s", "a", "b", "c", "d"], ["y"], {"epsilon": 1e-3, "momentum": 0.8}),
    ]
    module = check(
        write(tmp_path / "m.onnx", nodes, dict(zip("abcd", statistics, strict=True)), shape=shape), shape
    )
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    assert sum(isinstance(m, kinds) for m in module.modules()) == 1


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("flip", [0, 1])
def test_gemm_becomes_a_linear_layer(tmp_path, flip, with_bias):
    weight = normal(5, 7) if flip else normal(7, 5)
    bias = (normal(1, 5),) if with_bias else ()
    attributes = {"transB": flip, "alpha": 0.5, "beta": 2.0}
    path = write_one(tmp_path / "m.onnx", "Gemm", weight, *bias, attributes=attributes, shape=(7,))
    module = check(path, (7,))
    (layer,) = [m for m in module.modules() if isinstance(m, nn.Linear)]
    assert (layer.bias is not None) == with_bias
    assert all(p.requires_grad for p in module.parameters())


def test_a_product_takes_over_the_bias_behind_it(tmp_path):
    nodes = [("MatMul", ["x", "w"], ["p"], {}), ("Add", ["b", "p"], ["y"], {})]
    path = write(tmp_path / "m.onnx", nodes, {"w": normal(8, 5), "b": normal(5)})
    (layer,) = [m for m in check(path).modules() if isinstance(m, nn.Linear)]
    assert layer.bias is not None


def test_products_of_images(tmp_path):
    nodes = [
        ("Transpose", ["x"], ["t"], {"perm": [0, 1, 3, 2]}),
        ("MatMul", ["x", "t"], ["p"], {}),
        ("Softmax", ["p"], ["s"], {}),
        ("MatMul", ["s", "x"], ["y"], {}),
    ]
    check(write(tmp_path / "m.onnx", nodes, {}))


def test_equal_layers_share_their_weights(tmp_path):
    nodes = [
        ("Conv", ["x", "w"], ["a"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["a"], ["b"], {}),
        ("Conv", ["b", "w"], ["y"], {"pads": [1, 1, 1, 1]}),
    ]
    module = check(write(tmp_path / "m.onnx", nodes, {"w": normal(3, 3, 3, 3)}))
    assert sum(isinstance(m, nn.Conv2d) for m in module.modules()) == 1


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "opset", "said"),
    [
        ("Hardmax", (), {}, 17, "(Hardmax, opset 17) is not known"),
        ("LRN", (), {"size": 2}, 17, "has size=2, and accepted are odd sizes"),
        ("Slice", (ints(1), ints(2), ints(0)), {}, 17, "takes a part of the batch"),
        ("Gather", (ints(0),), {"axis": 0}, 17, "takes a part of the batch"),
        ("Pad", (ints(1, 0, 0, 0, 0, 0, 0, 0),), {}, 17, "pads the batch"),
        ("CumSum", (np.int64(2),), {"exclusive": 1}, 17, "has exclusive=1, and accepted is 0"),
        ("Resize", (None, floats(1, 1, 2, 2)), {"mode": "linear"}, 10, "no place"),
        ("MaxPool", (), {"kernel_shape": [2, 2], "storage_order": 1}, 17, "has storage_order=1"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, op, constants, attributes, opset, said):
    if said == "no place":
        constants, said = (floats(1, 1, 2, 2),), "coordinates of opset 10"
    path = write_one(tmp_path / "m.onnx", op, *constants, attributes=attributes, opset=opset)
    with pytest.raises(ModelLoadError) as raised:
        import_onnx(path, (3, 8, 8))
    assert said in str(raised.value)
    assert "n0" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_are_trainable_and_in_evaluation_mode(tmp_path):
    module = check(write_one(tmp_path / "m.onnx", "Conv", normal(4, 3, 3, 3), normal(4)))
    module(torch.zeros(1, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert not module.training
