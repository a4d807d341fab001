"""Errors of ranges are weighed by what the outputs make of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto
from onnx_models import written
from torch import Tensor, nn
from torch.nn import functional

import edgeprune
from edgeprune import parity
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.quantization import IntegerFormat, IntegerReport, Precision, RangeMethod
from edgeprune.commands.compress.quantization_stage import notes_of, write_quantized
from edgeprune.commands.quantize.output_gradients import OutputGradients
from edgeprune.devices.runner import runner_on
from edgeprune.errors import ModelLoadError, QuantizationError
from edgeprune.profiling.runner import RunSettings
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.preparation import load_float
from edgeprune.quantization.ranges.calibration import Histogram, histograms
from edgeprune.quantization.ranges.choice import SquaredError, chosen_range
from edgeprune.quantization.ranges.weighting import COUNTED_ALIKE, Traced, weighted
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.targets import load_target

FORM = IntegerFormat(signed_activations=False, reduce_range=False, reason="a test")
SHAPE = (3, 64, 64)


class Given:
    """Values and gradients of a tensor ``a``, by parts."""

    def __init__(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self._parts, self.images = parts, len(parts)

    def trace(self, model: ModelProto) -> Iterator[tuple[int, Traced]]:
        for part in self._parts:
            yield 1, {"a": (part[0][None], part[1][None])}


class Failing:
    images = 8

    def trace(self, model: ModelProto) -> Iterator[tuple[int, Traced]]:
        raise ModelLoadError("an operator that nobody knows")
        yield


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram(low=float(values.min()), high=float(values.max()))
    histogram.add(values)
    return histogram


def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Values, and gradients that are larger where values are."""
    values = rng.standard_t(4, count).astype(np.float32)
    return values, (rng.normal(0.2, 1.0, count) * np.abs(values)).astype(np.float32)


def in_8_bits(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    scale = (ends[1] - ends[0]) / 255
    zero = round(-ends[0] / scale)
    return (np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale


@given(seed=st.integers(0, 10_000), share=st.floats(0.4, 0.95))
@settings(max_examples=30, deadline=None)
def test_errors_count_by_squared_gradients_of_images_that_count_alike(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    parts = [drawn(rng, 3000) for _ in range(6)]
    histogram = histogram_of(np.concatenate([v for v, _ in parts]))
    found, weighing = weighted({"a": histogram}, ModelProto(), Given(parts), {})
    assert (weighing.images, weighing.reason) == (6, None)
    ends = (share * histogram.low, share * histogram.high)
    expected = alike = 0.0
    for values, gradients in parts:
        squares = np.square(gradients.astype(float))
        error = np.square(in_8_bits(values.astype(float), ends) - values)
        expected += (error * squares).sum() / squares.sum() / 6
        alike += error.mean() / 6
    wanted = (1 - COUNTED_ALIKE) * expected + COUNTED_ALIKE * alike
    assert SquaredError(found["a"]).of(ends) == pytest.approx(wanted, rel=0.1)


def test_an_image_with_large_gradients_does_not_decide_alone() -> None:
    rng = np.random.default_rng(0)
    parts = [drawn(rng, 500) for _ in range(5)]
    loud = [*parts[:4], (parts[4][0], 1e6 * parts[4][1])]
    histogram = histogram_of(np.concatenate([v for v, _ in parts]))
    plain, scaled = (weighted({"a": histogram}, ModelProto(), Given(p), {})[0]["a"] for p in (parts, loud))
    np.testing.assert_allclose(plain.counts, scaled.counts, rtol=1e-5, atol=1e-12)


def test_what_alone_counts_is_kept_however_rare() -> None:
    rng = np.random.default_rng(0)
    many = rng.normal(0.0, 1.0, 1_000_000).astype(np.float32)
    rare = np.array([14.0]).astype(np.float32)
    values = np.concatenate([many, rare])
    gradients = (np.abs(values) > 8).astype(np.float32)
    histogram = histogram_of(values)
    assert chosen_range(histogram, RangeMethod.MSE)[1] < 10.0
    found, _ = weighted({"a": histogram}, ModelProto(), Given([(values, gradients)]), {})
    assert chosen_range(found["a"], RangeMethod.MSE)[1] > 13.0


@pytest.mark.parametrize("gradient", [0.0, np.nan, np.inf])
def test_gradients_that_say_nothing_change_nothing(gradient: float) -> None:
    values, _ = drawn(np.random.default_rng(0), 500)
    histogram = histogram_of(values)
    part = (values, np.full_like(values, gradient))
    found, _ = weighted({"a": histogram, "b": histogram}, ModelProto(), Given([part]), {})
    assert found["a"].counts.tolist() == found["b"].counts.tolist() == histogram.counts.tolist()


class Spots(nn.Module):
    """What is brighter than 8, and by how much; nothing else reaches the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1)
        for layer in (self.first, self.second):
            nn.init.dirac_(layer.weight)
        nn.init.constant_(self.second.bias, -8.0)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(functional.relu(self.first(x))))


def scenes(count: int, seed: int, *, every: int) -> Tensor:
    """Noise, and a single bright value in each ``every`` images."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *SHAPE, generator=generator)
    images[::every, 1, 20, 30] = 13.0 + torch.rand(len(images[::every]), generator=generator)
    return images


@pytest.mark.parametrize("seed", range(3))
def test_rare_objects_outlast_8_bits_and_a_seed_gives_one_file(tmp_path: Path, seed: int) -> None:
    source = written(Spots(), tmp_path / "a.onnx", SHAPE)
    images, judged = scenes(64, seed, every=32), scenes(16, 100 + seed, every=1)
    plain = IntegerSettings(form=FORM)
    source_of = OutputGradients.of(source, ImageBatch(images=images, labels=None), seed)
    weighed = replace(plain, gradients=source_of)
    errors, reports = [], []
    (wanted,) = parity.run_onnx(source, judged, threads=1)
    for number, how in enumerate((plain, weighed, weighed)):
        path = tmp_path / f"{number}.onnx"
        reports.append(quantize_integers(source, path, images, how))
        (found,) = parity.run_onnx(path, judged, threads=1)
        errors.append(float(np.square(found - wanted).sum() / np.square(wanted).sum()))
    assert [r.gradient_images for r in reports] == [0, 64, 64]
    assert errors[0] > 0.2  # most of a spot is cut off
    assert errors[1] < 0.02
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


def test_gradients_of_a_file_are_those_of_its_network(tmp_path: Path) -> None:
    """Of the last layer, which is linear, by hand: that of its output, times its weight."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 1))
    source = written(module, tmp_path / "a.onnx", SHAPE)
    model = load_float(source)
    batch = ImageBatch(images=torch.randn(12, *SHAPE), labels=None)
    traced = list(OutputGradients.of(source, batch, 0).trace(model.proto))
    assert sum(count for count, _ in traced) == 12
    (last,) = [node for node in model.proto.graph.node if node.op_type == "Conv"][-1:]
    weight = module[2].weight.detach().numpy()[:, :, 0, 0]
    for _, tensors in traced:
        assert set(model.shapes) <= set(tensors)
        (_, inner), (_, outer) = tensors[last.input[0]], tensors[last.output[0]]
        np.testing.assert_allclose(inner, np.einsum("bohw,oi->bihw", outer, weight), rtol=1e-3, atol=1e-6)
    values = np.concatenate([tensors[last.input[0]][0] for _, tensors in traced])
    seen = {last.input[0]: (float(values.min()), float(values.max()))}
    counted = histograms(model, seen, batch.images, IntegerSettings(form=FORM))
    moved = np.abs(counted[last.input[0]].counts - histogram_of(values).counts).sum()
    assert moved <= 1e-3 * values.size  # by rounding, at the borders of bins


def test_a_file_without_gradients_counts_all_values_alike_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    source = written(Spots(), tmp_path / "a.onnx", SHAPE)
    images = scenes(16, 0, every=8)
    plain, failing = tmp_path / "plain.onnx", tmp_path / "failing.onnx"
    quantize_integers(source, plain, images, IntegerSettings(form=FORM))
    monkeypatch.setattr(OutputGradients, "of", lambda *_: Failing())
    runner = runner_on(load_target("host"), None, RunSettings(threads=1, batch_size=1, seed=0))
    report = write_quantized(
        source, failing, ImageBatch(images=images, labels=None), IntegerSettings(form=FORM),
        precision=Precision.INT8, runner=runner,
    )  # fmt: skip
    assert isinstance(report, IntegerReport)
    assert (report.gradient_images, report.no_gradients) == (0, "an operator that nobody knows")
    assert any("without gradients: an operator" in note for note in notes_of(report, runner))
    assert plain.read_bytes() == failing.read_bytes()


@pytest.mark.parametrize("kinds", [("bool",), ("bool", "float"), ("int", "float"), ("int",)])
def test_outputs_without_gradients_are_left_out(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            scores = self.last(torch.relu(self.first(x))).mean((2, 3))
            found = {"bool": scores > 0, "int": scores.argmax(1), "float": scores}
            return tuple(found[kind] for kind in kinds)

    torch.manual_seed(0)
    source = written(Answers(), tmp_path / "a.onnx", SHAPE)
    images = torch.randn(12, *SHAPE)
    source_of = OutputGradients.of(source, ImageBatch(images=images, labels=None), 0)
    settings_ = IntegerSettings(form=FORM, gradients=source_of)
    report = quantize_integers(source, tmp_path / "b.onnx", images, settings_)
    if "float" in kinds:
        assert (report.gradient_images, report.no_gradients) == (12, None)
    else:
        assert report.no_gradients == "no output is of floating-point numbers"


def test_outputs_of_other_numbers_of_rows_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """NonZero tells places of values: as many rows as there are axes, whatever the images."""
    source = written(Spots(), tmp_path / "a.onnx", SHAPE)
    proto = onnx.load(source)
    proto.graph.node.append(onnx.helper.make_node("NonZero", [proto.graph.output[0].name], ["places"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("places", onnx.TensorProto.INT64, [4, "k"]))
    onnx.save(proto, source)
    images = tmp_path / "images.npz"
    np.savez(images, images=scenes(24, 0, every=1).numpy())
    with pytest.raises(QuantizationError, match=r"outputs of 4 and 6 rows for 6 images"):
        edgeprune.quantize(source, calibration=images, output=tmp_path / "b.onnx", threads=1)
    assert not (tmp_path / "b.onnx").exists()
