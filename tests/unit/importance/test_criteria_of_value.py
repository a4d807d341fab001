"""Criteria that ask for values and gradients: autograd, brute force, limits."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
import torch
from criteria_cases import GRADIENTS, MEASURED, PASSES, context_of, parameter, score, three_filters
from torch import nn

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.errors import UsageError
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.criteria.greedy import isotonic
from edgeprune.pruning.masking import mask_module


@pytest.mark.parametrize("factory", [nets.chain, nets.residual_add])
def test_taylor_terms_are_derivatives_by_a_gate_on_every_channel(factory):
    context = context_of(nets.toy(factory))
    game, count = context.game, context.coupling.num_players
    step = 1e-5
    slopes = np.empty((count, game.num_images))
    images = torch.arange(game.num_images)
    for player in range(count):
        moved = []
        for sign in (1, -1):
            at = np.ones((game.num_images, count))
            at[:, player] += sign * step
            with torch.no_grad():
                moved.append(-game._loss(images, game._masks(at)).numpy())
        slopes[player] = (moved[0] - moved[1]) / (2 * step)
    expected = {
        "taylor": slopes.mean(1),
        "taylor-abs": np.abs(slopes).mean(1),
        "taylor-squared": np.sqrt(np.square(slopes).mean(1)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(score(name, context).values, values, rtol=1e-4, atol=1e-7)
    costs = score("taylor-squared", context).removal_costs
    np.testing.assert_allclose(costs, np.square(slopes).mean(1), rtol=1e-4)


def test_taylor_is_activation_times_gradient_by_autograd():
    context = context_of(three_filters())
    weights = parameter(three_filters(), "0.weight").flatten(1)
    reader = parameter(three_filters(), "2.weight").flatten(1)
    maps = torch.einsum("oc,nchw->nohw", weights, context.images.images).relu().requires_grad_(True)
    outputs = torch.einsum("kc,nchw->nk", reader, maps) / 16
    labels = context.images.labels % 2
    loss = nn.functional.cross_entropy(outputs, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, maps)
    expected = -(gradient * maps).sum((2, 3)).detach()
    game = MaskedGame(
        mask_module(three_filters().captured, three_filters().coupling),
        3,
        ImageBatch(images=context.images.images, labels=labels),
        [outputs.detach()],
    )
    narrowed = ScoringContext(
        captured=three_filters().captured, coupling=three_filters().coupling,
        images=context.images, game=game,
        recovery_game=game, ratio=0.25,
    )  # fmt: skip
    found = score("taylor", narrowed)
    np.testing.assert_allclose(found.values, expected.mean(0), atol=1e-12)
    np.testing.assert_allclose(
        found.standard_errors, expected.std(0, correction=0) / len(expected) ** 0.5, atol=1e-12
    )


def test_leave_one_out_is_brute_force():
    case = nets.toy(nets.residual_add)
    context = context_of(case)
    count = case.coupling.num_players
    losses = np.empty((count, 12))
    labels = context.images.labels
    for player in range(count):
        with torch.no_grad():
            without = nets.prune(case.captured, case.coupling, (player,))(context.images.images)
            whole = case.captured.graph_module(context.images.images)
            losses[player] = (
                nn.functional.cross_entropy(without, labels, reduction="none")
                - nn.functional.cross_entropy(whole, labels, reduction="none")
            ).numpy()
    found = score("leave-one-out", context)
    np.testing.assert_allclose(found.values, losses.mean(1), atol=1e-10)
    np.testing.assert_allclose(found.standard_errors, losses.std(1) / 12**0.5, atol=1e-9)
    assert found.evaluations == (count + 1) * 3


def test_greedy_removal_is_brute_force():
    case = nets.toy(nets.chain)
    context = context_of(case)
    found = score("greedy-leave-one-out", context)
    assert found.notes == ()
    game = context.game
    for group in case.coupling.groups:
        left, present = list(group.players), np.ones((1, 14), dtype=bool)
        order, curve = [], [game.values(present).mean()]
        while left:
            after = {}
            for player in left:
                trial = present.copy()
                trial[0, player] = False
                after[player] = game.values(trial).mean()
            best = max(after, key=after.__getitem__)
            order.append(best)
            left.remove(best)
            present[0, best] = False
            curve.append(after[best])
        players = list(group.players)
        assert [players[i] for i in np.argsort(found.removal_costs[players])] == order
        assert found.removal_costs[players].sum() == pytest.approx(curve[0] - curve[-1], abs=1e-6)
        # Rising costs: never above the true curve of losses, and on it at the end of each run.
        lost = np.cumsum(found.removal_costs[order])
        assert (lost <= curve[0] - np.array(curve[1:]) + 1e-6).all()


def test_greedy_removal_within_a_limit_measures_early_removals_again_and_says_so():
    case = nets.toy(nets.chain)
    needed = 15 * 3
    least = score("greedy-leave-one-out", context_of(case, max_evaluations=needed))
    alone = score("leave-one-out", context_of(case))
    for group in case.coupling.groups:
        players = list(group.players)
        assert (
            np.argsort(least.values[players]).tolist()
            == np.argsort(alone.values[players], kind="stable").tolist()
        )
    assert "max_evaluations=45 allows 1 measurements in 2 of 2 groups" in least.notes[0]
    more = score("greedy-leave-one-out", context_of(case, max_evaluations=needed + 3 * (7 + 5 + 6)))
    assert more.evaluations == needed + 3 * (7 + 5 + 6)
    assert "allows 2 to 3 measurements in 2 of 2 groups" in more.notes[0]


def test_costs_rise_and_runs_keep_their_sums():
    np.testing.assert_allclose(isotonic(np.array([1.0, 3.0, 2.0, 2.5, 5.0])), [1, 2.5, 2.5, 2.5, 5])
    np.testing.assert_allclose(isotonic(np.array([3.0, 2.0, 1.0])), [2, 2, 2])
    np.testing.assert_allclose(isotonic(np.array([-1.0, 0.0, 4.0])), [-1, 0, 4])
    assert isotonic(np.array([])).shape == (0,)


@pytest.mark.parametrize("name", [*PASSES, *GRADIENTS, *MEASURED])
@pytest.mark.parametrize("limit", [1, 2, 14, 15, 16, 31, 60, 1000])
def test_the_limit_holds_or_is_refused_with_what_is_needed(name, limit):
    least = {"reconstruction-residual": 2, **dict.fromkeys(MEASURED, 15)}.get(name, 1)
    context = context_of(nets.toy(nets.chain), images=150, max_evaluations=limit, images_at_once=64)
    if limit < least:
        with pytest.raises(UsageError, match=rf"max_evaluations={limit} is too few.*at least {least}"):
            score(name, context)
        return
    found = score(name, context)
    assert 0 < found.evaluations <= limit
    assert (found.images < 150) == any("of the 150 images" in note for note in found.notes)
