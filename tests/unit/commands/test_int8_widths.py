"""Widths of networks in 8 bits are multiples of what the target's kernels in 8 bits compute at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import edgeprune
from edgeprune.artifacts.quantization import Precision
from edgeprune.quantization.formats import integer_format
from edgeprune.targets import TargetProfile, list_targets, load_target

WIDE = 64


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, WIDE, 3),
        nn.ReLU(),
        nn.Conv2d(WIDE, WIDE, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(WIDE * 16, 4),
    )


@pytest.mark.parametrize("target", list_targets())
def test_kernels_of_signed_bytes_with_dot_products_compute_16_channels(target: str) -> None:
    profile = load_target(target)
    arm = (profile.isa or "").startswith("arm")
    signed = arm and bool(profile.dot_product)
    assert signed is (arm and integer_format(profile).signed_activations)
    assert profile.quantum_in(Precision.INT8) == (16 if signed else profile.width_quantum)
    for precision in set(Precision) - {Precision.INT8}:
        assert profile.quantum_in(precision) == profile.width_quantum


@pytest.mark.parametrize(
    ("target", "precision", "step"),
    [
        ("rpi5", Precision.INT8, 16),
        ("rpi5", Precision.FP32, 4),
        ("rpi4", Precision.INT8, 4),
    ],
)
@pytest.mark.parametrize("goal", [{"ratio": 0.4}, pytest.param({"max_macs": "60%"}, marks=pytest.mark.wide)])
def test_widths_of_a_run(
    target: str, precision: Precision, step: int, goal: dict[str, object], tmp_path: Path
) -> None:
    report = edgeprune.compress(
        network(), calibration=torch.rand(48, 3, 8, 8), target=target, precision=precision,
        effort=edgeprune.Effort.QUICK, pictures=False, threads=1, output=tmp_path / "out", **goal,
    )  # fmt: skip
    kept = [layer.channels_after for layer in report.pruning.layers if layer.channels_before == WIDE]
    assert any(width < WIDE for width in kept)
    assert all(width % step == 0 for width in kept)
    assert report.pruning.width_quantum == step
    assert any(f"steps of {step}, as kernels" in note for note in report.notes) is (step == 16)


def test_what_is_asked_for_goes_first(tmp_path: Path) -> None:
    report = edgeprune.compress(
        network(), calibration=torch.rand(48, 3, 8, 8), target="rpi5", precision=Precision.INT8, ratio=0.4,
        width_quantum=8, effort=edgeprune.Effort.QUICK, pictures=False, threads=1, output=tmp_path / "out",
    )  # fmt: skip
    assert report.pruning.width_quantum == 8
    assert not any("as kernels" in note for note in report.notes)


def test_without_a_step_of_its_own_8_bits_have_that_of_32() -> None:
    profile: TargetProfile = replace(load_target("rpi5"), int8_width_quantum=None)
    assert profile.quantum_in(Precision.INT8) == profile.width_quantum
