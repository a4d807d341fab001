"""Networks of many shapes with pieces in 8 bits, and in 32 with stored weights: they run, and stay near."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from onnx_models import IMAGE, written

from edgeprune import parity
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.int8 import calibrate, write_integers
from edgeprune.quantization.passes import stored_weights
from edgeprune.quantization.segments import segments
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.targets import load_target

TOYS = (
    *("residual_add", "concat", "depthwise", "grouped_convolution", "squeeze_excitation", "channel_shuffle"),
    *("used_twice", "pixel_shuffle", "tokens", "channels_last", "concat_flatten_linear"),
)


@pytest.mark.parametrize("toy", TOYS)
def test_any_mixture_runs_and_is_near_the_network_in_32_bits(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_weights, "LEAST_VALUES", 1)
    torch.manual_seed(0)
    module = getattr(networks, toy)()
    networks.randomise(module, IMAGE)
    path, made = written(module.float(), tmp_path / "toy.onnx"), tmp_path / "made.onnx"
    images = torch.randn(32, *IMAGE, generator=torch.Generator().manual_seed(0))
    known = calibrate(path, images, IntegerSettings(form=integer_format(load_target("host"))))
    before, rng = parity.run_onnx(path, images, threads=1), np.random.default_rng(0)
    for pieces_in_8_bits in (0.0, 0.5):
        left = [piece for piece in segments(known.model) if rng.random() >= pieces_in_8_bits]
        stored = frozenset(name for piece in left for name in piece.nodes)
        report = write_integers(known, made, frozenset(), stored)
        assert set(report.stored) <= stored
        if not pieces_in_8_bits:
            assert report.stored
            assert not report.nodes
        errors = [
            np.square(exact - rounded).sum() / np.square(exact).sum()
            for exact, rounded in zip(before, parity.run_onnx(made, images, threads=1), strict=True)
        ]
        assert max(errors) < (0.05 if pieces_in_8_bits else 0.002)
        assert min(errors) > 0
