"""Repeatedly remove the cheapest player of a group and measure the others again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance, FloatArray
from edgeprune.artifacts.pruning import Ranking
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import affordable_images, fewer_images_note, make_ranking

_LEAST_COALITIONS = 1024
_ROUNDS_OF_ALL = 4
_TIE_BREAK = 1e-9


@dataclass(frozen=True, kw_only=True)
class GreedyLeaveOneOut:
    """Leave-one-out, repeated after each removal within a group while all other groups are complete.

    The greedy oracle of Abbasi-Asl and Yu (2017), structural compression, by groups, so that the order of
    one group does not depend on removals in the others. The t-th removed player of a group costs
    v(before) - v(after), so the costs of the first t sum to exactly the loss of their joint removal. Where a
    later one is cheaper than an earlier one, both get the mean of the run (isotonic regression): costs then
    rise along the order, which selection by cost follows, and their sums are exact at the end of each run. A
    billionth of the largest cost per place keeps the order within a run.

    Evaluations: first one for each player and the full network; then groups in turn measure their remaining
    players until ``max_evaluations`` (by default 1,024 coalitions, or four for each player) is spent. Players
    that were not measured again are removed in the order of their last measurement, with a note.
    """

    name: str = "greedy-leave-one-out"
    summary: str = "leave-one-out, measured anew after each removal within a group"

    def passes(self, context: ScoringContext) -> int:
        """Passes of all coalitions that the limit allows."""
        images, rounds = _schedule(context)
        sizes = [len(g.players) for g in context.coupling.groups]
        coalitions = 1 + sum(_measured(size, done) for size, done in zip(sizes, rounds, strict=True))
        return coalitions * math.ceil(images / context.game.images_at_once)

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by coalition values.

        Raises:
            UsageError: ``max_evaluations`` is below num_players + 1.
        """
        started = time.perf_counter()
        images, rounds = _schedule(context)
        game = context.game.on_images(images)
        before = game.evaluations
        means = _Means(game, advance)
        everyone = np.ones(context.coupling.num_players, dtype=bool)
        whole = float(means.of(everyone[None])[0])
        orders, costs = [], []
        for group, done in zip(context.coupling.groups, rounds, strict=True):
            order, marginal = _remove_in_turn(means, everyone, np.array(group.players), whole, done)
            orders.append(order)
            costs.append(isotonic(marginal))
        values = np.zeros(len(everyone))
        step = _TIE_BREAK * max((float(np.abs(c).max()) for c in costs), default=0.0)
        for order, rise in zip(orders, costs, strict=True):
            values[order] = rise + step * np.arange(len(order))
        return make_ranking(
            self.name,
            values,
            started,
            evaluations=game.evaluations - before,
            images=images,
            choice="what the next removal within the group costs, all other groups whole, mean over images, "
            f"averaged over runs so that costs rise along the order; loss: {game.loss_description}",
            notes=(*fewer_images_note(context, images), *_notes(context, rounds)),
        )


class _Means:
    """Mean values over images, with progress."""

    def __init__(self, game: MaskedGame, advance: Advance) -> None:
        self._game = game
        self._advance = advance

    def of(self, coalitions: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> FloatArray:
        """Mean v(S) (m,) of coalitions (m, n)."""
        result = np.empty(len(coalitions))
        for row in range(len(coalitions)):
            before = self._game.evaluations
            result[row] = self._game.values(coalitions[row : row + 1]).mean()
            self._advance(self._game.evaluations - before)
        return result


def _remove_in_turn(
    means: _Means,
    everyone: np.ndarray[tuple[int], np.dtype[np.bool_]],
    players: np.ndarray[tuple[int], np.dtype[np.int64]],
    whole: float,
    rounds: int,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], FloatArray]:
    """Players in the order of their removal, and the cost of each; by ``rounds`` measurements."""
    present, left, base = everyone.copy(), players, whole
    order: list[int] = []
    costs: list[float] = []
    for number in range(rounds):
        coalitions = np.repeat(present[None], len(left), axis=0)
        coalitions[np.arange(len(left)), left] = False
        measured = means.of(coalitions)
        ascending = np.argsort(-measured, kind="stable")
        taken = ascending if number == rounds - 1 else ascending[:1]
        order += left[taken].tolist()
        costs += (base - measured[taken]).tolist()
        base = float(measured[ascending[0]])
        present[left[ascending[0]]] = False
        left = np.delete(left, ascending[0])
    return np.array(order, dtype=np.int64), np.array(costs)


def isotonic(costs: FloatArray) -> FloatArray:
    """The non-decreasing sequence nearest to ``costs`` in least squares.

    Pool adjacent violators (Ayer et al. 1955): sums up to the end of each run of equal numbers are kept.
    """
    runs: list[tuple[float, int]] = []
    for cost in costs.tolist():
        mean, size = cost, 1
        while runs and runs[-1][0] > mean:
            before, count = runs.pop()
            mean, size = (mean * size + before * count) / (size + count), size + count
        runs.append((mean, size))
    return np.array([mean for mean, size in runs for _ in range(size)], dtype=np.float64)


def _measured(size: int, rounds: int) -> int:
    """Coalitions of ``rounds`` measurements of a group of ``size``, one player fewer each time."""
    return rounds * size - rounds * (rounds - 1) // 2


def _schedule(context: ScoringContext) -> tuple[int, list[int]]:
    """Number of images, and number of measurements of every group."""
    game, count = context.game, context.coupling.num_players
    images = affordable_images(context, at_once=game.images_at_once, rounds=count + 1)
    batches = max(1, math.ceil(images / game.images_at_once))
    left = (
        max(_LEAST_COALITIONS, _ROUNDS_OF_ALL * (count + 1))
        if context.max_evaluations is None
        else context.max_evaluations // batches
    ) - (count + 1)
    sizes = [len(g.players) for g in context.coupling.groups]
    rounds = [1] * len(sizes)
    for number in range(1, max(sizes, default=0)):
        for index, size in enumerate(sizes):
            if rounds[index] == number and 0 < size - number <= left:
                rounds[index] += 1
                left -= size - number
    return images, rounds


def _notes(context: ScoringContext, rounds: list[int]) -> tuple[str, ...]:
    groups = context.coupling.groups
    short = [(g, r) for g, r in zip(groups, rounds, strict=True) if r < len(g.players)]
    if not short:
        return ()
    limit = (
        "the default limit of evaluations"
        if context.max_evaluations is None
        else f"max_evaluations={context.max_evaluations}"
    )
    fewest, most = min(r for _, r in short), max(r for _, r in short)
    times = str(most) if fewest == most else f"{fewest} to {most}"
    return (
        f"{limit} allows {times} measurements in {len(short)} of {len(groups)} groups; the players left then "
        "go in the order of the last one",
    )
