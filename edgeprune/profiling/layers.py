"""Single layers at other widths as ONNX files, to be measured where the network is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17


@dataclass(frozen=True, kw_only=True)
class LayerGeometry:
    """A convolution on images of ``size`` (height, width); a linear layer, no kernel, on ``size[0]`` rows.

    ``depthwise``: as many groups as output channels, however many there are.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    depthwise: bool = False


def write_layer(geometry: LayerGeometry, out: int, into: int, path: Path) -> Path:
    """Write the layer and a ReLU for one input as an ONNX file, and return its path.

    ``into`` counts the input channels that each output channel reads.
    """
    onnx.save(_model(geometry, out, into), path)
    return path


def write_overhead(path: Path) -> Path:
    """Write a model whose time is the call of onnxruntime: single layers pay it, those of a network "
    "do not."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x", "z")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "nothing", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8), path)
    return path


def _model(geometry: LayerGeometry, out: int, into: int) -> onnx.ModelProto:
    groups = out if geometry.depthwise else geometry.groups
    channels = into * groups
    rng = np.random.default_rng(1)
    if not geometry.kernel:
        weight = rng.normal(size=(channels, out)).astype(np.float32)
        nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
        shape = [geometry.size[0], channels]
    else:
        weight = rng.normal(size=(out, into, *geometry.kernel)).astype(np.float32)
        nodes = [
            helper.make_node(
                "Conv", ["x", "w", "b"], ["y"], kernel_shape=list(geometry.kernel),
                strides=list(geometry.stride), pads=[*geometry.padding, *geometry.padding],
                dilations=list(geometry.dilation), group=groups,
            )
        ]  # fmt: skip
        shape = [1, channels, *geometry.size]
    nodes.append(helper.make_node("Relu", ["y"], ["z"]))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.zeros(out, np.float32), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
