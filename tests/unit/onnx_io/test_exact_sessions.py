"""8 bits are judged by exact products, whatever the processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeprune import parity

CHANNELS, SCALE = 64, 1 / 255


def largest_products(path: Path, readers: int) -> None:
    """A convolution of the largest values with the largest weights, once or twice with the same weight."""
    weight = np.full((4, CHANNELS, 1, 1), 127, np.int8)
    constants = {
        "scale": np.float32(SCALE), "zero": np.uint8(0), "weight_scale": np.float32(1 / 127),
        "weight_zero": np.int8(0), "out_scale": np.float32(CHANNELS * SCALE), "weight": weight,
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"]),
    ]
    outputs = []
    for place in range(readers):
        nodes += [
            helper.make_node("Conv", ["x", "w"], [f"y{place}"]),
            helper.make_node("QuantizeLinear", [f"y{place}", "out_scale", "zero"], [f"p{place}"]),
            helper.make_node("DequantizeLinear", [f"p{place}", "out_scale", "zero"], [f"output{place}"]),
        ]
        outputs.append(helper.make_tensor_value_info(f"output{place}", TensorProto.FLOAT, ["n", 4, 2, 2]))
    graph = helper.make_graph(
        nodes,
        "largest",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", CHANNELS, 2, 2])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.mark.parametrize("readers", [1, 2])
def test_the_largest_products_do_not_saturate(tmp_path: Path, readers: int) -> None:
    path = tmp_path / "model.onnx"
    largest_products(path, readers)
    for output in parity.run_onnx(path, torch.ones(2, CHANNELS, 2, 2), threads=1):
        np.testing.assert_allclose(output, CHANNELS, rtol=0.01)
