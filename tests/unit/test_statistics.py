"""Channel statistics of the original network: exact where single precision alone would fail."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgeprune.graph.capture import capture
from edgeprune.graph.coupling import couple
from edgeprune.graph.masking import mask_module
from edgeprune.graph.statistics import channel_statistics


def test_small_spread_beside_a_large_mean_stays_positive_definite() -> None:
    """An image of nearly one colour through a bias of 1,000: what a freshly initialised deep network does."""
    first = nn.Conv2d(1, 12, 1)
    with torch.no_grad():
        first.weight.normal_(std=0.05)
        first.bias.fill_(1000.0)
    captured = capture(nn.Sequential(first, nn.Conv2d(12, 3, 1), nn.Flatten(), nn.Linear(48, 2)), (1, 4, 4))
    coupling = couple(captured)
    images = 1e-2 * torch.randn((70, 1, 4, 4))
    found = channel_statistics(captured, coupling, images, images_at_once=16)
    for (source, dim), (mean, covariance) in found.items():
        assert mean.shape == covariance.shape[:1]
        scale = float(covariance.abs().max())
        assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-6 * scale, (source, dim)
    with torch.no_grad():
        values = first(images).movedim(1, 0).flatten(1).double().numpy()
    mean, covariance = next(v for v in found.values() if len(v[0]) == 12)
    np.testing.assert_allclose(mean.numpy(), values.mean(1), rtol=1e-6)
    exact = np.cov(values, bias=True)
    np.testing.assert_allclose(covariance.numpy(), exact, atol=1e-4 * exact.max())
    masked = mask_module(captured, coupling, found)
    for point in (m for m in masked.modules() if hasattr(m, "set_coalition")):
        present = torch.ones(coupling.num_players + 1, dtype=torch.bool)
        present[::2] = False
        present[-1] = True
        point.set_coalition(present)
