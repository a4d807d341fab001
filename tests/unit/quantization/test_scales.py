"""What 8-bit scales cannot hold stays in 32 bits, so that onnxruntime runs every file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_models import written
from torch import nn

from edgeprune import parity
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.settings import IntegerSettings

FORMAT = IntegerFormat(signed_activations=False, reduce_range=False, reason="a test")


ENDS = {
    "mean": lambda y: y.mean((2, 3)),
    "pool and view": lambda y: nn.functional.adaptive_avg_pool2d(y, 1).view(-1, 8),
    "pool and squeeze": lambda y: nn.functional.adaptive_avg_pool2d(y, 1).squeeze(-1).squeeze(-1),
    "whole pool": lambda y: nn.functional.avg_pool2d(y, 16).flatten(1),
    "pool, relu, pool": lambda y: nn.functional.adaptive_avg_pool2d(
        torch.relu(nn.functional.adaptive_avg_pool2d(y, 1)), 1
    ).view(-1, 8),
}


class Normalised(nn.Module):
    """A normalised map, whose mean depends on the image by as much as ``share`` of the map before."""

    def __init__(self, share: float, end: str) -> None:
        super().__init__()
        self.end = ENDS[end]
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8)
        self.last = nn.Linear(8, 4)
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = self.first(x)
        return self.last(self.end(self.norm(own) + self.share * own))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("share", [0.0, 1e-7, 1e-5, 1e-3, 0.03, 1.0])
def test_means_of_normalised_maps_run(share: float, end: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = written(Normalised(share, end), tmp_path / "m.onnx", (3, 16, 16))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 3, 16, 16, generator=generator) + torch.randn(40, 3, 1, 1, generator=generator)
    report = quantize_integers(path, tmp_path / "q.onnx", images, IntegerSettings(form=FORMAT))
    kept = [reason for reason in report.unscaled.values() if "out of proportion" in reason]
    assert bool(kept) == (share < 1e-4)
    found, expected = (parity.run_onnx(p, images, threads=1)[0] for p in (tmp_path / "q.onnx", path))
    assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()
