"""Values of groups by their own games: brute force, efficiency, streams, limits, memory, journals."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import networks as nets
import numpy as np
import pytest
from criteria_cases import context_of

from edgeprune.artifacts.pruning import Ranking
from edgeprune.errors import UsageError
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.criteria import layer_shapley
from edgeprune.importance.criteria.layer_shapley import LayerShapley
from edgeprune.importance.journals import Journals
from edgeprune.importance.player_values import least_evaluations, value_players
from edgeprune.shapley.game import CoalitionGame

CHAIN = nets.toy(nets.chain)
SIZES = [len(g.players) for g in CHAIN.coupling.groups]


def score(context: ScoringContext, seed: int = 0) -> Ranking:
    units: list[int] = []
    found = LayerShapley().score(context, rng=np.random.default_rng(seed), advance=units.append)
    assert sum(units) == LayerShapley().passes(context) >= found.evaluations > 0
    return found


def gain(context: ScoringContext, players: tuple[int, ...]) -> float:
    """v(N) - v(N without the group), by the whole masked network."""
    coalitions = np.ones((2, context.coupling.num_players), dtype=bool)
    coalitions[1, list(players)] = False
    whole, without = context.game.values(coalitions).mean(axis=1)
    return float(whole - without)


def by_orders(context: ScoringContext, players: tuple[int, ...]) -> dict[int, float]:
    """Shapley values as the mean gain over all orders."""
    known: dict[frozenset[int], float] = {}

    def value(present: frozenset[int]) -> float:
        if present not in known:
            row = np.ones((1, context.coupling.num_players), dtype=bool)
            row[0, [p for p in players if p not in present]] = False
            known[present] = float(context.game.values(row).mean())
        return known[present]

    total = dict.fromkeys(players, 0.0)
    for order in itertools.permutations(players):
        present: frozenset[int] = frozenset()
        for player in order:
            total[player] += value(present | {player}) - value(present)
            present |= {player}
    return {p: t / math.factorial(len(players)) for p, t in total.items()}


def test_small_groups_are_brute_force_over_all_orders() -> None:
    context = context_of(CHAIN)
    group = min(CHAIN.coupling.groups, key=lambda g: len(g.players))
    found = score(context)
    expected = by_orders(context, group.players)
    np.testing.assert_allclose(found.values[list(group.players)], list(expected.values()), atol=1e-6)
    assert (found.standard_errors == 0).all()
    assert "all 64 coalitions of 6 players" in found.choice
    assert "all 256 coalitions of 8 players" in found.choice


@pytest.mark.parametrize("limit", [None, 3 * 120, 3 * 60, 120])
@pytest.mark.parametrize("factory", [nets.chain, nets.residual_add, nets.padded_shortcut])
def test_values_and_costs_of_a_group_add_up_to_what_it_gains(factory, limit) -> None:
    case = nets.toy(factory)
    context = context_of(case, max_evaluations=limit)
    found = score(context)
    narrowed = dataclasses.replace(context, game=context.game.on_images(found.images))
    for group in case.coupling.groups:
        players = list(group.players)
        whole = gain(narrowed, group.players)
        assert found.values[players].sum() == pytest.approx(whole, abs=1e-6)
        costs = found.removal_costs[players]
        assert costs.sum() == pytest.approx(whole, abs=1e-5)
        assert len(set(costs.tolist())) == len(players), "a tie would leave the order to chance"
    if limit is not None:
        assert found.evaluations <= limit


def test_costs_follow_real_removals() -> None:
    context = context_of(CHAIN)
    found = score(context)
    for group in CHAIN.coupling.groups:
        players = np.array(group.players)
        order = players[np.argsort(found.removal_costs[players])]
        table = np.ones((len(order) + 1, CHAIN.coupling.num_players), dtype=bool)
        for row in range(len(order)):
            table[row + 1 :, order[row]] = False
        lost = -np.diff(context.game.values(table).mean(axis=1))
        promised = np.cumsum(found.removal_costs[order])
        assert (promised <= np.cumsum(lost) + 1e-6).all(), "means of runs lie below the true curve"
        assert promised[-1] == pytest.approx(lost.sum(), abs=1e-6)


def test_a_group_alone_gets_what_it_gets_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_shapley, "_EXACT_BY_DEFAULT", 2)  # so that all is drawn
    context = context_of(CHAIN)
    everything, again, other = score(context), score(context), score(context, seed=1)
    assert np.array_equal(everything.values, again.values)
    assert not np.array_equal(everything.values, other.values)
    assert (everything.standard_errors > 0).any()
    for group in CHAIN.coupling.groups:
        alone = score(dataclasses.replace(context, groups=(group.name,)))
        players = list(group.players)
        for field in ("values", "standard_errors", "removal_costs"):
            assert np.array_equal(getattr(alone, field)[players], getattr(everything, field)[players])
        rest = np.setdiff1d(np.arange(len(alone.values)), players)
        assert np.isnan(alone.values[rest]).all()
        assert np.isnan(alone.removal_costs[rest]).all()


def test_errors_tell_how_far_drawn_values_are_off() -> None:
    context = context_of(CHAIN)
    exact = score(context).values
    off = []
    for seed in range(12):
        found = score(dataclasses.replace(context, max_evaluations=3 * 150), seed=seed)
        assert found.images == 12
        drawn = found.standard_errors > 0
        assert drawn.any()
        off += ((found.values - exact)[drawn] / found.standard_errors[drawn]).tolist()
    assert np.mean(np.abs(off) < 3) > 0.9


def test_the_memory_limit_changes_no_value() -> None:
    context = context_of(CHAIN)
    tight = score(dataclasses.replace(context, memory_limit_bytes=120_000))
    free = score(context)
    np.testing.assert_allclose(tight.values, free.values, atol=1e-7)
    assert tight.evaluations == free.evaluations
    with pytest.raises(UsageError, match=r"memory_limit_bytes=1000 is too small: .* one image"):
        score(dataclasses.replace(context, memory_limit_bytes=1000))


@pytest.mark.parametrize("limit", [1, 17, 18, 19, 30, 100, 500, 2000])
def test_the_limit_holds_or_is_refused_with_what_is_needed(limit: int) -> None:
    assert sorted(SIZES) == [6, 8]
    least = 8 + 10
    context = context_of(CHAIN, images=150, max_evaluations=limit, images_at_once=64)
    if limit < least:
        with pytest.raises(UsageError, match=rf"max_evaluations={limit} is too few.*at least {least}"):
            score(context)
        return
    found = score(context)
    assert found.evaluations <= limit
    assert (found.images < 150) == any("of the 150 images" in note for note in found.notes)
    if limit >= 3 * (64 + 256):
        assert (found.standard_errors == 0).all()


def test_a_wider_group_with_a_linear_rest_is_exact_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_shapley, "_EXACT_BY_DEFAULT", 2)
    found = score(context_of(CHAIN))
    before, last = CHAIN.coupling.groups
    assert (found.standard_errors[list(last.players)] == 0).all(), "only a mean and a linear layer follow"
    assert (found.standard_errors[list(before.players)] > 0).all(), "a ReLU follows"


def test_much_work_means_fewer_images_and_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_shapley, "_WORK_MACS", 1.0)
    monkeypatch.setattr(layer_shapley, "_FEWEST_IMAGES", 5)
    found = score(context_of(CHAIN))
    assert found.images == 5
    assert "means over the first 5 of 12 images" in found.notes[0]
    monkeypatch.setattr(layer_shapley, "_FEWEST_IMAGES", 7)
    assert score(context_of(CHAIN, images_at_once=5)).images == 5, "whole batches, where there is one"


@pytest.mark.parametrize("players", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("factor", [0, 1, 3, 12])
def test_any_game_within_any_limit(players: int, factor: int) -> None:
    strength = np.random.default_rng(3).random(players)
    game = CoalitionGame(players, lambda s: np.sqrt(s @ strength))
    limit = least_evaluations(players) + factor * players
    found = value_players(game, max_evaluations=limit, rng=np.random.default_rng(0))
    assert found.evaluations <= limit
    assert np.isfinite(found.removal_costs).all()
    steps = np.sort(found.removal_costs)
    assert (np.diff(steps) > 0).all()
    if factor >= 3:
        assert found.values.sum() == pytest.approx(math.sqrt(strength.sum()), abs=1e-9)


# values on file


class StoppedError(Exception):
    pass


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    context = context_of(CHAIN, max_evaluations=3 * 150)
    straight = score(context)
    folder = tmp_path / "j"
    first = Journals(folder, {"model": "a"})
    spent = 0

    def stop(units: int) -> None:
        nonlocal spent
        spent += units
        if spent > 3 * 80:
            raise StoppedError

    with pytest.raises(StoppedError):
        LayerShapley().score(
            dataclasses.replace(context, journals=first), rng=np.random.default_rng(0), advance=stop
        )
    kept = first.known
    assert 0 < kept < 150
    second = Journals(folder, {"model": "a"})
    found = score(dataclasses.replace(context, journals=second))
    assert np.array_equal(found.values, straight.values)
    assert np.array_equal(found.removal_costs, straight.removal_costs)
    assert found.evaluations == straight.evaluations
    assert second.known > kept
    asked = sum(game.asked for game in second._games)
    assert asked == second.known - kept, "what was on file was not asked again"
    second.remove()
    assert not folder.exists()


def test_a_journal_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    folder = tmp_path / "j"
    game = CoalitionGame(2, lambda s: s.sum(1).astype(float))
    about = {"model": "a", "seed": "0", "calibration set": "x"}
    with Journals(folder, about).open(game, "g") as kept:
        kept.values(np.ones((1, 2), dtype=bool))
    Journals(folder, about)
    with pytest.raises(UsageError, match=r"another calibration set and another seed, so .* delete"):
        Journals(folder, {"model": "a", "seed": "1", "calibration set": "y"})


def test_a_folder_of_other_things_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    Journals(tmp_path / "j", {})
    (tmp_path / "j" / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="no journal of edgeprune: move it away"):
        Journals(tmp_path / "j", {})
    unused = Journals(tmp_path / "k", {})
    unused.remove()
    assert not (tmp_path / "k").exists(), "nothing is made before the first game"
