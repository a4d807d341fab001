"""What ``--max-time`` cuts, by a clock of the test's own: shares, floors, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.artifacts.budget import Budget
from edgeprune.commands.run import time_limits
from edgeprune.commands.run.state import Run
from edgeprune.errors import UsageError
from edgeprune.importance.journals import Journals
from edgeprune.importance.ranking import RankingOptions, cost_passes, total_passes
from edgeprune.options.runs import CompressOptions

SETTINGS = RankingOptions(samples=6400, cost_samples=3200, batch=32, exact_image_evaluations=8000)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class TimedGame:
    """A game whose passes take a set time by the clock, the first one ten times as long."""

    num_players, num_images, loss_description, evaluations = 20, 320, "made up", 0

    def __init__(self, clock: Clock, pass_s: float) -> None:
        self.clock, self.pass_s, self.passes = clock, pass_s, 0

    def second_moments(self) -> TimedGame:
        return self

    def add(self, coalition: Any, images: Any, rng: np.random.Generator) -> None:
        assert coalition.shape == (20,)
        assert len(images) <= 320
        rng.random()
        self.clock.now += self.pass_s * (10 if self.passes == 0 else 1)
        self.passes += 1


def begun(limit_s: float | None, clock: Clock, **options: Any) -> Run:
    return Run(
        options=CompressOptions(model="x", calibration=None, max_time_s=limit_s, **options), clock=clock
    )


def settings_within(
    limit_s: float | None, pass_s: float, **more: Any
) -> tuple[RankingOptions, Run, TimedGame]:
    clock = Clock()
    run, game = begun(limit_s, clock), TimedGame(clock, pass_s)
    found = time_limits.within_time(run, None, "hybrid", game, SETTINGS, **more)  # type: ignore[arg-type]
    return found, run, game


def test_without_a_limit_nothing_is_timed_or_cut() -> None:
    found, run, game = settings_within(None, 1.0)
    assert (found, run.notes, game.passes) == (SETTINGS, [], 0)
    assert time_limits.time_left_s(run) == math.inf
    assert time_limits.training_limit_s(run) == math.inf


def test_what_fits_is_left_as_it_is() -> None:
    found, run, game = settings_within(1000.0, 0.1)
    assert (found, run.notes) == (SETTINGS, [])
    assert game.passes == 3


def test_passes_follow_the_measured_speed() -> None:
    found, run, game = settings_within(100.0, 0.2)
    made = total_passes(game, found)  # type: ignore[arg-type]
    assert total_passes(game, SETTINGS) == 300  # type: ignore[arg-type]
    # 0.4 of what is left after the first passes, the warm-up of which does not count as speed.
    assert 0.4 * 97.6 - 10 * 0.2 <= made * 0.2 <= 0.4 * 97.6
    assert found.exact_image_evaluations == int(8000 * 0.4 * 97.6 / (300 * 0.2))
    assert replace(found, samples=0, cost_samples=0, exact_image_evaluations=0) == replace(
        SETTINGS, samples=0, cost_samples=0, exact_image_evaluations=0
    )
    assert run.notes == [
        f"--max-time: a ranking makes {made} of 300 passes over a batch, which take {0.2 * made:.1f} s of "
        "the 39.0 s that it may; another run may make more or fewer"
    ]


def test_rounds_share_the_time_and_may_be_of_costs_alone() -> None:
    once, _, game = settings_within(100.0, 0.2)
    thrice, _, _ = settings_within(100.0, 0.2, rounds=3)
    assert total_passes(game, thrice) < 0.5 * total_passes(game, once)  # type: ignore[arg-type]
    costs, run, _ = settings_within(50.0, 0.4, values=False)
    assert cost_passes(costs) == int(0.4 * (50.0 - 12 * 0.4) / 0.4)
    assert "45 of 100 passes" in run.notes[0]


def test_there_is_a_floor_and_it_is_said_where_it_takes_longer() -> None:
    found, run, game = settings_within(3.0, 1.0)
    assert (found.samples, cost_passes(found)) == (game.num_images, time_limits.FEWEST_COST_PASSES)
    assert "the fewest that tell anything; they take 42.0 s, and no time was left for it" in run.notes[0]


def test_a_run_that_goes_on_has_the_samples_that_it_began_with(tmp_path: Path) -> None:
    journals = Journals(tmp_path / "journal", {"model": "1"})
    chosen = []
    for pass_s in (0.2, 5.0):
        clock = Clock()
        run, game = begun(100.0, clock), TimedGame(clock, pass_s)
        chosen.append(time_limits.within_time(run, journals, "hybrid", game, SETTINGS))  # type: ignore[arg-type]
        assert len(run.notes) == 1
    assert chosen[0] == chosen[1] != SETTINGS
    assert game.passes == 0
    (tmp_path / "journal" / "hybrid-samples.json").write_text("{")
    with pytest.raises(UsageError, match="is damaged"):
        time_limits.within_time(run, journals, "hybrid", game, SETTINGS)  # type: ignore[arg-type]


@pytest.mark.parametrize(("pass_s", "least", "allowed"), [(0.01, 0, None), (1.0, 0, 42), (1.0, 100, 168)])
def test_criteria_get_what_they_accept(pass_s: float, least: int, allowed: int | None) -> None:
    """Passes of a criterion that takes 500 of them, or as many as it is allowed from ``least`` on."""
    clock = Clock()
    run, game = begun(100.0, clock), TimedGame(clock, pass_s)

    def passes(limit: int | None) -> int:
        if limit is not None and limit < least:
            raise UsageError("too few")
        return 500 if limit is None else min(500, limit)

    found = time_limits.affordable_evaluations(run, None, "l", game, passes, 1)  # type: ignore[arg-type]
    assert found == allowed
    assert len(run.notes) == (allowed is not None)


def test_rounds_training_and_candidates_stop_in_time() -> None:
    clock = Clock()
    run = begun(100.0, clock)
    assert time_limits.another_round_fits(run)
    assert time_limits.training_limit_s(run) == pytest.approx(85.0)
    assert time_limits.training_limit_s(
        begun(100.0, clock, budget=Budget(max_drop_points=1.0))
    ) == pytest.approx(85.0 / 4)
    assert time_limits.another_candidate_fits(run, 80.0)
    assert not time_limits.another_candidate_fits(run, 90.0)
    clock.now += 51
    assert not time_limits.another_round_fits(run)
    clock.now += 60
    assert time_limits.time_left_s(run) == pytest.approx(-11.0)
    assert time_limits.training_limit_s(run) == 5.0
    time_limits.note_if_exceeded(run)
    assert "--max-time of 100 s was exceeded: the run took 111 s" in run.notes[0]


def test_a_time_that_sufficed_is_not_spoken_of() -> None:
    run = begun(100.0, Clock())
    time_limits.note_if_exceeded(run)
    time_limits.note_training_cut(run, 500, 500, None, 80.0)
    time_limits.note_training_cut(run, 500, 300, None, math.inf)
    time_limits.note_training_cut(run, 500, 300, 60.0, 80.0)
    assert run.notes == []
    time_limits.note_training_cut(run, 500, 300, None, 80.0)
    time_limits.note_training_cut(run, 500, 300, 120.0, 80.0)
    assert [note.split(":")[1].split(" of fine")[0] for note in run.notes] == [" 300 of 500 steps", " 80 s"]
