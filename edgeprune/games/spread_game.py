"""A game whose passes with gradients run in other processes, a batch a unit of work.

What is drawn at random is drawn here, in the order of a single process, and what comes back is summed here
in that order, too. So the result is the same, byte for byte, whatever runs the batches and however many at
once.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import BoolArray, FloatArray, IndexArray
from edgeprune.executors.units import Executor, Session, Telling, Unit, Work, result_of
from edgeprune.games.masked_game import MaskedGame
from edgeprune.games.second_moments import Contribution, RecordedMoments, SecondMoments
from edgeprune.shapley.quadratic import QuadraticPlace
from edgeprune.system.memory import keep_freed_memory

_GRADIENTS_AHEAD = 4
_MOMENTS_AHEAD = 2
"""Batches handed out at once for each that runs: those of the second moments have large results."""


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What every worker has: the game, and the threads of this process, on which last digits depend."""

    game: MaskedGame
    threads: int

    def ready(self) -> MaskedGame:
        """The game, in a process that computes as this one does."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        keep_freed_memory()
        return self.game


@contextlib.contextmanager
def spread(whole: MaskedGame, executor: Executor | None) -> Iterator[MaskedGame | SpreadGame]:
    """A game, with its gradients computed by the workers of an executor; as it is without one."""
    if executor is None:
        yield whole
        return
    here = _Shared(game=whole, threads=torch.get_num_threads())
    with executor.session(here) as session:
        yield SpreadGame(whole, session, here.threads)


class SpreadGame:
    """A ``MaskedGame`` whose gradients and second moments are computed by the workers of ``session``.

    Coalition values are computed here. Each unit takes the cores of ``threads``.
    """

    def __init__(self, game: MaskedGame, session: Session, threads: int) -> None:
        self._game, self._session, self._threads = game, session, threads
        self._handed_out = 0

    @property
    def num_players(self) -> int:
        """Number of players."""
        return self._game.num_players

    @property
    def num_images(self) -> int:
        """Number of calibration images."""
        return self._game.num_images

    @property
    def evaluations(self) -> int:
        """Batch passes so far, here and in workers."""
        return self._game.evaluations + self._handed_out

    @property
    def loss_description(self) -> str:
        """The loss in words."""
        return self._game.loss_description

    @property
    def shared_coalition(self) -> bool:
        """Whether all images of a batch must have the same coalition."""
        return self._game.shared_coalition

    @property
    def at_once(self) -> int:
        """Batches of gradients to ask for together."""
        return _GRADIENTS_AHEAD * self._session.most_units

    def on_images(self, count: int) -> MaskedGame:
        """The same game on the first ``count`` images, in this process."""
        return self._game.on_images(count)

    def values(self, coalitions: BoolArray) -> FloatArray:
        """v(S) (m, k) of coalitions (m, n) on every image."""
        return self._game.values(coalitions)

    def marginals(self, memberships: FloatArray, images: IndexArray) -> FloatArray:
        """dv/dm (b, n) of every player for the images (b,)."""
        return self._game.marginals(memberships, images)

    def all_marginals(self, asked: Sequence[tuple[FloatArray, IndexArray]]) -> Sequence[FloatArray]:
        """``marginals`` of each of several batches of memberships (b, n) and images (b,)."""
        rows = slice(0, 1) if self.shared_coalition else slice(None)
        return self.perform(_marginals, [(memberships[rows].copy(), images) for memberships, images in asked])

    def perform(self, what: Callable[[Work], Any], payloads: Sequence[Any]) -> list[Any]:
        """Results of a function of a module for each payload, in their order.

        Raises:
            EdgepruneError: that of a worker, or a worker was lost twice.
        """
        first = self._handed_out
        self._handed_out += len(payloads)
        units = [
            Unit(
                name=f"batch {first + number}",
                key=f"{first + number}",
                function=what,
                payload=each,
                cores=self._threads,
            )
            for number, each in enumerate(payloads)
        ]
        return [result_of(outcome) for outcome in self._session.run(units, Telling())]

    def second_moments(self) -> SpreadMoments:
        """An empty accumulator of the output changes caused by errors at the mask points."""
        return SpreadMoments(self._game, self, _MOMENTS_AHEAD * self._session.most_units)


class SpreadMoments:
    """``SecondMoments`` whose passes wait until some are together, and then run in workers.

    Random numbers of a pass are those that ``rng`` gives when it is added.
    """

    def __init__(self, game: MaskedGame, workers: SpreadGame, at_once: int) -> None:
        self._game, self._workers, self._at_once = game, workers, at_once
        self._sums: SecondMoments = game.second_moments()
        self._waiting: list[tuple[BoolArray, IndexArray, np.random.Generator]] = []
        self._after: list[Any] = []

    def add(self, coalition: BoolArray, images: IndexArray, rng: np.random.Generator) -> None:
        """Accumulate one backward pass at a coalition (n,) over images (b,)."""
        before = copy.deepcopy(rng)
        self._game.skip_projection(coalition, images, rng)
        self._waiting.append((coalition, images, before))
        self._after.append(rng.bit_generator.state)
        if len(self._waiting) >= self._at_once:
            self._whole()

    def places(self) -> tuple[QuadraticPlace, ...]:
        """The quadratic model of every place where absent channels are reconstructed."""
        return self._whole().places()

    def check_finite(self) -> None:
        """Raise a :class:`CalibrationError` if what was accumulated is NaN or infinite."""
        self._whole().check_finite()

    def masked_players(self) -> NDArray[np.bool_]:
        """Players (n,) that the places do not cover fully."""
        return self._sums.masked_players()

    def squares(self) -> NDArray[np.float64]:
        """Expected squared change (n,) of the outputs with each player's own membership."""
        return self._whole().squares()

    def state(self) -> dict[str, NDArray[Any]]:
        """All accumulated sums, for ``restore``."""
        return self._whole().state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a result of ``state``."""
        self._sums.restore(state)

    def _whole(self) -> SecondMoments:
        """The sums of all passes that were added."""
        waiting, after, self._waiting, self._after = self._waiting, self._after, [], []
        found = self._workers.perform(_moments, waiting)
        for (_, images, _), (log, reached), foreseen in zip(waiting, found, after, strict=True):
            if reached != foreseen:
                raise RuntimeError("a worker drew other random numbers than a single process would have")
            self._sums.replay(log, len(images))
        return self._sums


def _marginals(work: Work) -> FloatArray:
    game, (memberships, images) = work.shared.ready(), work.payload
    shape = (len(images), game.num_players)
    found: FloatArray = game.marginals(np.broadcast_to(memberships, shape), images)
    return found


def _moments(work: Work) -> tuple[list[Contribution], Any]:
    """What a pass adds, and the state of the random numbers behind it."""
    game, (coalition, images, rng) = work.shared.ready(), work.payload
    recorded: RecordedMoments = game.recorded_moments()
    recorded.add(coalition, images, rng)
    return recorded.log, rng.bit_generator.state
