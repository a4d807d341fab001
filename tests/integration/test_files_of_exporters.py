"""``profile``, ``quantize`` and ``verify`` on files as other exporters write them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from exporters import IMAGE, Constants, Style, exported, written_to
from onnx import ModelProto, TensorProto, helper, numpy_helper

import edgeprune
from edgeprune.artifacts.quantization import IntegerReport, Precision
from edgeprune.errors import CalibrationError, EdgepruneError, ProfileError, QuantizationError
from edgeprune.onnx_io.inputs import model_inputs
from edgeprune.quantization.preparation import load_float
from edgeprune.results import QuantizationResult

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
DYNAMIC = ("n", 3, "h", "w")
STYLES = {
    "constant nodes": Style(constants=Constants.NODES),
    "stale shapes": Style(stale=True, dims=(1, *IMAGE)),
    "old, inputs": Style(opset=9, constants=Constants.INPUTS),
    "opset 7, dynamic": Style(opset=7, constants=Constants.NODES, dims=("", "", "", "")),
    "opset 12, computed sizes": Style(opset=12, computed=True, dims=DYNAMIC, unused=True),
    "identities, stale, dynamic": Style(constants=Constants.IDENTITIES, stale=True, dims=("?", 3, "?", "?")),
    "functions": Style(opset=21, in_function=True, computed=True),
    "fixed batch of four": Style(opset=11, dims=(4, *IMAGE)),
}
QUICK = {"functions", "fixed batch of four", "opset 7, dynamic"}
"""A new opset, an old one, and one with sizes that are open."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 255, (24, *IMAGE), dtype=np.uint8))
    return path


def file_of(model: ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    written_to(folder / name, model)
    return folder / name


def quantized(
    path: Path, images: Path, precision: Precision = Precision.INT8, **options: object
) -> QuantizationResult:
    return edgeprune.quantize(
        path,
        calibration=images,
        output=path.with_name("out.onnx"),
        precision=precision,
        threads=1,
        overwrite=True,
        **options,  # type: ignore[arg-type]
    )


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def bytes_of_weights(path: Path) -> int:
    """Of all floating-point tensors in the file, wherever an exporter put them."""
    model = onnx.load(path)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    tensors = [*model.graph.initializer, *(a.t for node in nodes for a in node.attribute if a.HasField("t"))]
    return sum(numpy_helper.to_array(t).nbytes for t in tensors if t.data_type in FLOATS)


@pytest.mark.parametrize(
    "style",
    [
        pytest.param(style, id=name, marks=() if name in QUICK else pytest.mark.wide)
        for name, style in STYLES.items()
    ],
)
def test_every_style_is_quantized_and_profiled(style: Style, tmp_path: Path, images: Path) -> None:
    path = file_of(exported(style), tmp_path)
    result = quantized(path, images)
    assert isinstance(result.details, IntegerReport)
    assert result.details.nodes["Conv"] == 2
    assert result.details.nodes["Gemm"] == 1
    assert result.deviation.cosine > 0.99
    open_sizes = any(isinstance(size, str) for size in style.dims[1:])
    assert any("takes images of 3x8x8 alone" in note for note in result.notes) == open_sizes
    converted = f"is of opset {style.opset} and was converted to opset 13"
    assert any(converted in note for note in result.notes) == (style.opset < 13)
    half = quantized(path, images, Precision.FP16)
    assert half.deviation.relative_error < 1e-3
    assert bytes_of_weights(tmp_path / "out.onnx") < 0.6 * bytes_of_weights(path)  # the rest is metadata
    given = session(path).get_inputs()[0].shape
    assert [isinstance(a, int) for a in session(tmp_path / "out.onnx").get_inputs()[0].shape] == [
        isinstance(a, int) for a in given
    ]
    batch = style.dims[0] if isinstance(style.dims[0], int) else 1
    found = edgeprune.profile(
        path, input_shape=IMAGE if open_sizes else None, batch_size=batch, threads=1
    ).figures
    assert found.parameters == 16 * 27 + 16 + 8 * 16 + 8 * 12 + 12
    assert found.macs == 64 * 16 * 27 + 64 * 8 * 16 + 8 * 12
    assert found.size_bytes == path.stat().st_size
    checked = edgeprune.verify(path, path, calibration=images, max_images=10, threads=1)
    assert checked.passed
    assert {"c1", "c2"} <= {tensor.name for tensor in checked.tensors}


def test_sizes_given_are_those_of_the_file_that_is_written(tmp_path: Path, images: Path) -> None:
    path = file_of(exported(Style(opset=11, dims=DYNAMIC)), tmp_path)
    for precision in (Precision.INT8, Precision.FP16):
        result = quantized(path, images, precision, input_shape=IMAGE, batch_size=2)
        assert session(tmp_path / "out.onnx").get_inputs()[0].shape == [2, *IMAGE]
        assert any("3x8x8, in batches of 2 alone" in note for note in result.notes)
    with pytest.raises(CalibrationError, match=r"the images are \(3, 8, 8\) .* takes \(3, 16, 16\)"):
        quantized(path, images, input_shape=(3, 16, 16))
    assert edgeprune.profile(path, input_shape=(3, 16, 8), batch_size=3, threads=1).figures.macs == (
        128 * 16 * 27 + 128 * 8 * 16 + 8 * 12
    )


def test_grey_images_become_the_channels_that_a_file_of_open_sizes_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", images=np.random.default_rng(0).integers(0, 255, (24, 8, 8), np.uint8))
    path = file_of(exported(Style(dims=DYNAMIC)), tmp_path)
    assert quantized(path, tmp_path / "grey.npz").deviation.cosine > 0.9
    assert edgeprune.verify(path, path, calibration=tmp_path / "grey.npz", threads=1).passed


def test_verify_feeds_files_of_different_fixed_batches(tmp_path: Path, images: Path) -> None:
    """Inner tensors too: of one image at a time, of four and of all."""
    styles = {"one": (1, *IMAGE), "four": (4, *IMAGE), "any": ("n", *IMAGE)}
    paths = [file_of(exported(Style(dims=dims)), tmp_path, f"{name}.onnx") for name, dims in styles.items()]
    for first in paths:
        for second in paths:
            found = edgeprune.verify(first, second, calibration=images, max_images=11, threads=1)
            assert found.passed
            assert len(found.tensors) >= 5
            assert found.first_diverging is None


def test_activations_without_sizes_of_an_image_stay_in_32_bits(tmp_path: Path, images: Path) -> None:
    """The batch as second size, as recurrent layers have it, and sizes that depend on the values."""
    model = exported(Style(dims=("n", *IMAGE)))
    graph = model.graph
    nodes = [
        helper.make_node("Transpose", ["k2"], ["turned"], perm=[1, 0, 2, 3], name="turn"),
        helper.make_node("Relu", ["turned"], ["kept"], name="kept"),
        helper.make_node("Transpose", ["kept"], ["back"], perm=[1, 0, 2, 3], name="back"),
    ]
    place = next(i for i, node in enumerate(graph.node) if node.op_type == "GlobalAveragePool")
    graph.node[place].input[0] = "back"
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
    graph.node.extend(
        [
            helper.make_node("NonZero", ["k2"], ["where"]),
            helper.make_node("Cast", ["where"], ["places"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["places"], ["listed"], perm=[1, 0], name="list"),
            helper.make_node("ReduceMax", ["listed"], ["z"], keepdims=0),
        ]
    )
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, []))
    del graph.output[1]
    path = file_of(model, tmp_path)
    result = quantized(path, images)
    assert isinstance(result.details, IntegerReport)
    assert result.details.nodes["Conv"] == 2
    assert result.deviation.cosine > 0.99


def test_shapes_behind_calculated_sizes_are_seen_in_a_run(tmp_path: Path) -> None:
    """A reshape to what is cast from a shape: inference knows not even the rank behind it."""
    model = exported(Style(computed=True))
    graph = model.graph
    concat = next(node for node in graph.node if node.op_type == "Concat")
    place = list(graph.node).index(concat)
    concat.output[0] = "whole"
    graph.node.insert(place + 1, helper.make_node("Cast", ["whole"], ["real"], to=TensorProto.FLOAT))
    graph.node.insert(place + 2, helper.make_node("Floor", ["real"], ["floor"]))
    graph.node.insert(place + 3, helper.make_node("Cast", ["floor"], ["sizes"], to=TensorProto.INT64))
    shapes = load_float(file_of(model, tmp_path)).shapes
    assert shapes["f"] == (8,)
    assert shapes["y"] == (12,)


SENTENCES = {
    "open sizes": (
        Style(dims=DYNAMIC),
        ProfileError,
        "dimension 2 of input 'x' is dynamic (h); give the size",
    ),
    "no images": (
        Style(dims=("n", 3, "t")),
        ProfileError,
        "only the batch may be: export it with a fixed size",
    ),
}


@pytest.mark.parametrize(("style", "kind", "said"), SENTENCES.values(), ids=SENTENCES.keys())
def test_what_profile_needs_is_said(
    style: Style, kind: type[EdgepruneError], said: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=re.escape(said)):
        edgeprune.profile(file_of(exported(style), tmp_path), threads=1)


def test_what_cannot_be_quantized_says_what_to_do(tmp_path: Path, images: Path) -> None:
    old = file_of(exported(Style(opset=6, constants=Constants.NODES)), tmp_path, "six.onnx")
    for precision in (Precision.INT8, Precision.FP16):
        with pytest.raises(QuantizationError, match="is of opset 6; accepted are opset 7 and later"):
            quantized(old, images, precision)
    bare = exported(Style())
    del bare.graph.node[:-1]
    bare.graph.node[0].input[0] = "x"
    with pytest.raises(QuantizationError, match="no constants of 64 values or more in 32 bits"):
        quantized(file_of(bare, tmp_path, "bare.onnx"), images, Precision.FP16)
    four = file_of(exported(Style(dims=(4, *IMAGE))), tmp_path, "four.onnx")
    with pytest.raises(QuantizationError, match="--batch-size 3 was given, which is another size"):
        quantized(four, images, batch_size=3)
    with pytest.raises(ProfileError, match="fixed batch of 4, not 1; ask for --batch-size 4"):
        edgeprune.profile(four, threads=1)


def test_a_batch_that_is_dynamic_by_name_alone_works_as_one(tmp_path: Path, images: Path) -> None:
    """The sizes of a reshape are those of one image."""
    model = exported(Style(dims=("n", *IMAGE)))
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([1, 8], np.int64), "one"))
    flatten = next(node for node in graph.node if node.op_type == "Flatten")
    flatten.op_type = "Reshape"
    flatten.input.append("one")
    path = file_of(model, tmp_path)
    assert quantized(path, images, batch_size=1).deviation.cosine > 0.99
    assert model_inputs(onnx.load(tmp_path / "out.onnx"))[0].sizes == (1, *IMAGE)
