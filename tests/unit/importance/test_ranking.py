"""Ranking: which estimator serves which group, what the loss is, how coalitions are drawn."""

from __future__ import annotations

from itertools import pairwise

import networks as nets
import numpy as np
import pytest
import torch

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import CoupledGroup
from edgeprune.artifacts.pruning import RankingMethod
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.fx import tensor_leaves
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.games.masked_game import LossKind, MaskedGame
from edgeprune.importance.ranking import (
    RankingOptions,
    inclusion_law,
    options_for,
    rank,
    rising,
    total_passes,
)
from edgeprune.pruning.masking import ChannelMask, ChannelReconstruction, mask_module
from edgeprune.shapley.estimators.exact import exact
from edgeprune.shapley.game import all_coalitions
from edgeprune.shapley.quadratic import QuadraticPlace
from edgeprune.shapley.subgame import SubGame

FEW = RankingOptions(samples=48, batch=8, exact_players=0)


def group(name: str, *players: int) -> CoupledGroup:
    return CoupledGroup(name=name, players=players, layers=(name,), consumers=())


class NoPlaces:
    """Moments of a game without reconstruction: every player's own square, and nothing else."""

    def __init__(self, game: PolynomialGame) -> None:
        self.game, self.coalitions, self.images = game, [], []

    def add(self, coalition: np.ndarray, images: np.ndarray, rng: np.random.Generator) -> None:
        assert isinstance(rng, np.random.Generator)
        self.coalitions.append(coalition)
        self.images.append(images)

    def places(self) -> tuple[QuadraticPlace, ...]:
        return ()

    def check_finite(self) -> None:
        pass

    def masked_players(self) -> np.ndarray:
        return np.ones(self.game.num_players, dtype=bool)

    def squares(self) -> np.ndarray:
        return np.square(self.game.worth[np.concatenate(self.images)]).mean(axis=0)


class PolynomialGame:
    """Additive worth per image plus one pair that only counts together."""

    shared_coalition = False
    loss_description = "a made-up loss"

    def __init__(self, worth: np.ndarray, pair: tuple[int, int] = (0, 1), bonus: float = 0.0) -> None:
        self.worth, self.pair, self.bonus = worth, pair, bonus
        self.num_images, self.num_players = worth.shape
        self.evaluations = 0
        self.narrowed: list[int] = []
        self.drawn: list[np.ndarray] = []

    def second_moments(self) -> NoPlaces:
        return NoPlaces(self)

    def on_images(self, count: int) -> PolynomialGame:
        self.narrowed.append(count)
        return PolynomialGame(self.worth[:count], self.pair, self.bonus)

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        together = coalitions[:, list(self.pair)].all(axis=1)
        return coalitions @ self.worth.T + self.bonus * together[:, None]

    def marginals(self, memberships: np.ndarray, images: np.ndarray) -> np.ndarray:
        self.evaluations += 1
        self.drawn.append(memberships.copy())
        result = self.worth[images].copy()
        first, second = self.pair
        result[:, first] += self.bonus * memberships[:, second]
        result[:, second] += self.bonus * memberships[:, first]
        return result


def network_game(*, labelled: bool, factory=nets.chain, images: int = 24) -> MaskedGame:
    case = nets.toy(factory)
    _, pixels, labels = nets.digits_like(images)
    with torch.no_grad():
        reference = tensor_leaves(case.captured.graph_module(pixels))
    batch = ImageBatch(images=pixels, labels=labels if labelled else None)
    masked = mask_module(case.captured, case.coupling)
    return MaskedGame(masked, case.coupling.num_players, batch, reference, images_at_once=7)


@pytest.mark.parametrize(
    ("ratio", "law"),
    [
        (0.25, (0.8, 1.0)),
        (0.5, (0.3, 0.9)),
        (0.4, (0.5, 0.94)),
        (0.01, (0.9, 1.0)),
        (0.95, (0.2, 0.72)),
    ],
)
def test_inclusion_law_follows_the_ratio(ratio, law):
    assert inclusion_law(ratio) == (pytest.approx(law[0]), pytest.approx(law[1]))


def test_inclusion_law_is_a_range_of_probabilities_and_falls_with_the_ratio():
    laws = [inclusion_law(r) for r in np.linspace(0.001, 0.999, 200)]
    assert all(0.0 < low < high <= 1.0 for low, high in laws)
    assert all(a[0] >= b[0] and a[1] >= b[1] for a, b in pairwise(laws))


def test_coalitions_are_drawn_by_the_law():
    game = PolynomialGame(np.ones((40, 50)))
    options = RankingOptions(samples=4000, batch=10, q_low=0.3, q_high=0.9, exact_players=0)
    ranking = rank(game, (), rng=np.random.default_rng(0), options=options)
    shares = np.concatenate(game.drawn).mean(axis=1)
    assert np.concatenate(game.drawn).mean() == pytest.approx(0.6, abs=0.01)
    assert 0.1 < shares.min() < 0.3
    assert shares.max() > 0.9
    assert (ranking.estimate.q_low, ranking.estimate.q_high) == (0.3, 0.9)


def test_small_groups_get_the_shares_of_their_exact_values_and_the_size_of_the_estimate():
    rng = np.random.default_rng(2)
    game = PolynomialGame(rng.standard_normal((32, 6)), pair=(0, 3), bonus=4.0)
    groups = (group("small", 0, 1, 2), group("large", 3, 4, 5))
    options = RankingOptions(samples=256, batch=8, exact_players=3)
    both = rank(game, groups, rng=np.random.default_rng(0), options=options)
    none = rank(
        game,
        groups,
        rng=np.random.default_rng(0),
        options=RankingOptions(samples=256, batch=8, exact_players=0),
    )
    assert both.estimate.group_methods == dict.fromkeys(("small", "large"), RankingMethod.EXACT)
    assert none.estimate.group_methods == dict.fromkeys(("small", "large"), RankingMethod.MULTILINEAR)
    for players in ([0, 1, 2], [3, 4, 5]):
        per_image = exact(SubGame(game, np.array(players)))
        own = np.sqrt((per_image**2).mean(axis=1))
        np.testing.assert_allclose(both.values[players] / both.values[players[0]], own / own[0], rtol=1e-9)
        norm = np.linalg.norm(none.values[players])
        assert np.linalg.norm(both.values[players]) == pytest.approx(norm, rel=1e-9)


def test_only_groups_within_the_limit_are_exact():
    game = PolynomialGame(np.random.default_rng(0).standard_normal((16, 10)))
    groups = (group("a", 0, 1), group("b", 2, 3, 4, 5), group("c", 6, 7, 8), group("lone", 9))
    options = RankingOptions(samples=32, batch=8, exact_players=3)
    ranking = rank(game, groups, rng=np.random.default_rng(0), options=options)
    assert ranking.estimate.group_methods == {
        "a": RankingMethod.EXACT,
        "b": RankingMethod.MULTILINEAR,
        "c": RankingMethod.EXACT,
        "lone": RankingMethod.MULTILINEAR,
    }


def test_exact_groups_take_as_many_images_as_the_limit_allows_and_eight_at_least():
    game = PolynomialGame(np.ones((100, 12)))
    groups = (group("two", 0, 1), group("four", 2, 3, 4, 5), group("six", 6, 7, 8, 9, 10, 11))
    options = RankingOptions(samples=100, exact_players=6, exact_image_evaluations=256)
    rank(game, groups, rng=np.random.default_rng(0), options=options)
    assert game.narrowed == [64, 16, 8]


def test_a_group_that_is_worth_nothing_stays_as_estimated():
    game = PolynomialGame(np.zeros((8, 2)))
    ranking = rank(game, (group("g", 0, 1),), rng=np.random.default_rng(0), options=RankingOptions(samples=8))
    np.testing.assert_array_equal(ranking.values, [0.0, 0.0])
    assert np.isfinite(ranking.standard_errors).all()


@pytest.mark.parametrize(("samples", "rounds"), [(1, 1), (24, 1), (25, 2), (72, 3)])
def test_passes_are_announced_made_and_reported(samples, rounds):
    game = PolynomialGame(np.ones((24, 3)))
    options = RankingOptions(samples=samples, batch=10, cost_samples=35)
    seen: list[int] = []
    ranking = rank(game, (), rng=np.random.default_rng(0), options=options, advance=seen.append)
    assert sum(seen) == total_passes(game, options) == 3 * rounds + 4
    assert ranking.evaluations == 3 * rounds + 4
    assert ranking.images == 24
    assert ranking.loss == "a made-up loss"


def test_removal_costs_of_players_that_no_place_tells_are_their_squares():
    game = PolynomialGame(np.array([[1.0, -2.0, 3.0]]))
    ranking = rank(game, (), rng=np.random.default_rng(0), options=RankingOptions(samples=1))
    np.testing.assert_allclose(ranking.removal_costs, [1, 4, 9])


def test_rising_costs_keep_their_order_when_sorted():
    found = rising(np.array([0.0, 0.0, 3.0, 1.0, 1.0, 2.0, 7.0]))
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, [0, 0, 3, 3, 3, 3, 7], atol=1e-9)


@pytest.mark.parametrize("labelled", [True, False])
def test_network_game_is_minus_cross_entropy(labelled):
    case, pixels, labels = nets.digits_like()
    game = network_game(labelled=labelled)
    assert game.loss_kind is (LossKind.LABELS if labelled else LossKind.PSEUDO_LABELS)
    with torch.no_grad():
        scores = case.captured.graph_module(pixels)
    classes = labels if labelled else scores.argmax(1)
    expected = torch.log_softmax(scores, 1)[torch.arange(24), classes]
    grand = game.values(np.ones((1, game.num_players), dtype=bool))
    np.testing.assert_allclose(grand[0], expected.numpy(), atol=1e-10)


def test_a_coalition_is_worth_what_the_pruned_network_is():
    case, pixels, _ = nets.digits_like()
    game = network_game(labelled=False)
    removed = (0, 3, 5, 9, 13)
    with torch.no_grad():
        classes = case.captured.graph_module(pixels).argmax(1)
        scores = nets.prune(case.captured, case.coupling, removed)(pixels)
    coalition = np.ones((1, 14), dtype=bool)
    coalition[0, list(removed)] = False
    expected = torch.log_softmax(scores, 1)[torch.arange(24), classes]
    np.testing.assert_allclose(game.values(coalition)[0], expected.numpy(), atol=1e-10)


def test_outputs_that_are_no_classes_are_compared_with_the_originals():
    game = network_game(labelled=True, factory=nets.two_outputs)
    assert game.loss_kind is LossKind.OUTPUTS
    values = game.values(all_coalitions(game.num_players)[[0, -1]])
    np.testing.assert_allclose(values[1], 0.0, atol=1e-20)
    assert (values[0] < 0).all()


def test_marginals_are_derivatives_of_the_value():
    game = network_game(labelled=True)
    rng = np.random.default_rng(0)
    images = np.array([4, 0, 17])
    at = rng.uniform(0.3, 1.0, (3, game.num_players))
    slopes = game.marginals(at, images)
    step = 1e-5
    for player in (0, 6, 10):
        moved = []
        for sign in (1, -1):
            shifted = at.copy()
            shifted[:, player] += sign * step
            masks = game._masks(shifted)
            with torch.no_grad():
                moved.append(-game._loss(torch.from_numpy(images), masks).numpy())
        np.testing.assert_allclose(
            slopes[:, player], (moved[0] - moved[1]) / (2 * step), rtol=1e-4, atol=1e-7
        )


def test_evaluations_are_counted_over_all_narrowed_games():
    game = network_game(labelled=True)
    game.on_images(5).values(np.ones((3, 14), dtype=bool))
    game.marginals(np.ones((2, 14)), np.array([0, 1]))
    assert game.evaluations == 4
    assert game.on_images(5).num_images == 5


def test_labels_change_the_ranking_of_a_network():
    groups = nets.toy(nets.chain).coupling.groups
    with_labels, without = (
        rank(network_game(labelled=flag), groups, rng=np.random.default_rng(0), options=FEW)
        for flag in (True, False)
    )
    assert not np.allclose(with_labels.values, without.values)
    assert with_labels.loss != without.loss


def test_same_seed_same_ranking():
    groups = nets.toy(nets.chain).coupling.groups
    options = RankingOptions(samples=48, batch=8, exact_players=6, exact_image_evaluations=512)

    def run(seed: int) -> np.ndarray:
        return rank(
            network_game(labelled=False), groups, rng=np.random.default_rng(seed), options=options
        ).values

    first = run(3)
    np.testing.assert_array_equal(first, run(3))
    assert not np.array_equal(first, run(4))


def test_a_channel_that_is_multiplied_by_zero_is_worth_least():
    case = nets.make_case(nets.chain())
    weight = case.captured.graph_module.get_parameter("1.0.weight")
    weight.data[:, 2] = 0.0
    _, pixels, _ = nets.digits_like()
    with torch.no_grad():
        reference = tensor_leaves(case.captured.graph_module(pixels))
    batch = ImageBatch(images=pixels, labels=None)
    game = MaskedGame(mask_module(case.captured, case.coupling), 14, batch, reference)
    options = RankingOptions(samples=48, batch=8, exact_players=8, exact_image_evaluations=1024)
    ranking = rank(game, case.coupling.groups, rng=np.random.default_rng(0), options=options)
    assert ranking.values[2] == pytest.approx(0.0, abs=1e-12)
    assert (np.delete(ranking.values, 2) > 0).all()


def test_a_reconstructing_game_shares_a_coalition_and_values_what_others_cannot_tell():
    """A channel that doubles another is worth nothing beside it; plain masking sees a loss."""
    case = nets.make_case(nets.chain())
    module = case.captured.graph_module.float()
    for name in ("0.0.weight", "0.1.weight", "0.1.bias", "0.1.running_mean", "0.1.running_var"):
        value = module.state_dict()[name]
        value[5] = value[4]
    _, pixels, _ = nets.digits_like(96)
    pixels = pixels.float()
    statistics = channel_statistics(case.captured, case.coupling, pixels)
    with torch.no_grad():
        reference = tensor_leaves(module(pixels))
    batch = ImageBatch(images=pixels, labels=None)
    masked = mask_module(case.captured, case.coupling, statistics)
    game = MaskedGame(masked, 14, batch, reference)
    assert game.shared_coalition
    grand = np.ones((1, 14), dtype=bool)
    without = grand.copy()
    without[0, 5] = False
    np.testing.assert_allclose(game.values(without), game.values(grand), atol=2e-2)
    with pytest.raises(ValueError, match="one coalition per batch"):
        game.marginals(np.eye(14)[:3], np.arange(3))
    options = RankingOptions(samples=960, batch=32, exact_players=0, q_low=0.8)
    ranking = rank(game, case.coupling.groups, rng=np.random.default_rng(0), options=options)
    first = ranking.values[:8]
    assert set(np.argsort(first)[:2]) == {4, 5}


def test_plain_mask_points_beside_reconstructing_ones_keep_those_present(monkeypatch):
    """Wide or unabsorbable points are masked while others reconstruct: all present is the original."""
    wide = 8 * nets.IMAGE[1] * nets.IMAGE[2]
    network = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(6, 8, 3, padding=1)),
        *(torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(wide, 5)),
    )
    captured = capture(network.eval(), nets.IMAGE)
    coupling = couple(captured)
    pixels, labels = torch.randn(24, *nets.IMAGE), torch.arange(24) % 5
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(pixels))
    monkeypatch.setattr("edgeprune.games.channel_statistics.MAX_CHANNELS", wide - 1)
    masked = mask_module(captured, coupling, channel_statistics(captured, coupling, pixels))
    assert {ChannelMask, ChannelReconstruction} <= {type(m) for m in masked.modules()}
    game = MaskedGame(masked, coupling.num_players, ImageBatch(images=pixels, labels=labels), reference)
    everyone = np.ones((1, coupling.num_players), dtype=bool)
    expected = -torch.nn.functional.cross_entropy(reference[0], labels, reduction="none").numpy()
    np.testing.assert_allclose(game.values(everyone)[0], expected, rtol=1e-4, atol=1e-5)
    few = everyone.copy()
    few[0, list(coupling.groups[0].players)[1:]] = False
    assert not np.allclose(game.values(few)[0], expected, atol=1e-3)


def test_work_scales_every_estimate_but_for_the_fewest_samples() -> None:
    coupling = nets.toy(nets.chain).coupling
    usual, half, four = (options_for(coupling, 0.25, work=work) for work in (1.0, 0.5, 4.0))
    assert options_for(coupling, 0.25) == usual
    assert (usual.samples, usual.cost_samples) == (256, 256)
    assert (half.samples, half.cost_samples) == (128, 128)
    assert (four.samples, four.cost_samples) == (1024, 1024)
    assert (
        four.exact_image_evaluations == 4 * usual.exact_image_evaluations == 8 * half.exact_image_evaluations
    )
    assert options_for(coupling, 0.25, work=0.01).cost_samples == 128
    assert {o.cost_q_low for o in (usual, half, four)} == {usual.cost_q_low}
