"""Rows of detectors are read where the outputs feel errors; those of classifiers evenly."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
import torch
from test_recovery import trial
from torch import Tensor, nn

from edgeprune.capture.capture import capture
from edgeprune.recovery import row_sampling
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.recovery.row_sampling import EVEN_SHARE, drawn_positions, position_weights

IMAGE = (3, 16, 16)


class Spots(nn.Module):
    """Scores of each position: what is bright in its neighbourhood, through layers that may be cut."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        self.pooled = pooled
        self.first, self.second = nets.conv_bn(3, 24), nets.conv_bn(24, 24)
        self.scores = nn.Conv2d(24, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of scores, or their means, which are class scores."""
        found = torch.sigmoid(self.scores(self.second(self.first(x))) - 4.0)
        return found.mean((2, 3)) if self.pooled else found


def scenes(count: int, seed: int) -> Tensor:
    """Faint noise and one small bright object in each image."""
    rng = torch.Generator().manual_seed(seed)
    images = 0.2 * torch.randn(count, *IMAGE, generator=rng)
    for image in images:
        row, column = torch.randint(2, 12, (2,), generator=rng).tolist()
        image[:, row : row + 2, column : column + 2] += 2.0 * torch.randn(3, 1, 1, generator=rng)
    return images


def test_half_of_the_rows_are_drawn_evenly_and_half_by_weight() -> None:
    weights = torch.ones(4, 50)
    weights[1, 7] = 200.0
    rows = drawn_positions(weights, 40_000, torch.Generator().manual_seed(0))
    counts = np.bincount(rows.numpy(), minlength=200) / 40_000
    chance = weights.flatten().numpy() / float(weights.sum())
    np.testing.assert_allclose(counts, EVEN_SHARE / 200 + (1 - EVEN_SHARE) * chance, atol=0.006)
    assert (rows[1:] >= rows[:-1]).all()


def test_weights_are_those_of_positions_that_the_outputs_feel() -> None:
    """An output that reads one corner alone: nothing else has a gradient."""

    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x)))[:, :, :2, :3]

    torch.manual_seed(0)
    graph = capture(Corner().eval(), IMAGE).graph_module
    images = nets.split(torch.randn(20, *IMAGE))
    chunks = [places for places, _ in images.chunks(8)]
    name = next(n.name for n in graph.graph.nodes if n.name.startswith("conv2d"))
    found = list(position_weights(graph, images, chunks, {name: "conv2d"}, torch.Generator().manual_seed(0)))
    assert [index for _, index, _ in found] == list(range(len(chunks)))
    for _, index, weights in found:
        assert weights.shape == (len(chunks[index]), 256)
        torch.testing.assert_close(weights.mean(1), torch.ones(len(weights)), rtol=1e-4, atol=0.0)
        maps = weights.view(-1, 16, 16)
        assert float(maps[:, 2:].abs().max()) == float(maps[:, :, 3:].abs().max()) == 0.0


def test_class_scores_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> Tensor:
        raise AssertionError("positions of a classifier were weighed")

    case = trial(Spots(pooled=True), scenes(48, 0))
    monkeypatch.setattr("edgeprune.recovery.network_pair.drawn_positions", forbidden)
    _recovered(case, scenes(48, 0))


def test_objects_are_recovered_better_by_rows_that_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Squared error of scores where there is an object, on other images, over five networks."""
    ratios = []
    for seed in range(5):
        torch.manual_seed(seed)
        case = trial(Spots(), scenes(8, seed))
        images, unseen = scenes(64, seed), scenes(64, 1000 + seed)
        errors = []
        for share in (1.0, EVEN_SHARE):
            monkeypatch.setattr(row_sampling, "EVEN_SHARE", share)
            network = _recovered(case, images)
            with torch.no_grad():
                wanted, found = case.captured.graph_module(unseen), network(unseen)
            weight = (wanted - wanted.median()).square()
            errors.append(float(((wanted - found).square() * weight).sum() / weight.sum()))
        ratios.append(errors[1] / errors[0])
    assert np.exp(np.mean(np.log(ratios))) < 0.97


def _recovered(case, images: Tensor) -> nn.Module:
    return reconstruct(
        case.captured.graph_module, case.pruned, case.coupling, case.removed, nets.split(images),
        generator=torch.Generator().manual_seed(0),
    )[0]  # fmt: skip
