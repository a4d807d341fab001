"""Constants that several read, factors of Gemm, and branches: generated networks as users run them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgeprune.onnx_io.passes.base import rewritten
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.int8 import calibrate, write_integers
from edgeprune.quantization.passes.own_weights import OwnWeights
from edgeprune.quantization.passes.plain_gemms import PlainGemms
from edgeprune.quantization.preparation import load_float
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.targets import load_target

WIDTH, IMAGE = 16, (3, 8, 8)
LARGEST_ERROR = 0.15
"""Of outputs in 8 bits, relative; the faults that this is for are .2 to 5."""
_BIASES: dict[str, tuple[int, ...] | None] = {
    "none": None, "scalar": (), "one": (1,), "row": (1, WIDTH), "by output": (WIDTH,), "one row": (1, 1),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A product; ``weight`` and ``bias`` number the constants, so that layers may share them."""

    op: str
    weight: int
    transposed: bool = False
    alpha: float = 1.0
    beta: float = 1.0
    bias: str = "none"
    bias_number: int = 0


FACTORS = st.sampled_from((1.0, 1.0, 0.25, 3.0))
LAYERS = st.builds(
    Layer,
    op=st.sampled_from(("Gemm", "Gemm", "MatMul")),
    weight=st.integers(0, 1),
    transposed=st.booleans(),
    alpha=FACTORS,
    beta=FACTORS,
    bias=st.sampled_from(sorted(_BIASES)),
    bias_number=st.integers(0, 1),
)


def network(
    path: Path, layers: list[Layer], *, shown: frozenset[str] = frozenset(), branch: bool = False
) -> Path:
    """A convolution, then products with Relu between; ``shown`` constants are outputs.

    ``branch``: an If reads an activation between two products.
    """
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[np.float32]] = {
        "stem": 0.3 * rng.normal(size=(WIDTH, 3, 3, 3)), "stem_bias": 0.1 * rng.normal(size=WIDTH),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "stem", "stem_bias"], ["c"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["h0"], name="flat"),
    ]
    spread = np.exp(rng.normal(size=(WIDTH, 1)))  # channels of other sizes, so that their scales differ
    for number in range(2):
        constants[f"w{number}"] = spread * rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
    for place, layer in enumerate(layers):
        nodes += _product(layer, place, constants, rng)
        nodes.append(helper.make_node("Relu", [f"p{place}"], [f"h{place + 1}"], name=f"relu{place}"))
    last = f"p{len(layers) - 1}"
    nodes[-1] = helper.make_node("Identity", [last], ["y"], name="last")
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])]
    if branch:
        nodes += _branch("h1" if len(layers) > 1 else "h0", constants)
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", WIDTH]))
    for name in sorted(shown & constants.keys()):
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, constants[name].shape))
    held = [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()]
    taken = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *IMAGE])]
    graph = helper.make_graph(nodes, "net", taken, outputs, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def _product(
    layer: Layer, place: int, constants: dict[str, NDArray[Any]], rng: np.random.Generator
) -> list[NodeProto]:
    read = [f"h{place}", f"w{layer.weight}"]
    if layer.op == "MatMul":
        return [helper.make_node("MatMul", read, [f"p{place}"], name=f"product{place}")]
    shape = _BIASES[layer.bias]
    if shape is not None:
        name = f"b{layer.bias_number}_{len(shape)}_{int(np.prod(shape))}"
        constants.setdefault(name, 0.3 * np.asarray(rng.normal(size=shape)))
        read.append(name)
    factors = {"alpha": layer.alpha, "beta": layer.beta, "transB": int(layer.transposed)}
    return [helper.make_node("Gemm", read, [f"p{place}"], name=f"product{place}", **factors)]


def _branch(read: str, constants: dict[str, NDArray[Any]]) -> list[NodeProto]:
    constants["limit"] = np.asarray(0.0)
    there, other = (
        helper.make_graph(
            [helper.make_node(op, [read, read], [f"z_{op}"], name=f"branch_{op}")], op, [],
            [helper.make_tensor_value_info(f"z_{op}", TensorProto.FLOAT, ["n", WIDTH])],
        )
        for op in ("Add", "Mul")
    )  # fmt: skip
    return [
        helper.make_node("ReduceMean", ["x"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Less", ["mean", "limit"], ["below"], name="below"),
        helper.make_node("If", ["below"], ["z"], name="if", then_branch=other, else_branch=there),
    ]


def outputs_of(model: Path | bytes, images: torch.Tensor) -> list[NDArray[np.float64]]:
    """As a user runs it: a plain session with all optimizations."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    given = model if isinstance(model, bytes) else str(model)
    session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    return [out.astype(np.float64) for out in session.run(None, {"x": images.numpy()})]


def errors_in_8_bits(path: Path) -> list[float]:
    """Relative error of each output."""
    images = torch.rand(48, *IMAGE, generator=torch.Generator().manual_seed(0))
    made = path.with_name("made.onnx")
    settings_ = IntegerSettings(form=integer_format(load_target("host")))
    write_integers(calibrate(path, images, settings_), made, frozenset())
    return [
        float(np.linalg.norm(exact - rounded) / np.linalg.norm(exact))
        for exact, rounded in zip(outputs_of(path, images), outputs_of(made, images), strict=True)
    ]


@pytest.mark.parametrize("bias", sorted(_BIASES))
@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.1, 1.0), (1.0, 3.0), (1.0, 0.1), (2.0, 0.5)])
def test_factors_and_biases_of_gemm_are_kept(bias: str, factors: tuple[float, float], tmp_path: Path) -> None:
    layer = Layer(op="Gemm", weight=0, alpha=factors[0], beta=factors[1], bias=bias)
    (error,) = errors_in_8_bits(network(tmp_path / "net.onnx", [layer]))
    assert error < 0.03


@pytest.mark.parametrize(
    "layers",
    [
        [Layer(op="Gemm", weight=0, transposed=True), Layer(op="Gemm", weight=0)],
        [Layer(op="Gemm", weight=0, transposed=True), Layer(op="MatMul", weight=0)],
        [
            Layer(op="Gemm", weight=0, bias="by output"),
            Layer(op="Gemm", weight=0, bias="by output", beta=2.0),
        ],
    ],
)
def test_a_weight_that_is_read_in_two_ways_is_right_in_both(layers: list[Layer], tmp_path: Path) -> None:
    (error,) = errors_in_8_bits(network(tmp_path / "net.onnx", layers))
    assert error < 0.05


def test_constants_that_are_outputs_stay_as_they_are(tmp_path: Path) -> None:
    layers = [Layer(op="Gemm", weight=0, bias="by output"), Layer(op="Gemm", weight=1, transposed=True)]
    shown = frozenset({"w0", "w1", "b0_1_16", "stem_bias"})
    error, *constants = errors_in_8_bits(network(tmp_path / "net.onnx", layers, shown=shown))
    assert error < 0.05
    assert constants == [0.0] * len(shown)


def test_layers_that_read_a_weight_alike_go_on_sharing_it(tmp_path: Path) -> None:
    layers = [Layer(op="Gemm", weight=0), Layer(op="Gemm", weight=0), Layer(op="MatMul", weight=0)]
    model = load_float(network(tmp_path / "net.onnx", layers)).rewritten(OwnWeights())
    read = [node.input[1] for node in model.proto.graph.node if node.name.startswith("product")]
    assert len(read) == 3
    assert read[0] == read[1] != read[2]
    assert rewritten(model.proto, OwnWeights()) == model.proto


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=st.lists(LAYERS, min_size=1, max_size=3),
    shown=st.frozensets(st.sampled_from(("w0", "w1", "b0_1_16", "stem", "stem_bias")), max_size=2),
    branch=st.booleans(),
)
def test_any_of_it_stays_near_in_8_bits(layers: list[Layer], shown: frozenset[str], branch: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = network(Path(folder) / "net.onnx", layers, shown=shown, branch=branch)
        given_model = onnx.load(path)
        before = given_model.SerializeToString()
        plain = rewritten(given_model, PlainGemms(), OwnWeights())
        assert given_model.SerializeToString() == before
        images = torch.rand(4, *IMAGE, generator=torch.Generator().manual_seed(1))
        for before, after in zip(
            outputs_of(path, images), outputs_of(plain.SerializeToString(), images), strict=True
        ):
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
        errors = errors_in_8_bits(path)
    constants = errors[2 if branch else 1 :]
    assert errors[0] < LARGEST_ERROR
    assert not branch or errors[1] < LARGEST_ERROR
    assert constants == [0.0] * len(constants)
