"""Mutators of ONNX models by the meaning of their fields."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
from fuzz_containers import odd_floats
from fuzz_values import CANARY, mutated_bytes, odd_text
from onnx import TensorProto, helper, numpy_helper

SIZES = (0, 1, 2, 3, 5, 8, -1, 2**20, 2**31, 2**40, 2**63 - 1, -(2**63))
TYPES = (0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 16, 17, 23, 99)
OPERATORS = (
    "Relu", "Sigmoid", "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Div", "Log", "Reshape", "Flatten",
    "GlobalAveragePool", "MaxPool", "Resize", "Loop", "If", "Scan", "Identity", "Cast", "NonZero", "Odd",
    "QuantizeLinear", "RandomNormal", "Exp", "Softmax", "ArgMax", "Transpose", "Concat", "Dropout", "Unique",
)  # fmt: skip
PLACES = (
    "/etc/passwd",
    "../../../../etc/passwd",
    "/dev/zero",
    "model.onnx",
    "missing.bin",
    "",
    "a\x1b[2J",
    "/",
)


def text(rng: random.Random) -> str:
    """A text that protobuf takes."""
    return odd_text(rng).encode("utf-8", "replace").decode()


def mutated_onnx(rng: random.Random, data: bytes) -> bytes:
    """The model with one to three fields changed; now and then bytes of the file itself."""
    if rng.random() < 0.15:
        return mutated_bytes(rng, data)
    model = onnx.load_from_string(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_CHANGES)(rng, model)
    written: bytes = model.SerializeToString()
    return written


def _values(rng: random.Random, model: onnx.ModelProto) -> None:
    """Weights that are not finite, huge, tiny or all the same; the structure stays valid."""
    tensors = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and t.raw_data]
    for tensor in rng.sample(tensors, rng.choice((1, len(tensors)))) if tensors else []:
        tensor.raw_data = odd_floats(rng, tensor.raw_data)


def _tensor(rng: random.Random, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    kind = rng.randrange(5)
    if kind == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
    elif kind == 1:
        tensor.data_type = rng.choice(TYPES)
    elif kind == 2:
        tensor.raw_data = mutated_bytes(rng, tensor.raw_data)
    elif kind == 3:
        tensor.name = text(rng)
    else:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 2, 3), np.float64), tensor.name))


def _outside(rng: random.Random, model: onnx.ModelProto) -> None:
    """Weights that lie in another file."""
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": rng.choice(PLACES), "offset": str(rng.choice(SIZES)), "length": text(rng)[:99]}
    for key in rng.sample(sorted(entries), rng.choice((1, 2, 3))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, entries[key]


def _node(rng: random.Random, model: onnx.ModelProto) -> None:
    nodes = model.graph.node
    node = rng.choice(nodes)
    kind = rng.randrange(7)
    if kind == 0:
        node.op_type = rng.choice(OPERATORS)
    elif kind == 1:
        node.op_type = text(rng)
    elif kind == 2:
        node.domain = rng.choice((text(rng), "com.microsoft", "ai.onnx.ml", "ai.onnx.training"))
    elif kind == 3:
        nodes.remove(node)
    elif kind == 4:
        nodes.add().CopyFrom(node)
    elif kind == 5 and node.input:
        # Often a circle.
        node.input[rng.randrange(len(node.input))] = rng.choice(rng.choice(nodes).output or [""])
    elif node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(("", "input", "output", text(rng)))


def _attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice([n for n in model.graph.node if n.attribute] or list(model.graph.node))
    if not node.attribute or rng.random() < 0.2:
        node.attribute.append(helper.make_attribute(rng.choice(("axis", "group", "to", "mode", "x")), 2**40))
        return
    attribute = rng.choice(node.attribute)
    if attribute.type == onnx.AttributeProto.INTS and rng.random() < 0.8:
        attribute.ints[:] = [rng.choice(SIZES) if rng.random() < 0.5 else i for i in attribute.ints]
    elif attribute.type == onnx.AttributeProto.INT and rng.random() < 0.8:
        attribute.i = rng.choice(SIZES)
    else:
        made = rng.choice((float("nan"), text(rng) or "x", [2**40, -1], [0.5], 7))
        attribute.CopyFrom(helper.make_attribute(attribute.name, made))


def _ends(rng: random.Random, model: onnx.ModelProto) -> None:
    """Inputs and outputs: their sizes, types, names and number."""
    ends = rng.choice((model.graph.input, model.graph.input, model.graph.output))
    if not ends:
        return
    end = rng.choice(ends)
    kind = rng.randrange(6)
    dims = end.type.tensor_type.shape.dim
    if kind <= 1 and dims:
        dim = rng.choice(dims)
        if rng.random() < 0.6:
            dim.dim_value = rng.choice(SIZES)
        else:
            dim.dim_param = text(rng)
    elif kind == 2:
        end.type.tensor_type.elem_type = rng.choice(TYPES)
    elif kind == 3:
        end.name = text(rng)
    elif kind == 4:
        ends.append(
            helper.make_tensor_value_info(text(rng) or "x", TensorProto.FLOAT, [1, rng.choice(SIZES)])
        )
    else:
        ends.remove(end)


def _renamed(rng: random.Random, model: onnx.ModelProto) -> None:
    """One tensor under another name wherever it occurs, so that the model stays valid."""
    graph = model.graph
    old = rng.choice([*(t.name for t in graph.initializer), *(o for n in graph.node for o in n.output)])
    new = text(rng)
    for named in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        named.name = new if named.name == old else named.name
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def _node_names(rng: random.Random, model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = text(rng)


def _versions(rng: random.Random, model: onnx.ModelProto) -> None:
    if rng.random() < 0.4:
        model.ir_version = rng.choice((0, 3, 7, 8, 99, 2**31, -1))
        return
    if not model.opset_import or rng.random() < 0.2:
        model.opset_import.append(helper.make_opsetid(text(rng), rng.choice((1, 999))))
        return
    chosen = rng.choice(model.opset_import)
    chosen.version = rng.choice((0, 1, 5, 7, 9, 12, 13, 17, 21, 24, 999, 2**40, -1))


def _texts(rng: random.Random, model: onnx.ModelProto) -> None:
    model.producer_name, model.doc_string, model.domain = text(rng), text(rng), text(rng)
    model.graph.name, model.graph.doc_string = text(rng), text(rng)
    entry = model.metadata_props.add()
    entry.key, entry.value = text(rng), text(rng)


def _large(rng: random.Random, model: onnx.ModelProto) -> None:
    """A few bytes that ask for much memory: a tensor that the network is multiplied with or added to."""
    side = rng.choice((2**10, 2**14, 2**20, 2**31, 2**40))
    shape = numpy_helper.from_array(np.array([side, side], np.int64), "large_shape")
    model.graph.initializer.append(shape)
    op = rng.choice(("ConstantOfShape", "Expand"))
    out = model.graph.output[0].name if model.graph.output else "output"
    inputs = ["large_shape"] if op == "ConstantOfShape" else [out, "large_shape"]
    model.graph.node.append(helper.make_node(op, inputs, ["large"]))
    if rng.random() < 0.5:
        model.graph.output.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, None))


def _function(rng: random.Random, model: onnx.ModelProto) -> None:
    """A function of its own, which may call itself."""
    name = rng.choice(("Own", text(rng) or "x"))
    called = rng.choice((name, "Relu"))
    node = helper.make_node(called, ["a"], ["b"], domain="own" if called == name else "")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", name, ["a"], ["b"], [node], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    first = model.graph.node[0]
    first.op_type, first.domain = name, "own"
    del first.attribute[:]
    del first.input[1:]


def _subgraph(rng: random.Random, model: onnx.ModelProto) -> None:
    """A loop of very many rounds around nothing."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"])],
        text(rng) or "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])],
    )
    rounds = numpy_helper.from_array(np.array(rng.choice((0, 5, 10**4)), np.int64), "rounds")
    model.graph.initializer.append(rounds)
    model.graph.node.append(helper.make_node("Loop", ["rounds", ""], [], body=body))


def _code(rng: random.Random, model: onnx.ModelProto) -> None:
    """An operator that some builds of onnxruntime run as Python."""
    node = rng.choice(model.graph.node)
    node.op_type, node.domain = rng.choice((("PyOp", "pyopmulti"), ("PythonOp", "com.microsoft")))
    node.attribute.append(helper.make_attribute("module", "os"))
    node.attribute.append(helper.make_attribute("class_name", f"system('touch {CANARY}')"))


_CHANGES: tuple[Callable[[random.Random, onnx.ModelProto], None], ...] = (
    _values, _values, _values, _values, _tensor, _tensor, _outside, _node, _node, _attribute, _attribute,
    _ends, _ends, _renamed, _node_names, _versions, _texts, _large, _function, _subgraph, _code,
)  # fmt: skip
