"""Counting, keeping and limiting coalition values."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from shapley_games import drawn

from edgeprune.errors import UsageError
from edgeprune.shapley.game import CoalitionGame, CountedGame, all_coalitions


def test_what_is_known_or_repeated_is_asked_once():
    game = drawn(5, images=3)
    counted = CountedGame(game)
    everyone = all_coalitions(5)
    twice = np.concatenate([everyone[:10], everyone[:10]])
    np.testing.assert_array_equal(counted.values(twice), game.table[[*range(10), *range(10)]])
    assert counted.evaluations == 10
    assert counted.new_among(everyone) == 22
    np.testing.assert_array_equal(counted.values(everyone[::-1]), game.table[::-1])
    assert counted.evaluations == 32
    assert sorted(game.asked) == list(range(32))


@pytest.mark.parametrize("players", [7, 8, 9, 16, 17])
def test_keys_tell_coalitions_apart_across_bytes(players):
    weights = np.arange(1, players + 1, dtype=np.float64)
    counted = CountedGame(CoalitionGame(players, lambda c: c @ weights))
    alone = np.eye(players, dtype=bool)
    np.testing.assert_array_equal(counted.means(alone), weights)
    np.testing.assert_array_equal(counted.means(alone[::-1]), weights[::-1])
    assert counted.evaluations == players


def test_the_limit_is_refused_before_anything_is_asked():
    game = drawn(4)
    counted = CountedGame(game, max_evaluations=5)
    counted.values(all_coalitions(4)[:3])
    with pytest.raises(UsageError, match="13 more coalition values are needed where the limit leaves 2"):
        counted.values(all_coalitions(4))
    assert (counted.evaluations, counted.remaining, len(game.asked)) == (3, 2, 3)


def test_a_wrapped_counted_game_shares_values_and_both_limits_hold():
    game = drawn(4)
    outer = CountedGame(game, max_evaluations=8)
    outer.values(all_coalitions(4)[:4])
    inner = CountedGame(outer, max_evaluations=100)
    inner.values(all_coalitions(4)[:6])
    assert (inner.evaluations, outer.evaluations, inner.remaining) == (2, 6, 2)
    with pytest.raises(UsageError):
        inner.values(all_coalitions(4)[:9])
    outer.values(all_coalitions(4)[4:6])
    assert outer.evaluations == 6


def test_memory_is_bounded_and_values_stay_right():
    game = drawn(8, images=100)
    counted = CountedGame(game, cache_bytes=20_000, coalitions_at_once=7)
    for _ in range(2):
        np.testing.assert_array_equal(counted.values(all_coalitions(8)), game.table)
        assert len(counted._store) == 19
    assert counted.evaluations == 512 - 19 == len(game.asked)
    # The second time the last 19 were known, so 218 to 236 were the newest to be asked and kept.
    counted.values(all_coalitions(8)[218:237])
    assert counted.evaluations == 512 - 19


def test_blocks_have_their_size_and_progress_hears_of_each():
    seen, sizes = [], []
    game = CoalitionGame(4, lambda c: (sizes.append(len(c)), np.zeros(len(c)))[1])
    CountedGame(game, coalitions_at_once=6, advance=seen.append).values(all_coalitions(4))
    assert seen == sizes == [6, 6, 4]


def test_a_wrong_shape_and_a_value_that_is_no_number_are_refused():
    with pytest.raises(ValueError, match=r"gave the shape \(4, 2\) for 4 coalitions; accepted is \(4, 1\)"):
        CoalitionGame(2, lambda c: np.zeros((len(c), 2))).values(all_coalitions(2))
    broken = CoalitionGame(3, lambda c: np.where(c[:, 0] & c[:, 2], np.nan, 1.0))
    with pytest.raises(ValueError, match=r"value of the coalition \[0, 2\] is not a finite number"):
        CountedGame(broken).values(all_coalitions(3))


def test_ends_are_the_means_of_nobody_and_of_all():
    game = drawn(3, images=4)
    assert CountedGame(game).ends() == pytest.approx((game.table[0].mean(), game.table[-1].mean()))


def test_the_package_alone_gives_the_public_names_and_loads_no_framework():
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nfrom edgeprune.shapley import *\n"
            "import edgeprune.shapley as s\n"
            "game = CoalitionGame(3, lambda c: c.sum(axis=1) ** 2.0)\n"
            "import numpy as np\n"
            "print(hybrid(game, max_evaluations=8, rng=np.random.default_rng(0)).values.round(6).tolist())\n"
            "print(all(callable(getattr(s, n)) or n == 'SHAPLEY' for n in s.__all__))\n"
            "print([m for m in ('torch', 'onnx', 'onnxruntime', 'scipy') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split("\n")[:3] == ["[3.0, 3.0, 3.0]", "True", "[]"]
