"""Ranges and scales of 8 bits for values of every size that 32-bit numbers have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx_models import IMAGE, branches
from onnxruntime.quantization.quant_utils import compute_scale_zp

from edgeprune import parity
from edgeprune.artifacts.quantization import IntegerFormat, RangeMethod
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.ranges.calibration import BINS, Histogram
from edgeprune.quantization.ranges.choice import chosen_range
from edgeprune.quantization.ranges.scales import fault_of_range
from edgeprune.quantization.settings import IntegerSettings

LARGEST = float(np.finfo(np.float32).max)
SIZES = st.floats(1e-44, 1e38)
FORMAT = IntegerFormat(signed_activations=False, reduce_range=False, reason="a test")


@st.composite
def seen_values(draw: st.DrawFn) -> np.ndarray:
    """Values of an activation: spread, nearly constant, constant, few or whole numbers, of any size."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    count = draw(st.integers(1, 400))
    kind = draw(st.sampled_from(("spread", "nearly constant", "constant", "two", "whole", "positive")))
    values = {
        "spread": rng.standard_t(2, count),
        "nearly constant": 1.0 + rng.integers(0, 3, count) * 2.0**-23,
        "constant": np.full(count, rng.choice([-1.0, 0.0, 1.0])),
        "two": rng.choice([-0.5, 1.0], count),
        "whole": rng.integers(-9, 9, count) / 9.0,
        "positive": np.maximum(rng.normal(size=count), 0.0),
    }[kind]
    return np.clip(values * draw(SIZES), -LARGEST, LARGEST).astype(np.float32)


def histogram_of(values: np.ndarray) -> Histogram:
    found = Histogram(low=float(values.min()), high=float(values.max()))
    found.add(values)
    return found


@given(values=seen_values(), method=st.sampled_from(RangeMethod))
@settings(max_examples=80)
@example(values=np.array([1.0, 1.0 + 2.0**-23], np.float32), method=RangeMethod.MSE)
@example(values=np.array([1e-45, 3e-45], np.float32), method=RangeMethod.PERCENTILE)
@example(values=np.array([-LARGEST, LARGEST], np.float32), method=RangeMethod.MSE)
def test_every_range_is_sound_or_has_a_reason(values: np.ndarray, method: RangeMethod) -> None:
    histogram = histogram_of(values)
    low, high = histogram.low, histogram.high
    assert histogram.counts.sum() == (len(values) if high > low else 0)
    below, above = chosen_range(histogram, method)
    assert min(0.0, low) <= below <= 0.0 <= above <= max(0.0, high)
    if low == high:
        assert (below, above) == (min(0.0, low), max(0.0, low))
    reason = fault_of_range((below, above))
    zero, scale = compute_scale_zp(
        np.array(below, np.float32), np.array(above, np.float32), np.array(0), np.array(255)
    )
    if reason is not None:
        assert scale == 1.0 or above - below > LARGEST / 2
        return
    with np.errstate(over="raise"):
        told = (np.clip(np.round(values / scale) + zero, 0, 255) - zero).astype(np.float32) * scale
    inside = (values >= below) & (values <= above)
    assert np.isfinite(told).all()
    assert (np.abs(told - values)[inside] <= 1.01 * float(scale)).all()


@given(values=seen_values(), power=st.integers(-60, 60), method=st.sampled_from(RangeMethod))
@settings(max_examples=50)
def test_the_unit_of_the_values_changes_no_share(values: np.ndarray, power: int, method: RangeMethod) -> None:
    histogram = histogram_of(values)
    factor = 2.0**power
    other = Histogram(low=histogram.low * factor, high=histogram.high * factor, counts=histogram.counts)
    found = tuple(end * factor for end in chosen_range(histogram, method))
    assert chosen_range(other, method) == found


@given(seed=st.integers(0, 1000), size=SIZES, span=st.floats(1e-7, 2.0))
@settings(max_examples=30)
def test_bins_are_those_of_exact_arithmetic(seed: int, size: float, span: float) -> None:
    rng = np.random.default_rng(seed)
    values = (size * (1.0 + span * rng.uniform(size=300))).astype(np.float32)
    found = histogram_of(values)
    if found.high > found.low:
        places = (values.astype(np.longdouble) - found.low) / (np.longdouble(found.high) - found.low) * BINS
        exact = np.bincount(np.minimum(places, BINS - 1).astype(int), minlength=BINS)
        # One that lies on an edge may count on either side of it.
        assert np.abs(np.cumsum(found.counts) - np.cumsum(exact)).max() <= (places % 1 < 1e-6).sum()


def test_values_beyond_the_known_range_count_at_its_ends() -> None:
    found = Histogram(low=0.0, high=1.0)
    found.add(np.array([-3e38, -1.0, 0.5, 1.0, 2.0, 3e38], np.float32))
    assert (found.counts[0], found.counts[-1], found.counts.sum()) == (2, 3, 6)


@pytest.mark.parametrize(
    ("size", "equalized"),
    [*((size, True) for size in (1e-44, 1e-36, 1e-20, 1e30, 1e37)), (1e-40, False), (1e20, False)],
)
def test_a_layer_of_any_size_is_in_8_bits_or_stays_with_its_reason(
    tmp_path: Path, size: float, equalized: bool
) -> None:
    path, images = branches(tmp_path / "net.onnx", {"scaled": size}), torch.rand(16, *IMAGE)
    report = quantize_integers(
        path, tmp_path / "q.onnx", images, IntegerSettings(form=FORMAT, equalized=equalized)
    )
    exact, found = (parity.run_onnx(p, images, threads=1)[0] for p in (path, tmp_path / "q.onnx"))
    assert np.abs(found - exact).max() <= 0.05 * np.abs(exact).max()
    if 1e-30 <= size <= 1e30:
        assert report.unscaled == {}
    if size < 1e-39 or size > 1e36:
        assert {"scaled", "scaled.back"} & set(report.unscaled)
        assert all("32-bit number" in reason for reason in report.unscaled.values())
    assert set(report.unscaled) <= set(report.kept_float)
    assert report.nodes["Conv"] >= 2
    scales = [i for i in onnx.load(str(tmp_path / "q.onnx")).graph.initializer if i.name.endswith("_scale")]
    assert all(onnx.numpy_helper.to_array(i).min() >= np.finfo(np.float32).tiny for i in scales)
