"""Batches with gradients come in parts that hold little: the same figures, less memory."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeprune.accelerator import even_parts
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.fx import tensor_leaves
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.games.masked_game import MaskedGame
from edgeprune.games.saved_memory import saved_bytes_per_image
from edgeprune.pruning.masking import mask_module

IMAGES = 12


@given(count=st.integers(1, 300), most=st.integers(1, 320))
def test_parts_cover_a_batch_once_are_even_and_no_more_than_needed(count, most):
    parts = even_parts(count, most)
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    sizes = {part.stop - part.start for part in parts}
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == -(-count // most)


def test_what_an_image_keeps_is_counted_without_the_weights():
    images = torch.randn(2, 3, 8, 8)
    conv = nn.Conv2d(3, 64, 1)

    def run(count: int) -> torch.Tensor:
        return torch.exp(conv(images[:count].clone())).sum()

    # The convolution keeps its input, the exponential its result, both in single precision.
    assert saved_bytes_per_image(run) == 4 * (3 * 64 + 64 * 64)


@pytest.mark.parametrize("reconstruct", [True, False], ids=["reconstructing", "masking"])
@pytest.mark.parametrize("factory", [nets.chain, nets.residual_add, nets.depthwise])
def test_parts_change_no_figure(factory, reconstruct):
    captured = capture(factory().eval(), nets.IMAGE)
    coupling = couple(captured)
    images = torch.randn(IMAGES, *nets.IMAGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(images))
    statistics = channel_statistics(captured, coupling, images) if reconstruct else None
    masked = mask_module(captured, coupling, statistics)
    batch = ImageBatch(images=images, labels=None)
    drawn = np.random.default_rng(1).random(coupling.num_players) < 0.7
    found = []
    for limit in (1, 2**40):
        game = MaskedGame(masked, coupling.num_players, batch, reference, gradient_bytes=limit)
        chosen = np.arange(IMAGES)
        gains = game.marginals(np.broadcast_to(drawn, (IMAGES, len(drawn))), chosen)
        moments = game.second_moments()
        moments.add(drawn, chosen, np.random.default_rng(2))
        places = moments.places()
        assert game.evaluations == 2
        found.append((gains, moments.squares(), [p.metric for p in places]))
    (gains, squares, metrics), (whole, whole_squares, whole_metrics) = found
    scale = np.abs(whole).max()
    assert scale > 0
    np.testing.assert_allclose(gains, whole, atol=1e-5 * scale)
    np.testing.assert_allclose(squares, whole_squares, rtol=1e-3, atol=1e-5 * whole_squares.max())
    for one, other in zip(metrics, whole_metrics, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())
    assert bool(metrics) == reconstruct
