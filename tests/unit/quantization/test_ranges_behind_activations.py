"""Ranges of what an activation alone reads are chosen by the error behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import written
from torch import nn

from edgeprune.artifacts.quantization import RangeMethod
from edgeprune.quantization.preparation import load_float
from edgeprune.quantization.ranges.calibration import Histogram
from edgeprune.quantization.ranges.choice import activations_behind, chosen_range


def silu(values: np.ndarray) -> np.ndarray:
    return values / (1.0 + np.exp(-values))


@given(
    seed=st.integers(0, 10_000),
    spread=st.floats(0.5, 12.0),
    shift=st.floats(-12.0, 4.0),
    tail=st.floats(1, 3),
)
@settings(max_examples=30, deadline=None)
def test_the_error_behind_the_activation_is_no_larger_than_by_the_values_themselves(
    seed: int, spread: float, shift: float, tail: float
) -> None:
    values = (shift + spread * np.random.default_rng(seed).standard_t(3 * tail, 4000)).astype(np.float32)
    histogram = Histogram(low=float(values.min()), high=float(values.max()))
    histogram.add(values)

    def error(ends: tuple[float, float]) -> float:
        scale = (ends[1] - ends[0]) / 255
        zero = round(-ends[0] / scale)
        told = (np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale
        return float(np.square(silu(told) - silu(values.astype(float))).mean())

    plain = chosen_range(histogram, RangeMethod.MSE)
    behind = chosen_range(histogram, RangeMethod.MSE, silu)
    assert error(behind) <= 1.1 * error(plain) + 1e-12


@pytest.mark.parametrize(
    ("activation", "count"),
    [(nn.SiLU(), 2), (nn.Hardswish(), 2), (nn.Sigmoid(), 2), (nn.ReLU(), 0), (nn.Tanh(), 0)],
    ids=lambda given: type(given).__name__,
)
def test_activations_are_told_by_their_readers(tmp_path: Path, activation: nn.Module, count: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), activation, nn.Conv2d(8, 8, 3), activation, nn.Conv2d(8, 4, 1))
    model = load_float(written(module, tmp_path / "a.onnx", (3, 16, 16)))
    behind = activations_behind(model)
    assert len(behind) == count
    values = np.linspace(-9.0, 9.0, 50)
    for name, found in behind.items():
        expected = activation(torch.from_numpy(values)).numpy()
        np.testing.assert_allclose(found.function(values), expected, atol=1e-9)
        assert model.shapes[found.output] == model.shapes[name]
        assert name not in {each.output for each in behind.values()}


def test_a_tensor_that_others_read_too_is_chosen_by_its_values(tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            return self.last(nn.functional.silu(h)) + h

    torch.manual_seed(0)
    assert activations_behind(load_float(written(Both(), tmp_path / "b.onnx", (3, 16, 16)))) == {}
