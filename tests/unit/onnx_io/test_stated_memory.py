"""Models whose stated sizes exceed the memory are refused before they run, all others are not."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from edgeprune.errors import ProfileError
from edgeprune.onnx_io import memory
from edgeprune.onnx_io.memory import least_bytes, require_memory
from edgeprune.onnx_io.read import read_onnx
from edgeprune.system import available

SIZES = st.integers(1, 2**14)


def network(height: int, width: int, channels: int, *, batch: str | int = "batch") -> ModelProto:
    """A convolution with padding and a ReLU: no node holds more than twice what the convolution gives."""
    shape = [batch, 1, height, width]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("GlobalAveragePool", ["b"], ["y"]),
        ],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, channels, 1, 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [channels, 1, 3, 3], [0.1] * (9 * channels))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@given(SIZES, SIZES, st.integers(1, 64), st.sampled_from(["batch", 1]))
def test_the_largest_node_counts(height: int, width: int, channels: int, batch: str | int) -> None:
    plane = 4 * height * width
    expected = max(plane * (1 + channels), 2 * plane * channels)
    assert least_bytes(network(height, width, channels, batch=batch)) == expected


@given(SIZES, SIZES, st.integers(1, 64), st.integers(2**20, 2**40))
def test_only_what_cannot_run_is_refused(height: int, width: int, channels: int, limit: int) -> None:
    model = network(height, width, channels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "memory_limit_bytes", lambda: limit)
        if least_bytes(model) > limit:
            with pytest.raises(ProfileError, match=r"m\.onnx takes at least .* GiB to run with a batch of"):
                require_memory(model, Path("m.onnx"), ProfileError)
        else:
            require_memory(model, Path("m.onnx"), ProfileError)


@pytest.mark.parametrize("sizes", [("h", "w"), (0, 5), (-1, 2**40)], ids=str)
def test_unknown_and_odd_sizes_refuse_nothing(sizes: tuple[int | str, ...]) -> None:
    model = network(8, 8, 4)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims[2:], sizes, strict=True):
        dim.Clear()
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size
    assert least_bytes(model) <= 4 * math.prod((4, 10, 10))


def test_the_reader_refuses_and_names_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(network(1024, 1024, 512), tmp_path / "large.onnx")
    monkeypatch.setattr(memory, "memory_limit_bytes", lambda: 2**30)
    with pytest.raises(ProfileError, match=r"takes at least 4\.0 GiB .* allows 1\.0 GiB: give a model"):
        read_onnx(tmp_path / "large.onnx", ProfileError)


@pytest.mark.parametrize(
    ("text", "expected"), [("max\n", None), ("1073741824\n", 2**30), ("odd", None), (None, None)]
)
def test_limits_of_a_container(
    text: str | None, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "memory.max").write_text(text)
    monkeypatch.setattr(available, "CONTAINER_FILES", (tmp_path / "memory.max",))
    monkeypatch.setattr(available, "physical_memory_bytes", lambda: 2**35)
    found = available.memory_limit_bytes()
    assert found is not None
    assert found <= (expected or 2**35)
    assert expected is None or found == expected
