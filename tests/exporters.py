"""Small ONNX networks as exporters of many kinds and times write them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

IMAGE = (3, 8, 8)


class Constants(Enum):
    """Where weights are kept."""

    INITIALIZERS = "initializers"
    NODES = "Constant nodes"
    INPUTS = "initializers that are inputs, too"
    IDENTITIES = "initializers behind two Identity nodes"


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a network is written; ``dims`` are those of its input, a text where one is dynamic."""

    opset: int = 17
    constants: Constants = Constants.INITIALIZERS
    dims: tuple[int | str, ...] = ("n", *IMAGE)
    stale: bool = False
    unused: bool = False
    computed: bool = False
    in_function: bool = False


STYLES = st.builds(
    Style,
    opset=st.integers(7, 21),
    constants=st.sampled_from(Constants),
    dims=st.sampled_from(
        [("n", *IMAGE), (1, *IMAGE), (4, *IMAGE), ("n", 3, "h", "w"), ("", "", "", ""), ("?", 3, "?", 8)]
    ),
    stale=st.booleans(),
    unused=st.booleans(),
    computed=st.booleans(),
    in_function=st.booleans(),
)


def exported(style: Style) -> ModelProto:
    """Two convolutions, a clip, a pooling over positions and a classifier, written in that style."""
    rng = np.random.default_rng(0)
    values = {
        "w1": rng.normal(0, 0.3, (16, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 16).astype(np.float32),
        "w2": rng.normal(0, 0.2, (8, 16, 1, 1)).astype(np.float32),
        "wf": rng.normal(0, 0.5, (8, 12)).astype(np.float32),
        "bf": rng.normal(0, 0.1, 12).astype(np.float32),
    }
    read = dict.fromkeys(values, "")
    nodes: list[NodeProto] = []
    initializers: list[TensorProto] = []
    for name, value in values.items():
        read[name] = name
        if style.constants is Constants.NODES:
            nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name)))
            continue
        initializers.append(numpy_helper.from_array(value, name))
        if style.constants is Constants.IDENTITIES:
            read[name] = f"{name}_again"
            nodes.append(helper.make_node("Identity", [name], [f"{name}_copy"]))
            nodes.append(helper.make_node("Identity", [f"{name}_copy"], [read[name]]))
    nodes += _body(style, read, initializers)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(style.dims))]
    if style.unused:
        initializers.append(numpy_helper.from_array(np.ones(100, np.float32), "unused"))
    old = style.constants is Constants.INPUTS
    if old:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in initializers]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [style.dims[0], 12])],
        initializers,
    )
    if style.stale:
        for name, channels in (("c1", 16), ("r1", 16), ("c2", 8), ("k2", 8)):
            graph.value_info.append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [-1, channels, -1, -1])
            )
    opsets = [helper.make_opsetid("", style.opset)]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=3 if old and not style.in_function else 8
    )
    if style.in_function:
        relu = [helper.make_node("Relu", ["a"], ["b"])]
        model.functions.append(helper.make_function("own", "Activation", ["a"], ["b"], relu, opsets))
        model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def _body(style: Style, read: dict[str, str], initializers: list[TensorProto]) -> list[NodeProto]:
    activation = "Activation" if style.in_function else "Relu"
    nodes = [
        helper.make_node("Conv", ["x", read["w1"], read["b1"]], ["c1"], pads=[1] * 4),
        helper.make_node(activation, ["c1"], ["r1"], domain="own" if style.in_function else ""),
        helper.make_node("Conv", ["r1", read["w2"]], ["c2"]),
    ]
    if style.opset < 11:
        nodes.append(helper.make_node("Clip", ["c2"], ["k2"], min=0.0, max=6.0))
    else:
        initializers += [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in _ENDS.items()]
        nodes.append(helper.make_node("Clip", ["c2", *_ENDS], ["k2"]))
    nodes.append(helper.make_node("GlobalAveragePool", ["k2"], ["p"]))
    if style.computed:
        initializers += [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in _SIZES.items()]
        unsqueeze = {"axes": [0]} if style.opset < 13 else {}
        nodes += [
            helper.make_node("Shape", ["p"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["batch"], axis=0),
            helper.make_node(
                "Unsqueeze", ["batch"] + (["axes"] if style.opset >= 13 else []), ["b"], **unsqueeze
            ),
            helper.make_node("Concat", ["b", "rest"], ["sizes"], axis=0),
            helper.make_node("Reshape", ["p", "sizes"], ["f"]),
        ]
    else:
        nodes.append(helper.make_node("Flatten", ["p"], ["f"]))
    nodes.append(helper.make_node("Gemm", ["f", read["wf"], read["bf"]], ["g"]))
    return [*nodes, helper.make_node("Softmax", ["g"], ["y"], axis=1)]


_ENDS = {"low": 0.0, "high": 6.0}
_SIZES = {"zero": 0, "axes": [0], "rest": [-1]}


def written_to(path: object, model: ModelProto) -> None:
    """The bytes of a model as a file."""
    onnx.save_model(model, str(path), format="protobuf")
