"""Keep a run within ``--max-time``: the time left, and the work that is reduced to fit.

Speed is measured, not guessed: a few passes of the game are timed before their number is chosen. A ranking
gets a share of the time left, training the rest except a reserve; no stage is cut below its minimum, and the
report says if the time was exceeded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.commands.run.state import Run
from edgeprune.errors import UsageError
from edgeprune.importance.journals import Journals
from edgeprune.importance.ranking import NetworkGame, RankingOptions, cost_passes, total_passes
from edgeprune.reporting.formatting import significant
from edgeprune.storage.documents import UnreadableError, read_json
from edgeprune.storage.files import atomic_write_text

RANKING_SHARE = 0.4
"""Of the time that is left: the rest is for recovery, export and judging."""
ROUNDS_SHARE = 0.5
"""Of the whole time: when it has gone by, no further round begins."""
RESERVE_SHARE = 0.15
"""Of the whole time, kept back behind training."""
FEWEST_COST_PASSES = 32
_FEWEST_TRAINING_S = 5.0
_TRAINED_IN_SEARCH = 4
_TIMED_PASSES = 2


def time_left_s(run: Run) -> float:
    """Seconds of ``--max-time`` that are left, below 0 where it is exceeded; infinite without it."""
    limit = run.options.max_time_s
    return math.inf if limit is None else limit - run.elapsed_s


def seconds_of_pass(run: Run, game: NetworkGame, batch: int) -> float:
    """Measured time of one forward and backward pass of a batch; random numbers of the run are not used."""
    rng, moments = np.random.default_rng(0), game.second_moments()
    images = np.arange(min(batch, game.num_images))

    def once() -> None:
        moments.add(np.ones(game.num_players, dtype=bool), images, rng)

    once()  # the first one also allocates
    began = run.elapsed_s
    for _ in range(_TIMED_PASSES):
        once()
    return (run.elapsed_s - began) / _TIMED_PASSES


def within_time(
    run: Run,
    journals: Journals | None,
    name: str,
    game: NetworkGame,
    settings: RankingOptions,
    *,
    rounds: int = 1,
    values: bool = True,
) -> RankingOptions:
    """``settings``, or fewer samples of both estimates if those of ``name`` would take too long.

    ``rounds``: number of rankings that share the time, including this one; ``values``: whether values are
    estimated, too. A resumed run keeps the samples that it began with.
    """
    if run.options.max_time_s is None:
        return settings

    def choose() -> _Choice:
        pass_s = seconds_of_pass(run, game, settings.batch)
        allowed_s = RANKING_SHARE * max(0.0, time_left_s(run)) / rounds
        return _cut(game, settings, pass_s, allowed_s, values=values)

    choice = _kept_choice(run, journals, f"{name}-samples.json", choose)
    if choice.counts is None:
        return settings
    samples, cost_samples, exact = choice.counts
    return replace(settings, samples=samples, cost_samples=cost_samples, exact_image_evaluations=exact)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """Numbers of samples or passes within the time, and a note; both ``None`` if nothing is cut."""

    counts: tuple[int, ...] | None = None
    note: str | None = None


def _kept_choice(run: Run, journals: Journals | None, name: str, choose: Callable[[], _Choice]) -> _Choice:
    """The stored choice, since a resumed run cannot change its estimates, or a new one; noted."""
    path = None if journals is None else journals.place(name, "the measured speed")
    if path is not None and path.exists():
        try:
            choice = from_jsonable(_Choice, read_json(path))
        except (UnreadableError, ValueError) as error:
            raise UsageError(
                f"{str(path)!r} is damaged, so the run cannot go on with it: delete its folder to begin anew"
            ) from error
    else:
        choice = choose()
        if path is not None:
            atomic_write_text(path, json.dumps(to_jsonable(choice)) + "\n")
    if choice.note is not None:
        run.note(choice.note)
    return choice


def _cut(
    game: NetworkGame, settings: RankingOptions, pass_s: float, allowed_s: float, *, values: bool
) -> _Choice:
    """As many samples as the time allows, in proportion; the minimum of the removal costs comes first."""
    wanted = total_passes(game, settings) if values else cost_passes(settings)
    factor = allowed_s / max(1e-9, wanted * pass_s)
    if factor >= 1.0:
        return _Choice()
    least_for_costs = min(settings.cost_samples, FEWEST_COST_PASSES * settings.batch)
    for_costs = int(factor * cost_passes(settings)) * settings.batch
    reduced = replace(settings, cost_samples=max(least_for_costs, for_costs))
    of_round = math.ceil(game.num_images / settings.batch)
    rounds = int((allowed_s / max(1e-9, pass_s) - cost_passes(reduced)) // of_round)
    reduced = replace(
        reduced,
        samples=min(settings.samples, max(1, rounds) * game.num_images),
        exact_image_evaluations=int(factor * settings.exact_image_evaluations),
    )
    made = total_passes(game, reduced) if values else cost_passes(reduced)
    if made >= wanted:
        return _Choice()
    return _Choice(
        counts=(reduced.samples, reduced.cost_samples, reduced.exact_image_evaluations),
        note=f"--max-time: a ranking makes {made} of {wanted} passes over a batch, "
        f"{_time_of(made, pass_s, allowed_s)}; another run may make more or fewer",
    )


def _time_of(passes: int, pass_s: float, allowed_s: float) -> str:
    """Duration of the passes as text, and whether it exceeds the allowed time."""
    takes = f"take {significant(passes * pass_s)} s"
    if passes * pass_s <= allowed_s + pass_s:
        return f"which {takes} of the {significant(allowed_s)} s that it may"
    left = f"{significant(allowed_s)} s were" if allowed_s > 0.0 else "no time was"
    return f"the fewest that tell anything; they {takes}, and {left} left for it"


def another_round_fits(run: Run) -> bool:
    """Whether the ranking may go on with a further round."""
    limit = run.options.max_time_s
    return limit is None or run.elapsed_s <= ROUNDS_SHARE * limit


def training_limit_s(run: Run) -> float:
    """Maximum seconds of training of one network; a search trains several."""
    limit = run.options.max_time_s
    if limit is None:
        return math.inf
    networks = 1 if run.options.budget.is_empty else _TRAINED_IN_SEARCH
    return max(_FEWEST_TRAINING_S, (time_left_s(run) - RESERVE_SHARE * limit) / networks)


def note_training_cut(run: Run, steps: int, made: int, asked_s: float | None, limit_s: float) -> None:
    """Note if training made fewer than its ``steps``, or took less time than requested."""
    if asked_s is not None and limit_s < asked_s:
        run.note(f"--max-time: {limit_s:.0f} s of fine-tuning instead of {asked_s:.0f} s")
    elif asked_s is None and made < steps and math.isfinite(limit_s):
        run.note(
            f"--max-time: {made} of {steps} steps of fine-tuning in {limit_s:.0f} s; another run may make "
            "more or fewer"
        )


def another_candidate_fits(run: Run, last_s: float) -> bool:
    """Whether a search may build one more candidate, which takes about as long as the last one."""
    limit = run.options.max_time_s
    return limit is None or last_s <= time_left_s(run) - RESERVE_SHARE * limit


def affordable_evaluations(
    run: Run,
    journals: Journals | None,
    name: str,
    game: NetworkGame,
    passes: Callable[[int | None], int],
    criteria_left: int,
) -> int | None:
    """Maximum batch passes of criterion ``name``, one of ``criteria_left``; ``None`` if nothing is cut.

    ``passes``: number of passes made within a given maximum; raises UsageError if that is too low.
    """
    if run.options.max_time_s is None or (wanted := passes(None)) == 0:
        return None

    def choose() -> _Choice:
        pass_s = seconds_of_pass(run, game, RankingOptions.batch)
        allowed_s = RANKING_SHARE * max(0.0, time_left_s(run)) / criteria_left
        least = math.ceil(game.num_images / RankingOptions.batch) + FEWEST_COST_PASSES
        allowed = _accepted(max(least, int(allowed_s / max(1e-9, pass_s))), wanted, passes)
        if allowed is None:
            return _Choice()
        return _Choice(
            counts=(allowed,),
            note=f"--max-time: {name} makes at most {allowed} of {wanted} passes over a batch, "
            f"{_time_of(allowed, pass_s, allowed_s)}; another run may make more or fewer",
        )

    counts = _kept_choice(run, journals, f"{name}-passes.json", choose).counts
    return None if counts is None else counts[0]


def _accepted(allowed: int, wanted: int, passes: Callable[[int | None], int]) -> int | None:
    """``allowed``, doubled until the criterion accepts it; ``None`` from ``wanted`` on."""
    while allowed < wanted:
        try:
            passes(allowed)
        except UsageError:
            allowed *= 2
        else:
            return allowed
    return None


def note_if_exceeded(run: Run) -> None:
    """Note if the run exceeded its time; only writing the report follows."""
    limit = run.options.max_time_s
    if limit is not None and run.elapsed_s > limit:
        run.note(
            f"--max-time of {limit:.3g} s was exceeded: the run took {run.elapsed_s:.3g} s; what it needs at "
            "least is not cut"
        )
