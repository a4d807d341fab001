"""Channel statistics of the original network: exact where single precision alone would fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.pruning.masking import mask_module


def shrinkage_by_definition(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Covariance of values (images, channels, positions), and variance over square off its diagonal."""
    centred = values - values.mean((0, 2))[:, None]
    each = centred @ centred.transpose(0, 2, 1) / values.shape[2]
    covariance = each.mean(0)
    others = ~np.eye(len(covariance), dtype=bool)
    variance = each.var(axis=0, ddof=1)[others].sum() / len(values)
    return covariance, float(min(1.0, variance / np.square(covariance[others]).sum()))


class Features(nn.Module):
    """Channels given as the image, read by two layers behind global pooling or at every position."""

    def __init__(self, channels: int, *, pooled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(channels, channels, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(channels)[:, :, None, None])
        self.last = nn.Linear(channels, 3) if pooled else nn.Conv2d(channels, 3, 1)
        self.pooled = pooled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.first(x)
        return self.last(found.mean((2, 3))) if self.pooled else self.last(found)


def covariance_of(images: torch.Tensor, *, pooled: bool, images_at_once: int = 16) -> torch.Tensor:
    """Of the channels where the last layer reads them."""
    captured = capture(Features(images.shape[1], pooled=pooled).eval(), tuple(images.shape[1:]))
    found = channel_statistics(captured, couple(captured), images, images_at_once=images_at_once)
    ((_, covariance),) = found.values()
    return covariance


def drawn(count: int, channels: int, seed: int, *, size: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose pixels are channels of a known covariance, a few factors and noise, and it."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(channels, 5, generator=torch.Generator().manual_seed(99))
    hidden = torch.randn(count, 5, size, size, generator=generator)
    noise = torch.randn(count, channels, size, size, generator=generator)
    return torch.einsum("cf,nfhw->nchw", factors, hidden) + noise, factors @ factors.T + torch.eye(channels)


def error_of_estimates(covariance: torch.Tensor, true: torch.Tensor) -> tuple[float, float]:
    """Predicted and real mean square of what a fifth of the channels are told wrong by the others."""
    lifted = covariance.double() + 1e-3 * torch.diagonal(covariance).mean() * torch.eye(len(covariance))
    true = true.double()
    out = torch.arange(len(covariance)) % 5 == 0
    weights = torch.linalg.solve(lifted[~out][:, ~out], lifted[~out][:, out])
    predicted = torch.diagonal(lifted[out][:, out]) - (weights * lifted[~out][:, out]).sum(0)
    real = (
        torch.diagonal(true[out][:, out])
        - 2 * (weights * true[~out][:, out]).sum(0)
        + (weights * (true[~out][:, ~out] @ weights)).sum(0)
    )
    return float(predicted.mean()), float(real.mean())


def test_few_images_do_not_express_channels_that_others_cannot_tell() -> None:
    """Of 120 channels and 60 images, 96 channels express the rest perfectly, on these images only."""
    images, true = drawn(60, 120, seed=1)
    values = images.flatten(2).double().numpy()
    sample, share = shrinkage_by_definition(values)
    predicted, real = error_of_estimates(torch.from_numpy(sample), true)
    assert predicted < 0.02 * real  # without shrinking, the removal of a fifth costs nothing
    shrunk = covariance_of(images, pooled=True)
    np.testing.assert_allclose(
        shrunk.numpy(), (1 - share) * sample + share * np.diag(np.diag(sample)), rtol=1e-3, atol=0.02
    )
    predicted, shrunk_real = error_of_estimates(shrunk, true)
    assert predicted == pytest.approx(shrunk_real, rel=0.35)
    assert shrunk_real < real  # better estimates, too


def test_many_images_are_taken_at_their_word() -> None:
    images, true = drawn(6000, 12, seed=2)
    shrunk = covariance_of(images, pooled=True, images_at_once=500)
    np.testing.assert_allclose(shrunk.numpy(), true.numpy(), atol=0.05 * float(true.max()))


def test_evidence_is_counted_in_images_and_not_in_positions() -> None:
    """The same pixel sixteen times over is no more context than once."""
    images, _ = drawn(40, 30, seed=3)
    once = covariance_of(images, pooled=False)
    np.testing.assert_allclose(
        covariance_of(images.expand(-1, -1, 4, 4).contiguous(), pooled=False).numpy(),
        once.numpy(),
        rtol=1e-4,
        atol=1e-5,
    )
    more = covariance_of(drawn(40, 30, seed=3, size=8)[0], pooled=False)
    others = ~np.eye(30, dtype=bool)
    assert np.abs(more.numpy()[others]).sum() > np.abs(once.numpy()[others]).sum()


def test_of_one_image_only_the_diagonal_is_kept() -> None:
    covariance = covariance_of(drawn(1, 6, seed=4, size=4)[0], pooled=False).numpy()
    assert (np.diag(covariance) > 0).all()
    np.testing.assert_array_equal(covariance, np.diag(np.diag(covariance)))


def test_more_positions_than_are_looked_at_tell_the_same() -> None:
    """Maps of 64 x 64 are looked at in 1,031 places."""
    images, true = drawn(48, 8, seed=5, size=64)
    found = covariance_of(images, pooled=False)
    np.testing.assert_allclose(found.numpy(), true.numpy(), atol=0.04 * float(true.max()))


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
    exact, share = shrinkage_by_definition(first(images).flatten(2).detach().double().numpy())
    expected = (1 - share) * exact + share * np.diag(np.diag(exact))
    np.testing.assert_allclose(covariance.numpy(), expected, atol=1e-4 * exact.max())
    masked = mask_module(captured, coupling, found)
    for point in (m for m in masked.modules() if hasattr(m, "set_coalition")):
        present = torch.ones(coupling.num_players + 1, dtype=torch.bool)
        present[::2] = False
        present[-1] = True
        point.set_coalition(present)
