"""ONNX files that are not what they seem: a small network with one fault each, of many kinds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

IMAGE = (1, 8, 8)
Fault = Callable[[ModelProto, Path], ModelProto | bytes | None]


def network() -> ModelProto:
    """A convolution and a classifier, every constant in raw bytes."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "head"], ["y"], name="gemm"),
    ]
    constants = {"w": (4, 1, 3, 3), "b": (4,), "head": (4, 4)}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *IMAGE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
            for name, shape in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bad_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The name of every fault and a file with it."""
    for name, fault in FAULTS.items():
        own = folder / name.replace(" ", "-")
        own.mkdir(parents=True)
        model = network()
        made = fault(model, own)
        path = own / "bad.onnx"
        path.write_bytes(made if isinstance(made, bytes) else (made or model).SerializeToString())
        yield name, path


def _set(**fields: object) -> Fault:
    """Fields of the convolution's weight."""

    def fault(model: ModelProto, _folder: Path) -> None:
        for name, value in fields.items():
            if isinstance(value, list):
                del getattr(model.graph.initializer[0], name)[:]
                getattr(model.graph.initializer[0], name).extend(value)
            else:
                setattr(model.graph.initializer[0], name, value)

    return fault


def _external(size: int = 144, **entries: str) -> Fault:
    """The convolution's weight of 144 bytes in another file of ``size`` bytes."""

    def fault(model: ModelProto, folder: Path) -> None:
        weight = model.graph.initializer[0]
        (folder / "w.bin").write_bytes(weight.raw_data[:size].ljust(size, b"\0"))
        (folder.parent / "outside.bin").write_bytes(weight.raw_data)
        (folder / "deeper").mkdir()
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", **entries}.items():
            weight.external_data.add(key=key, value=value)

    return fault


def _linked(model: ModelProto, folder: Path) -> None:
    _external(location="link.bin")(model, folder)
    (folder / "link.bin").symlink_to(folder.parent / "outside.bin")


def _fifo(model: ModelProto, folder: Path) -> None:
    _external(location="pipe")(model, folder)
    os.mkfifo(folder / "pipe")


def _twice_told(model: ModelProto, folder: Path) -> None:
    _external()(model, folder)
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def _shared(model: ModelProto, folder: Path) -> None:
    """A small file of which many constants claim the whole."""
    _external(location="large.bin", length=str(2**26))(model, folder)
    with (folder / "large.bin").open("wb") as stream:
        stream.truncate(2**26)
    weight = model.graph.initializer[0]
    weight.dims[:] = [2**24]
    for number in range(40):
        other = model.graph.initializer.add()
        other.CopyFrom(weight)
        other.name = f"copy{number}"


def _node(position: int, **fields: object) -> Fault:
    def fault(model: ModelProto, _folder: Path) -> None:
        node = model.graph.node[position]
        for name, value in fields.items():
            if isinstance(value, list):
                del getattr(node, name)[:]
                getattr(node, name).extend(value)
            else:
                setattr(node, name, value)

    return fault


def _graph(change: Callable[[GraphProto], object]) -> Fault:
    def fault(model: ModelProto, _folder: Path) -> None:
        change(model.graph)

    return fault


def _model(change: Callable[[ModelProto], object]) -> Fault:
    def fault(model: ModelProto, _folder: Path) -> None:
        change(model)

    return fault


def _calls(*chain: tuple[str, list[str]]) -> Fault:
    """Functions by the functions that they call in a row; the network calls the first."""

    def fault(model: ModelProto, _folder: Path) -> None:
        opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        for name, called in chain:
            ends = ["x", *(f"t{i}" for i in range(len(called) - 1)), "y"]
            nodes = [
                helper.make_node(op, [ends[i]], [ends[i + 1]], domain="" if op == "Relu" else "own")
                for i, op in enumerate(called)
            ]
            model.functions.append(helper.make_function("own", name, ["x"], ["y"], nodes, opset))
        model.opset_import.append(helper.make_opsetid("own", 1))
        model.graph.node[1].op_type, model.graph.node[1].domain = chain[0][0], "own"

    return fault


def _field(number: int, payload: bytes) -> bytes:
    """A field of a protobuf message."""
    length, size = len(payload), b""
    while length >= 128:
        size, length = size + bytes([length % 128 + 128]), length // 128
    return bytes([number * 8 + 2]) + size + bytes([length]) + payload


def _nested(depth: int) -> Fault:
    """Conditions in each other, as bytes: the library that writes them stops at a hundred messages."""

    def fault(model: ModelProto, _folder: Path) -> bytes:
        node = helper.make_node("Relu", ["conv"], ["deep0"]).SerializeToString()
        for level in range(1, depth + 1):
            branch = (
                _field(1, node) + _field(2, b"branch") + _field(12, _field(1, f"deep{level - 1}".encode()))
            )
            attribute = _field(1, b"then_branch") + _field(6, branch) + b"\xa0\x01\x05"
            output = _field(2, f"deep{level}".encode())
            node = _field(1, b"yes") + output + _field(4, b"If") + _field(5, attribute)
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        return model.SerializeToString() + _field(7, _field(1, node))

    return fault


def _inside(model: ModelProto, _folder: Path) -> None:
    """A fault in a graph inside a node."""
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["nobody"], ["inner"])], "branch", [], [output])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node[1].CopyFrom(
        helper.make_node("If", ["yes"], ["relu"], then_branch=branch, else_branch=branch)
    )


def _text(model: ModelProto, _folder: Path) -> bytes:
    return model.SerializeToString().replace(b"pooled", b"\xff\xfe\xfd\xfc\xfb\xfa")


def _whole(model: ModelProto, _folder: Path) -> bytes:
    return model.SerializeToString()


def _output_type(model: ModelProto, _folder: Path) -> None:
    model.graph.node.append(helper.make_node("SequenceConstruct", ["flat"], ["sequence"], name="sequence"))
    kind = helper.make_tensor_sequence_value_info("sequence", TensorProto.FLOAT, None)
    model.graph.output.insert(0, kind)


CONTROL = "x\x1b[31m\x07\u202ey"


def _too_large(model: ModelProto, _folder: Path) -> None:
    """An image of a gigabyte, which is accepted, and a terabyte behind it."""
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 2**14
    del model.graph.initializer[:]
    for name, shape in {"w": (512, 1, 3, 3), "b": (512,), "head": (512, 4)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))


FAULTS: dict[str, Fault] = {
    "too large to run": _too_large,
    "no ir version": _model(lambda m: m.ClearField("ir_version")),
    "ir version below 0": _model(lambda m: setattr(m, "ir_version", -3)),
    "ir version of the future": _model(lambda m: setattr(m, "ir_version", 10**6)),
    "no opset": _model(lambda m: m.ClearField("opset_import")),
    "opset twice": _model(lambda m: m.opset_import.append(helper.make_opsetid("", 13))),
    "opset of the future": _model(lambda m: setattr(m.opset_import[0], "version", 10**6)),
    "opset below 0": _model(lambda m: setattr(m.opset_import[0], "version", -1)),
    "domain unknown": _node(1, domain="nobody.knows"),
    "operator unknown": _node(1, op_type="NoSuchOperator"),
    "operator without a name": _node(1, op_type=""),
    "type of a constant unknown": _set(data_type=99),
    "type of a constant missing": _set(data_type=0),
    "type of a constant below 0": _set(data_type=-1),
    "type of a constant another": _set(data_type=TensorProto.DOUBLE),
    "type of a constant text": _set(data_type=TensorProto.STRING),
    "size below 0": _set(dims=[4, 1, 3, -3]),
    "size beyond the data": _set(dims=[4, 1, 3, 30]),
    "size beyond all memory": _set(dims=[2**40, 2**40]),
    "size of no values": _set(dims=[4, 0, 3, 3]),
    "rank too small": _set(dims=[36]),
    "data twice": _set(float_data=[1.0] * 36),
    "data missing": _set(raw_data=b""),
    "data cut": _set(raw_data=b"\0" * 143),
    "data in the wrong field": _set(raw_data=b"", int64_data=[1] * 36),
    "data too few": _set(raw_data=b"", float_data=[1.0] * 35),
    "offset below 0": _external(offset="-4"),
    "offset a text": _external(offset="four"),
    "offset a fraction": _external(offset="0.5"),
    "offset in other digits": _external(offset="\u0661"),
    "offset with thousands of digits": _external(offset="9" * 5000),
    "offset beyond the file": _external(offset="4096"),
    "length below 0": _external(length="-144"),
    "length a text": _external(length="all"),
    "length beyond the file": _external(length=str(2**40)),
    "length another than needed": _external(length="140"),
    "file too small": _external(size=100),
    "file missing": _external(location="nowhere.bin"),
    "file above the folder": _external(location="../outside.bin"),
    "file by an absolute path": _external(location="/etc/passwd"),
    "file by a path of Windows": _external(location="..\\outside.bin"),
    "file on a drive": _external(location="C:\\outside.bin"),
    "file by a link out of the folder": _linked,
    "file with a null": _external(location="w.bin\0x"),
    "file without a name": _external(location=""),
    "file of the runtime's memory": _external(location="*/_ORT_MEM_ADDR_/*", offset="4096", length="144"),
    "file that is a folder": _external(location="deeper"),
    "file that is a pipe": _fifo,
    "place told twice": _twice_told,
    "file shared by many constants": _shared,
    "input missing": _node(1, input=["nobody"]),
    "input missing with control characters": _node(1, input=[CONTROL]),
    "inputs too few": _node(0, input=["x"]),
    "inputs none": _node(4, input=[]),
    "input read by itself": _node(1, input=["relu"]),
    "nodes in a circle": _node(0, input=["relu", "w", "b"]),
    "name given twice": _node(2, output=["relu"]),
    "name of a constant given": _node(2, output=["w"]),
    "output missing": _graph(lambda g: setattr(g.output[0], "name", CONTROL)),
    "no outputs": _graph(lambda g: g.ClearField("output")),
    "no nodes": _graph(lambda g: g.ClearField("node")),
    "no graph": _model(lambda m: m.ClearField("graph")),
    "no inputs": _graph(lambda g: (g.ClearField("input"), setattr(g.node[0], "op_type", CONTROL))),
    "input without a type": _graph(lambda g: g.input[0].ClearField("type")),
    "input of an unknown type": _graph(lambda g: setattr(g.input[0].type.tensor_type, "elem_type", 77)),
    "input larger than the memory": _graph(
        lambda g: setattr(g.input[0].type.tensor_type.shape.dim[2], "dim_value", 2**40)
    ),
    "output that is a sequence": _output_type,
    "attribute of another kind": _graph(
        lambda g: g.node[0].attribute[0].CopyFrom(helper.make_attribute("pads", CONTROL))
    ),
    "attribute without a kind": _graph(
        lambda g: g.node[0].attribute.append(AttributeProto(name="group", type=AttributeProto.UNDEFINED))
    ),
    "groups that do not divide": _graph(
        lambda g: g.node[0].attribute.append(helper.make_attribute("group", 3))
    ),
    "groups none": _graph(lambda g: g.node[0].attribute.append(helper.make_attribute("group", 0))),
    "function that calls itself": _calls(("f", ["f"])),
    "functions that call each other": _calls(("f", ["g"]), ("g", ["f"])),
    "functions that unfold to millions": _calls(
        *((f"f{i}", [f"f{i + 1}"] * 10) for i in range(12)), ("f12", ["Relu"])
    ),
    "functions in a long chain": _calls(*((f"f{i}", [f"f{i + 1}"]) for i in range(500)), ("f500", ["Relu"])),
    "function twice": _calls(("f", ["Relu"]), ("f", ["Relu"])),
    "graphs too deep": _nested(2000),
    "graphs deep": _nested(30),
    "fault in a graph inside": _inside,
    "name no text": _text,
    "half a file": lambda m, f: _whole(m, f)[:200],
    "bytes behind": lambda m, f: _whole(m, f) + b"\xff" * 9,
    "empty": lambda _m, _f: b"",
    "nothing but zeros": lambda _m, _f: bytes(1000),
    "text": lambda _m, _f: b"this is no model\x1b[31m\n" * 20,
}  # fmt: skip
