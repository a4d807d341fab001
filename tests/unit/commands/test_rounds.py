"""Ranking in rounds: who is who in what is left, whose turn it is, and what the report says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import networks as nets
import numpy as np
import pytest
from small_project import DIGITS_DATA, DIGITS_MODEL
from torch import nn

from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph, player_origins
from edgeprune.artifacts.pruning import Ranking
from edgeprune.capture.capture import capture
from edgeprune.commands.run import iterative_pruning, stages
from edgeprune.commands.run.iterative_pruning import MOST_AT_ONCE, ROUND_STEP, RoundsRanker
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.coupling.coupling import couple
from edgeprune.errors import CaptureError
from edgeprune.importance.ranking import RankingOptions
from edgeprune.options.runs import CompressOptions
from edgeprune.pruning.surgery import prune
from edgeprune.selection import select

FACTORIES = [nets.chain, nets.padded_shortcut, nets.concat, nets.grouped_convolution, nets.squeeze_excitation]


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__)
def test_players_that_are_left_are_known_by_their_parameters(factory: Callable[[], nn.Module]) -> None:
    case = nets.make_case(factory())
    case.captured.graph_module.float()
    removed = case.removals()[-1]
    left = couple(capture(prune(case.captured, case.coupling, removed), case.captured.input_shapes))
    origins = player_origins(case.coupling, left, removed)
    survivors = sorted(set(range(case.coupling.num_players)) - set(removed))
    assert sorted(origins.tolist()) == survivors
    owner = case.coupling.group_of_player()
    for group in left.groups:
        assert len(set(owner[origins[list(group.players)]])) == 1


@pytest.fixture(scope="module", autouse=True)
def _few_samples() -> Iterator[None]:
    """What is tested here is who is ranked when, not how well."""
    real = iterative_pruning.options_for

    def few(coupling: CouplingGraph, ratio: float, *, work: float) -> RankingOptions:
        return replace(real(coupling, ratio, work=work), samples=32, cost_samples=64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iterative_pruning, "options_for", few)
        yield


@pytest.fixture(scope="module")
def digits() -> tuple[Run, Prepared]:
    return started(rounds=True)


def started(*, rounds: bool) -> tuple[Run, Prepared]:
    path, _, architecture = DIGITS_MODEL
    options = CompressOptions(
        model=path,
        calibration=DIGITS_DATA,
        arch=architecture,
        max_images=80,
        ratio=0.5,
        rounds=rounds,
    )
    run = Run(options=options)
    return run, stages.prepare(run)


@pytest.fixture(scope="module")
def ranking(digits: tuple[Run, Prepared]) -> Ranking:
    return RoundsRanker(*digits).at(0.5)


def test_a_deep_cut_is_ranked_in_rounds_and_each_is_made_once(
    digits: tuple[Run, Prepared], ranking: Ranking, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker, made = RoundsRanker(*digits), []
    real = iterative_pruning.rank

    def counted(*arguments: object, **named: object) -> Ranking:
        made.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(iterative_pruning, "rank", counted)
    shallow = ranker.at(MOST_AT_ONCE)
    assert shallow.rounds == ()
    twice = ranker.at(MOST_AT_ONCE + ROUND_STEP)
    assert twice.rounds == (MOST_AT_ONCE,)
    assert twice.evaluations > shallow.evaluations
    np.testing.assert_array_equal(twice.values, shallow.values)
    assert len(made) == 1
    assert ranking.rounds == pytest.approx((0.2, 0.35))


@pytest.mark.wide
def test_those_who_went_before_go_first_and_nobody_else_is_out_of_turn(
    digits: tuple[Run, Prepared], ranking: Ranking
) -> None:
    coupling = digits[1].coupling
    ranker = RoundsRanker(*digits)
    gone = set(select(ranker.at(0.35).removal_costs, coupling, ratio=0.35).removed)
    assert gone
    for group in coupling.groups:
        players = np.array(group.players)
        order = players[np.argsort(ranking.removal_costs[players], kind="stable")].tolist()
        first = [p for p in order if p in gone]
        assert order[: len(first)] == first
        assert (np.diff(ranking.removal_costs[order]) > 0).all()


@pytest.mark.wide
def test_the_same_seed_ranks_the_same(digits: tuple[Run, Prepared], ranking: Ranking) -> None:
    again = RoundsRanker(*digits).at(0.5)
    np.testing.assert_array_equal(again.removal_costs, ranking.removal_costs)


@pytest.mark.wide
def test_costs_of_what_is_left_are_estimated_on_what_is_left(
    digits: tuple[Run, Prepared], ranking: Ranking
) -> None:
    at_once = RoundsRanker(*started(rounds=False)).at(0.5)
    assert at_once.rounds == ()
    coupling = digits[1].coupling
    orders = [
        [np.argsort(found.removal_costs[list(g.players)]).tolist() for g in coupling.groups]
        for found in (at_once, ranking)
    ]
    assert orders[0] != orders[1]


def test_a_part_that_cannot_be_captured_ends_the_rounds_with_a_note(
    digits: tuple[Run, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise CaptureError("it has no shape")

    monkeypatch.setattr(iterative_pruning, "capture", refuse)
    run = replace(digits[0], notes=[])
    found = RoundsRanker(run, digits[1]).at(0.35)
    assert found.rounds == ()
    assert run.notes == ["channels are ranked in one round fewer for a cut of 35%: it has no shape"]


def test_a_part_of_another_network_has_no_known_players() -> None:
    whole, other = nets.make_case(nets.chain()), nets.make_case(nets.padded_shortcut())
    renamed = replace(
        other.coupling,
        parameter_players={(f"other.{n}", d): p for (n, d), p in other.coupling.parameter_players.items()},
    )
    assert (player_origins(whole.coupling, renamed) == NO_PLAYER).all()
