"""Convolutions, pools and sizes over generated shapes and attributes, against onnxruntime."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_counts import examples
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx_graphs import check, write_one

RANDOM = np.random.default_rng(1)
FEW = settings(
    max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
PADDINGS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@st.composite
def windows(draw, *, dilated: bool = True) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Sizes of an image, and the attributes of a window that fits into it."""
    rank = draw(st.integers(1, 3))
    sizes = tuple(draw(st.integers(5, 9)) for _ in range(rank))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    how = draw(st.sampled_from(PADDINGS))
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "auto_pad": how,
    }
    if how.startswith("SAME"):  # onnxruntime has none with gaps between windows
        assume(all(k >= s for k, s in zip(kernel, attributes["strides"], strict=True)))
    if dilated and how in ("NOTSET", "VALID"):
        attributes["dilations"] = [draw(st.integers(1, 2)) for _ in range(rank)]
    if how == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    return sizes, attributes


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def checked(
    op: str, *constants: Any, shape: tuple[int, ...], attributes: dict[str, Any], opset: int = 17
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        check(write_one(path, op, *constants, attributes=attributes, shape=shape, opset=opset), shape)


@FEW
@given(form=windows(), groups=st.sampled_from([1, 2, 4]), with_bias=st.booleans())
def test_convolutions(form, groups, with_bias):
    sizes, attributes = form
    weight = normal(8, 4 // groups, *attributes["kernel_shape"])
    bias = (normal(8),) if with_bias else ()
    checked("Conv", weight, *bias, shape=(4, *sizes), attributes={**attributes, "group": groups})


@FEW
@given(form=windows(), groups=st.sampled_from([1, 2]), extra=st.booleans(), data=st.data())
def test_transposed_convolutions(form, groups, extra, data):
    sizes, attributes = form
    assume(len(sizes) < 3)
    if extra and attributes["auto_pad"] in ("NOTSET", "VALID"):
        limits = [max(s, 1) - 1 for s in attributes["strides"]]
        attributes["output_padding"] = [data.draw(st.integers(0, most)) for most in limits]
    weight = normal(4, 3, *attributes["kernel_shape"])
    checked("ConvTranspose", weight, shape=(4, *sizes), attributes={**attributes, "group": groups})


@FEW
@given(form=windows(), ceil=st.booleans(), opset=st.sampled_from([12, 17]))
def test_largest_of_windows(form, ceil, opset):
    sizes, attributes = form
    checked("MaxPool", shape=(3, *sizes), attributes={**attributes, "ceil_mode": int(ceil)}, opset=opset)


@FEW
@given(form=windows(dilated=False), with_padding=st.booleans())
def test_means_of_windows(form, with_padding):
    sizes, attributes = form
    checked(
        "AveragePool", shape=(3, *sizes), attributes={**attributes, "count_include_pad": int(with_padding)}
    )


@pytest.mark.parametrize("with_padding", [0, 1])
@pytest.mark.parametrize("size", [7, 8, 9, 10])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_means_of_windows_rounded_up(size, pads, with_padding):
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": pads, "ceil_mode": 1}
    checked(
        "AveragePool",
        shape=(3, size, size),
        attributes={**attributes, "count_include_pad": with_padding},
        opset=19,
    )


@FEW
@given(
    size=st.integers(3, 9),
    new_size=st.integers(1, 19),
    by_scales=st.booleans(),
    coordinates=st.sampled_from(["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]),
    rounding=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
)
def test_nearest_places(size, new_size, by_scales, coordinates, rounding):
    attributes = {
        "mode": "nearest",
        "coordinate_transformation_mode": coordinates,
        "nearest_mode": rounding,
    }
    scales = np.asarray([1, 1, new_size / size, 2], dtype=np.float32)
    if by_scales:
        # a size that only rounding decides is none to compare
        assume(abs(np.floor(size * float(scales[2])) - new_size) == 0)
        checked("Resize", None, scales, shape=(2, size, 5), attributes=attributes)
        return
    attributes["axes"] = [2, 3]
    new_sizes = np.asarray([new_size, 10], dtype=np.int64)
    checked("Resize", None, None, new_sizes, shape=(2, size, 5), attributes=attributes, opset=18)


@FEW
@given(
    scale=st.sampled_from([0.5, 1.5, 2.0, 2.3, 3.0]),
    rank=st.integers(1, 2),
    mode=st.sampled_from(["linear", "cubic"]),
    coordinates=st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners"]),
)
def test_between_places(scale, rank, mode, coordinates):
    assume(mode == "linear" or rank == 2)
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    scales = np.asarray([1, 1, *[scale] * rank], dtype=np.float32)
    checked("Resize", None, scales, shape=(2, *[6] * rank), attributes=attributes)
