"""Files of other exporters in normal form: the same function, nothing left of the exporter's ways."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from exporters import IMAGE, STYLES, Constants, Style, exported
from hypothesis import given, settings
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeprune.errors import ProfileError, QuantizationError
from edgeprune.onnx_io.inputs import model_inputs, only_input, sizes_with
from edgeprune.onnx_io.normalize import normal_form
from edgeprune.onnx_io.opset import opset_of, with_opset
from edgeprune.onnx_io.working_copy import write_working_copy

PATH = Path("net.onnx")


def run(model: ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": images})[0])


def images_for(style: Style) -> np.ndarray:
    count = style.dims[0] if isinstance(style.dims[0], int) else 2
    return np.random.default_rng(1).normal(size=(count, *IMAGE)).astype(np.float32)


@given(style=STYLES)
@settings(max_examples=80, deadline=None)
def test_any_style_becomes_the_plain_form_of_the_same_function(style: Style) -> None:
    model, images = exported(style), images_for(style)
    before = run(model, images)
    plain = normal_form(model, PATH, ProfileError)
    assert [value.name for value in plain.graph.input] == ["x"]
    assert {"Constant", "Identity", "Activation"}.isdisjoint(node.op_type for node in plain.graph.node)
    assert not plain.functions
    assert {t.name for t in plain.graph.initializer} >= {"w1", "b1", "w2", "wf", "bf"}
    assert "unused" not in {t.name for t in plain.graph.initializer}
    assert all(dim.dim_value >= 0 for v in plain.graph.value_info for dim in v.type.tensor_type.shape.dim)
    np.testing.assert_allclose(run(plain, images), before, rtol=1e-5, atol=1e-6)


@given(style=STYLES)
@settings(max_examples=60, deadline=None)
def test_sizes_and_a_later_opset_keep_the_function(style: Style) -> None:
    model, images = exported(style), images_for(style)
    sizes = sizes_with(model, PATH, ProfileError, IMAGE)
    dynamic = any(isinstance(size, str) for size in style.dims[1:])
    assert sizes == ({"x": (None, *IMAGE)} if dynamic else {})
    made = with_opset(normal_form(model, PATH, ProfileError, sizes), 13, PATH, ProfileError)
    assert opset_of(made) == max(13, style.opset)
    assert only_input(made, PATH, ProfileError).image == IMAGE
    np.testing.assert_allclose(run(made, images), run(model, images), rtol=1e-5, atol=1e-6)
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in normal_sized(made).graph.value_info
    }
    assert shapes["c1"][1:] == [16, 8, 8]


def normal_sized(model: ModelProto) -> ModelProto:
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def test_a_working_copy_has_the_name_and_the_fixed_sizes(tmp_path: Path) -> None:
    model = exported(Style(dims=("n", 3, "h", "w"), constants=Constants.NODES, opset=9))
    sizes = sizes_with(model, PATH, ProfileError, (3, 16, 24), 2)
    path = write_working_copy(model, PATH, tmp_path, ProfileError, sizes, least_opset=13)
    assert path == tmp_path / "net.onnx"
    assert model_inputs(onnx.load(path))[0].sizes == (2, 3, 16, 24)


@pytest.mark.parametrize(
    ("dims", "image", "batch", "said"),
    [
        (
            ("n", *IMAGE),
            (3, 9, 8),
            None,
            "takes inputs of ?x3x8x8 (batch, channels, height, width), and --input",
        ),
        (("n", 3, "h", 8), (1, 8, 8), None, "--input-shape 1x8x8 was given, which is another size"),
        ((4, *IMAGE), None, 2, "--batch-size 2 was given, which is another size"),
        (("n", 12), (3, 8, 8), None, "has the inputs 'x' of ?x12; accepted is one input of four dimensions"),
    ],
)
def test_sizes_that_a_file_does_not_take_are_one_sentence(
    dims: tuple[int | str, ...], image: tuple[int, ...] | None, batch: int | None, said: str
) -> None:
    with pytest.raises(ProfileError, match=re.escape(said)):
        sizes_with(exported(Style(dims=dims)), PATH, ProfileError, image, batch)


def test_images_beside_other_inputs_get_the_sizes() -> None:
    model = exported(Style(dims=("n", 3, "h", "w")))
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    assert sizes_with(model, PATH, ProfileError, IMAGE) == {"x": (None, *IMAGE)}
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1, 3, 4, 4]))
    with pytest.raises(ProfileError, match="accepted is one input of four dimensions"):
        sizes_with(model, PATH, ProfileError, IMAGE)
    with pytest.raises(ProfileError, match="has 3 inputs; accepted is one"):
        only_input(model, PATH, ProfileError)


def test_what_cannot_be_brought_to_the_form_is_one_sentence() -> None:
    sparse = exported(Style())
    values = numpy_helper.from_array(np.ones(1, np.float32), "few")
    sparse.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64), "at"), [3])
    )
    with pytest.raises(QuantizationError, match=r"net\.onnx keeps 'few' as a sparse tensor"):
        normal_form(sparse, PATH, QuantizationError)
    huge = exported(Style(dims=("n", 3, "h", "w")))
    with pytest.raises(QuantizationError, match=r"net\.onnx takes at least .* GiB to run"):
        normal_form(huge, PATH, QuantizationError, {"x": (4096, 3, 65536, 65536)})
    with pytest.raises(QuantizationError, match="is of opset 6; accepted are opset 7 and later"):
        with_opset(exported(Style(opset=6)), 13, PATH, QuantizationError)
    upsample = exported(Style(opset=9))
    upsample.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(QuantizationError, match="is of opset 9 and cannot be converted to opset 13"):
        with_opset(upsample, 13, PATH, QuantizationError)
