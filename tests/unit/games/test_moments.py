"""Second moments: what errors at the mask points do to the outputs, against the outputs themselves."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.errors import CalibrationError
from edgeprune.fx import tensor_leaves
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.ranking import RankingOptions, rank
from edgeprune.outputs.units import relative_errors, units_of
from edgeprune.pruning.masking import mask_module
from edgeprune.shapley.quadratic import QuadraticGame

IMAGES = 64


def game_of(
    module: nn.Module, shape: tuple[int, ...], *, reconstruct: bool = True, count: int = IMAGES
) -> tuple:
    captured = capture(module.eval(), shape)
    coupling = couple(captured)
    images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(images))
    statistics = channel_statistics(captured, coupling, images) if reconstruct else None
    masked = mask_module(captured, coupling, statistics)
    batch = ImageBatch(images=images, labels=None)
    return coupling, MaskedGame(masked, coupling.num_players, batch, reference), reference


def linear_network(seed: int, *, outputs: int = 5, images: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    # For images as many inputs as channels: in units of their spread, outputs that hardly differ count as
    # much as others, and so would the ridge on what channels of fewer inputs cannot do.
    layers = [nn.Conv2d(8 if images else 3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, outputs, 1)]
    return nn.Sequential(*layers) if images else nn.Sequential(*layers, nn.Flatten())


@pytest.mark.parametrize("as_classes", [True, False], ids=["class scores", "images"])
def test_the_model_tells_the_squared_change_of_a_linear_network(as_classes):
    shape = (3, 1, 1) if as_classes else (8, 1, 1)
    coupling, game, reference = game_of(linear_network(1, images=not as_classes), shape)
    rng = np.random.default_rng(0)
    moments = game.second_moments()
    everyone = np.ones(game.num_players, dtype=bool)
    for _ in range(400):
        moments.add(everyone, np.arange(IMAGES), rng)
    for group in coupling.groups:
        players = np.array(group.players)
        places = tuple(p for p in moments.places() if np.isin(p.players, players).any())
        removed = players[: len(players) - 1]
        coalition = everyone.copy()
        coalition[removed] = False
        outputs, _ = game.outcome(coalition)
        change = outputs[0] - reference[0].numpy()
        if as_classes:
            change = change - change.mean(axis=1, keepdims=True)
            expected = np.square(change).sum(axis=1).mean()
        else:
            exact = reference[0].numpy()
            expected = relative_errors([exact], [outputs[0]], [units_of(exact)]).mean()
        predicted = -QuadraticGame(places, players).values(coalition[players][None])[0, 0]
        assert predicted == pytest.approx(expected, rel=0.1 if as_classes else 0.2)


def test_a_position_more_counts_as_often_as_it_moves_the_outputs():
    """The same value at every position: errors add up as amplitudes, which a sum of squares would miss."""

    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.first(x.expand(-1, -1, 4, 4))).mean((2, 3)))

    _, game, reference = game_of(Spread(), (3, 1, 1))
    moments = game.second_moments()
    rng = np.random.default_rng(0)
    for _ in range(200):
        moments.add(np.ones(6, dtype=bool), np.arange(IMAGES), rng)
    coalition = np.array([False, True, True, True, True, True])
    outputs, _ = game.outcome(coalition)
    change = outputs[0] - reference[0].numpy()
    expected = np.square(change - change.mean(1, keepdims=True)).sum(1).mean()
    found = -QuadraticGame(moments.places(), np.arange(6)).values(coalition[None])[0, 0]
    assert found == pytest.approx(expected, rel=0.6)  # a factor of 16 without the correction


def test_without_reconstruction_nobody_is_told_in_full():
    _, game, _ = game_of(nets.chain(), nets.IMAGE, reconstruct=False)
    moments = game.second_moments()
    moments.add(np.ones(game.num_players, dtype=bool), np.arange(8), np.random.default_rng(0))
    assert moments.places() == ()
    assert moments.masked_players().all()
    assert (moments.squares() >= 0).all()
    assert moments.squares().max() > 0


def test_a_copied_channel_leaves_for_nothing_though_its_own_value_is_high():
    module = nets.chain()
    first = module[0]
    with torch.no_grad():
        for tensor in (*first[0].parameters(), *first[1].parameters()):
            tensor[3] = tensor[5]
        for name in ("running_mean", "running_var"):
            getattr(first[1], name)[3] = getattr(first[1], name)[5]
    # That a copy is one, not two channels alike by chance, takes images to tell.
    coupling, game, _ = game_of(module, nets.IMAGE, count=4 * IMAGES)
    options = RankingOptions(samples=64, cost_samples=128, cost_q_low=1.0, exact_players=0)
    found = rank(game, coupling.groups, rng=np.random.default_rng(0), options=options)
    group = next(g for g in coupling.groups if len(g.players) == 8)
    costs = found.removal_costs[list(group.players)]
    least = int(np.argmin(costs))
    assert least in (3, 5)
    assert costs[least] < 0.02 * np.sort(costs)[1]


def test_the_same_generator_gives_the_same_costs():
    coupling, game, _ = game_of(nets.residual_add(), nets.IMAGE)
    options = RankingOptions(samples=64, cost_samples=96)

    def run(seed: int) -> np.ndarray:
        return rank(game, coupling.groups, rng=np.random.default_rng(seed), options=options).removal_costs

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_gradients_that_are_no_numbers_are_refused():
    """A norm without an epsilon is 0 where all is, and has no derivative there."""

    class Rooted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.first, self.last = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values = self.first(torch.relu(self.stem(x)))
            return self.last(torch.sqrt((values * (values > 0)).square()))

    coupling, game, _ = game_of(Rooted(), (3, 4, 4))
    with pytest.raises(CalibrationError, match=r"gradients .* are NaN or infinite"):
        rank(game, coupling.groups, rng=np.random.default_rng(0), options=RankingOptions(samples=32))
