"""Files whose tensors and nodes are called like what quantization adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.onnx_io.passes.base import rewritten
from edgeprune.quantization.fp16 import quantize_fp16
from edgeprune.quantization.int8 import calibrate, quantize_integers, write_integers
from edgeprune.quantization.passes.names_apart import ENDINGS, NamesApart
from edgeprune.quantization.settings import IntegerSettings
from tests.example_counts import examples

FORM = IntegerFormat(signed_activations=False, reduce_range=False, reason="", pixel_blocks=True)
TENSORS = ("x", "w", "stem", "r", "hard", "v", "b", "second", "mean", "y", "z")
NODES = ("conv", "relu", "swish", "pointwise", "pool", "last")


def network(tensors: dict[str, str], nodes: dict[str, str]) -> onnx.ModelProto:
    """Two convolutions, a hard swish and a mean; all names as told."""
    rng = np.random.default_rng(0)

    def node(op: str, reads: str, gives: str, name: str, **attributes: object) -> onnx.NodeProto:
        read = [tensors[each] for each in reads.split()]
        return helper.make_node(op, read, [tensors[gives]], name=nodes[name], **attributes)

    made = [
        node("Conv", "x w", "stem", "conv", kernel_shape=[2, 2], strides=[2, 2]),
        node("Relu", "stem", "r", "relu"),
        node("HardSwish", "r", "hard", "swish"),
        node("Conv", "hard v b", "second", "pointwise", kernel_shape=[1, 1]),
        node("ReduceMean", "second", "mean", "pool", axes=[2, 3], keepdims=0),
        node("Gemm", "mean z", "y", "last", transB=1),
    ]
    sizes = {"w": (8, 3, 2, 2), "v": (32, 8, 1, 1), "b": (32,), "z": (9, 32)}
    constants = [
        numpy_helper.from_array(rng.standard_normal(size).astype(np.float32), tensors[name])
        for name, size in sizes.items()
    ]
    ends = [(tensors["x"], ["n", 3, 8, 8]), (tensors["y"], ["n", 9]), (tensors["second"], ["n", 32, 4, 4])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in ends]
    graph = helper.make_graph(made, "named", infos[:1], infos[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def outputs(model: bytes | str, name: str, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, {name: images})]


def apart(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    return max(float(np.linalg.norm(b - a) / np.linalg.norm(b)) for b, a in zip(before, after, strict=True))


@st.composite
def named(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str]]:
    """Names of tensors and nodes that are each other's, with one ending or two."""
    endings = st.sampled_from(["", *(f"_{ending}" for ending in ENDINGS)])

    def distinct(wanted: tuple[str, ...]) -> dict[str, str]:
        told: dict[str, str] = {}
        for each in wanted:
            name = draw(st.sampled_from(["t", "u", "conv"])) + draw(endings) + draw(endings)
            while name in told.values():
                name += draw(st.sampled_from(["_scale", "_"]))
            told[each] = name
        return told

    return distinct(TENSORS), distinct(NODES)


@settings(max_examples=examples(200), deadline=None)
@given(named())
def test_renamed_tensors_are_calculated_as_before(names: tuple[dict[str, str], dict[str, str]]) -> None:
    proto = network(*names)
    made = rewritten(proto, NamesApart())
    onnx.checker.check_model(made, full_check=True)
    assert [node.name for node in made.graph.node if node.op_type != "Identity"] == [
        node.name for node in proto.graph.node
    ]
    images = np.random.default_rng(1).random((2, 3, 8, 8), np.float32)
    before, after = (outputs(p.SerializeToString(), names[0]["x"], images) for p in (proto, made))
    assert apart(before, after) < 1e-6
    assert rewritten(made, NamesApart()) == made


@settings(
    max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=named(), corrected=st.booleans())
def test_files_with_such_names_are_quantized(
    tmp_path: Path, names: tuple[dict[str, str], dict[str, str]], corrected: bool
) -> None:
    given_file, made = tmp_path / "given.onnx", tmp_path / "made.onnx"
    onnx.save(network(*names), str(given_file))
    images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    how = IntegerSettings(form=FORM, corrected=corrected)
    before = outputs(str(given_file), names[0]["x"], images.numpy())
    report = quantize_integers(given_file, made, images, how)
    assert report.nodes
    assert apart(before, outputs(str(made), names[0]["x"], images.numpy())) < 0.1
    layers = frozenset({names[1]["pointwise"], names[1]["last"]})
    stored = write_integers(calibrate(given_file, images, how), made, frozenset(), layers)
    assert set(stored.stored) == layers
    assert apart(before, outputs(str(made), names[0]["x"], images.numpy())) < 0.1
    quantize_fp16(given_file, made)
    assert apart(before, outputs(str(made), names[0]["x"], images.numpy())) < 1e-2


@pytest.mark.parametrize("kept", ["x", "y", "second"])
def test_inputs_and_outputs_keep_their_names(tmp_path: Path, kept: str) -> None:
    tensors, nodes = {name: name for name in TENSORS}, {name: name for name in NODES}
    for other in ("stem", "second", "x", "y"):
        if other == kept:
            continue
        proto = network({**tensors, kept: "t", other: "t_scale"}, nodes)
        made = rewritten(proto, NamesApart())
        for ends in ("input", "output"):
            assert [e.name for e in getattr(made.graph, ends)] == [e.name for e in getattr(proto.graph, ends)]
        given_file = tmp_path / f"{kept}-{other}.onnx"
        onnx.save(proto, str(given_file))
        how = IntegerSettings(form=FORM)
        quantize_integers(given_file, tmp_path / f"{kept}-{other}-8.onnx", torch.rand(8, 3, 8, 8), how)
