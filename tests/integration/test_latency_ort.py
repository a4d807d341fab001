"""Measuring with onnxruntime: figures are there, bad input is one sentence. No time is asserted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.artifacts.latency import Provenance
from edgeprune.errors import ProfileError, UsageError
from edgeprune.profiling.figures import figures
from edgeprune.profiling.measurer import HostMeasurer, RunSettings
from edgeprune.profiling.memory import peak_memory_bytes
from edgeprune.profiling.prediction import predict
from edgeprune.profiling.timing import compare, measure
from edgeprune.targets import load_target


def linear(path: Path, inputs: int, outputs: int, dims: list[int | str] | None = None) -> Path:
    """y = x W with W (inputs, outputs)."""
    weight = np.random.default_rng(0).standard_normal((inputs, outputs)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims or ["batch", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return linear(tmp_path / "small.onnx", 64, 32)


def test_a_measurement_says_what_it_is(small: Path) -> None:
    found = measure(small, threads=1, repetitions=3, batch_size=4)
    assert found.provenance is Provenance.MEASURED_ON_HOST
    assert 0 < found.latency_p50_ms <= found.latency_p90_ms
    assert found.cpu_time_p50_ms > 0
    assert found.repetitions >= 3
    assert (found.threads, found.batch_size) == (1, 4)
    assert found.warmup >= 3
    assert found.latency_p99_ms is not None
    assert found.latency_p99_ms >= found.latency_p90_ms
    assert found.runtime.startswith("onnxruntime ")
    assert found.machine


def test_a_comparison_has_a_finite_interval_around_its_ratio(tmp_path: Path, small: Path) -> None:
    larger = linear(tmp_path / "larger.onnx", 512, 512)
    found = compare(small, larger, threads=1, pairs=100)
    assert 0 < found.low <= found.ratio <= found.high < float("inf")
    assert (found.pairs, found.confidence, found.threads) == (100, 0.95, 1)


def test_all_figures_of_a_model(small: Path) -> None:
    found = figures(small, HostMeasurer(settings=RunSettings(threads=1)))
    assert found.size_bytes == small.stat().st_size
    assert found.parameters == found.macs == 64 * 32
    assert found.latency is not None
    untimed = figures(small, None)
    assert untimed.latency is None
    assert untimed.peak_memory_bytes is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may not tell a process's peak memory")
def test_a_bigger_model_needs_more_memory(tmp_path: Path) -> None:
    megabyte = 10**6
    little = peak_memory_bytes(linear(tmp_path / "1mb.onnx", 500, 500), 1)
    much = peak_memory_bytes(linear(tmp_path / "100mb.onnx", 5000, 5000), 1)
    assert little is not None
    assert much is not None
    assert little > 0
    assert much > little + 90 * megabyte


def test_a_prediction_of_a_file_is_of_its_work(small: Path) -> None:
    one = predict(small, load_target("rpi4"), threads=1)
    assert one.provenance is Provenance.PREDICTED
    assert one.low_ms < one.latency_ms < one.high_ms
    assert predict(small, load_target("rpi")) == predict(small, load_target("rpi4"))


def test_a_fixed_batch_that_is_not_asked_for_is_refused(tmp_path: Path) -> None:
    path = linear(tmp_path / "fixed.onnx", 8, 8, [1, 8])
    measure(path, threads=1, repetitions=1)
    with pytest.raises(ProfileError, match="fixed batch of 1, not 2"):
        measure(path, threads=1, repetitions=1, batch_size=2)


def test_a_dynamic_size_beyond_the_batch_is_refused(tmp_path: Path) -> None:
    path = linear(tmp_path / "dynamic.onnx", 8, 8, ["batch", "tokens", 8])
    with pytest.raises(ProfileError, match=r"dimension 1 of input 'x' is dynamic \(tokens\)"):
        measure(path, threads=1, repetitions=1)


@pytest.mark.parametrize(
    "run",
    [
        lambda path, good: measure(path, threads=1, repetitions=1),
        lambda path, good: compare(good, path, threads=1),
        lambda path, good: compare(path, good, threads=1),
        lambda path, good: peak_memory_bytes(path, 1),
    ],
    ids=["measure", "compare b", "compare a", "memory"],
)
def test_bad_files_are_one_sentence(tmp_path: Path, small: Path, run: Callable[[Path, Path], object]) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no protobuf")
    with pytest.raises(ProfileError, match="no ONNX file at"):
        run(tmp_path / "none.onnx", small)
    with pytest.raises(ProfileError, match=r"text\.onnx: onnxruntime cannot") as caught:
        run(text, small)
    assert "\n" not in str(caught.value)


def test_options_out_of_range_are_refused(small: Path) -> None:
    with pytest.raises(UsageError, match="threads is 0; give at least 1"):
        measure(small, threads=0)
    with pytest.raises(UsageError, match="threads is 0"):
        peak_memory_bytes(small, 0)
    with pytest.raises(UsageError, match="pairs is 99; give at least 100"):
        compare(small, small, threads=1, pairs=99)
    with pytest.raises(UsageError, match="batch_size is 0"):
        measure(small, threads=1, batch_size=0)
