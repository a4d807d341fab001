"""Each rewrite leaves the function of generated graphs alone, and says what it did."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_ir.passes import PassResult, PostconditionError

from edgeprune.onnx_io.passes.base import GraphPass, rewritten
from edgeprune.quantization.passes.half_constants import HalfConstants
from edgeprune.quantization.passes.hard_activations import HardActivationsToSums
from edgeprune.quantization.passes.spatial_means import SpatialMeansToPooling


def graph(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: tuple[int, ...]
) -> ModelProto:
    """A model from ``x`` of this shape to ``y``."""
    inner = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def run(model: ModelProto, shape: tuple[int, ...]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    return np.asarray(session.run(None, {"x": values})[0])


def ops(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@given(
    axes=st.sampled_from([(2, 3), (3, 2), (-1, -2), (1, 2), (2,), (1, 2, 3), (-2, 3)]),
    keeps=st.booleans(),
    behind=st.booleans(),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
)
@settings(max_examples=40, deadline=None)
def test_means_over_height_and_width_alone_become_pooling(
    axes: tuple[int, ...], keeps: bool, behind: bool, sizes: tuple[int, ...]
) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["m" if behind else "y"], axes=axes, keepdims=int(keeps))]
    if behind:
        nodes.append(helper.make_node("Neg", ["m"], ["y"]))
    before = graph(nodes, {}, sizes)
    after = rewritten(before, SpatialMeansToPooling())
    spatial = sorted(axis % 4 for axis in axes) == [2, 3]
    assert ("GlobalAveragePool" in ops(after)) == spatial
    assert ("ReduceMean" in ops(after)) != spatial
    np.testing.assert_allclose(run(before, sizes), run(after, sizes), rtol=1e-5, atol=1e-6)


@given(
    kinds=st.lists(
        st.sampled_from(["HardSwish", "HardSigmoid", "HardSigmoid 0.2", "Relu"]), max_size=5, min_size=1
    ),
    excluded=st.sets(st.integers(0, 4)),
)
@settings(max_examples=40, deadline=None)
def test_hard_activations_become_sums_read_by_a_sixth(kinds: list[str], excluded: set[int]) -> None:
    nodes, names = [], ["x", *(f"t{i}" for i in range(len(kinds) - 1)), "y"]
    for place, kind in enumerate(kinds):
        op, *slope = kind.split()
        more = {} if op != "HardSigmoid" else {"alpha": float(slope[0]) if slope else 1 / 6, "beta": 0.5}
        nodes.append(helper.make_node(op, [names[place]], [names[place + 1]], name=f"n{place}", **more))
    before = graph(nodes, {}, (1, 2, 3, 4))
    ranges = dict.fromkeys(names, (-1.0, 1.0))
    change = HardActivationsToSums(ranges, frozenset(f"n{place}" for place in excluded))
    after = rewritten(before, change)
    replaced = [
        place
        for place, kind in enumerate(kinds)
        if kind in ("HardSwish", "HardSigmoid") and place not in excluded
    ]
    assert len(change.clipped) == len(replaced)
    assert all(ranges[name] == (0.0, 6.0) for name in change.clipped)
    sixths = [node for node in after.graph.node if node.output[0] in change.clipped]
    for node in sixths:  # what reading by a sixth of the scale does in 8 bits
        node.output[0] += "_six"
        after.graph.node.append(
            helper.make_node("Div", [node.output[0], "edgeprune_six"], [node.output[0][:-4]])
        )
    np.testing.assert_allclose(
        run(before, (1, 2, 3, 4)), run(_sorted(after), (1, 2, 3, 4)), rtol=1e-4, atol=1e-6
    )


def _sorted(model: ModelProto) -> ModelProto:
    sorted_model = ir.from_proto(model)
    sorted_model.graph.sort()
    return ir.to_proto(sorted_model)


@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    large=st.lists(st.booleans(), min_size=4, max_size=4),
    data=st.data(),
)
@settings(max_examples=30, deadline=None)
def test_constants_that_16_bits_hold_are_stored_in_them(
    sizes: list[int], large: list[bool], data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    constants, nodes, at = {}, [], "x"
    for place, size in enumerate(sizes):
        value = rng.normal(size=(size, 1)).astype(np.float32)
        value[0] = 1e5 if large[place] else 1.0
        constants[f"c{place}"] = value
        nodes += [
            helper.make_node("ReduceSum", [f"c{place}"], [f"s{place}"], keepdims=0),
            helper.make_node(
                "Add", [at, f"s{place}"], [at := "y" if place == len(sizes) - 1 else f"a{place}"]
            ),
        ]
    before, change = graph(nodes, constants, (1, 2)), HalfConstants()
    after = rewritten(before, change)
    fits = [place for place, size in enumerate(sizes) if size >= 64]
    assert change.stored == [f"c{place}" for place in fits if not large[place]]
    assert change.kept == [f"c{place}" for place in fits if large[place]]
    kinds = {i.name: i.data_type for i in after.graph.initializer}
    assert all(kinds[f"{name}_half"] == TensorProto.FLOAT16 for name in change.stored)
    np.testing.assert_allclose(run(before, (1, 2)), run(after, (1, 2)), rtol=1e-2, atol=0.5)


def test_a_pass_that_renames_an_output_is_found_out() -> None:
    class Renames(GraphPass):
        def call(self, model: ir.Model) -> PassResult:
            model.graph.outputs[0].name = "z"
            return PassResult(model, modified=True)

    with pytest.raises(Exception, match=r"pass|Renames") as raised:
        rewritten(graph([helper.make_node("Relu", ["x"], ["y"])], {}, (1, 2)), Renames())
    causes = [raised.value, raised.value.__cause__]
    assert any(isinstance(cause, PostconditionError) for cause in causes)
