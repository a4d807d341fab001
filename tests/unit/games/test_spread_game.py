"""A ranking over workers is that of one process, byte for byte, whatever becomes of the workers."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from executor_units import unit
from small_rankings import ranked, same_ranking, small_context

from edgeprune.errors import CalibrationError, UsageError
from edgeprune.executors.local import LocalExecutor
from edgeprune.executors.performing import perform
from edgeprune.executors.resources import Room
from edgeprune.executors.units import Failure, FailureKind, Outcome, Unit, Watcher, result_of
from edgeprune.games.masked_game import MaskedGame
from edgeprune.games.spread_game import SpreadGame, spread
from edgeprune.importance.criteria.layer_shapley import LayerShapley
from edgeprune.importance.journals import Journals
from edgeprune.shapley.checkpoint import FileCheckpoint


@contextmanager
def threads_of(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Shuffling:
    """A session in this process that runs units in another order, each on a copy of what is shared."""

    most_units = 1

    def __init__(self, shared: Any) -> None:
        self._shared, self.ran = shared, 0

    def run(self, units: Sequence[Unit], watcher: Watcher | None = None) -> tuple[Outcome, ...]:
        found = {}
        for each in reversed(units):
            answer = perform(each, self._shared)
            self.ran += 1
            found[id(each)] = Outcome(unit=each, result=answer.result, failure=answer.failure)
        return tuple(found[id(each)] for each in units)


class ShufflingExecutor:
    def __init__(self) -> None:
        self.sessions: list[Shuffling] = []

    @contextmanager
    def session(self, shared: Any = None) -> Iterator[Shuffling]:
        self.sessions.append(Shuffling(pickle.loads(pickle.dumps(shared))))
        yield self.sessions[-1]


@pytest.mark.parametrize("few_bytes", [None, 60_000], ids=["whole batches", "in parts"])
@pytest.mark.parametrize(
    "network", [networks.residual_add, networks.two_outputs, networks.squeeze_excitation, networks.concat]
)
def test_batches_in_any_order_give_the_ranking_of_one_process(network: Any, few_bytes: int | None) -> None:
    context = small_context(network, few_bytes)
    for game in (context.recovery_game, context.game):
        executor: Any = ShufflingExecutor()
        with spread(game, executor) as spread_game:
            found = ranked(context, spread_game)
        assert executor.sessions[0].ran > 10
        assert same_ranking(found, ranked(context, game))


def local(workers: int) -> LocalExecutor:
    return LocalExecutor(Room(most_units=workers, cores=workers, memory_bytes=None))


def test_one_and_two_processes_and_one_that_is_killed_give_the_same_ranking(tmp_path: Path) -> None:
    with threads_of(1):
        context = small_context(networks.residual_add)
        alone = ranked(context, context.recovery_game)
        for workers in (1, 2):
            with spread(context.recovery_game, local(workers)) as game:
                assert same_ranking(ranked(context, game), alone)
        with local(2).session(_Fatal(context.recovery_game, tmp_path)) as session:
            killed = SpreadGame(context.recovery_game, session, 1)
            assert same_ranking(ranked(context, killed), alone)
        assert (tmp_path / "killed").exists()


class _Fatal:
    """What workers share, of whom one is killed at the fifth batch."""

    def __init__(self, game: MaskedGame, folder: Path) -> None:
        self._game, self._folder = game, folder

    def ready(self) -> MaskedGame:
        torch.set_num_threads(1)
        if len(list(self._folder.glob("batch-*"))) == 4 and not (self._folder / "killed").exists():
            (self._folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (self._folder / f"batch-{os.urandom(8).hex()}").touch()
        return self._game


class _Stopping(FileCheckpoint):
    """Keeps what it is offered, and is interrupted at the second offer."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, fingerprint="", interval_s=0.0)
        self._offers = 0

    def offer(self, state: Any) -> None:
        super().offer(state)
        self._offers += 1
        if self._offers == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stopped", ["values", "costs"])
@pytest.mark.parametrize("is_spread_first", [True, False])
def test_a_ranking_goes_on_with_or_without_workers(
    stopped: str, is_spread_first: bool, tmp_path: Path
) -> None:
    context = small_context(networks.residual_add)
    game = context.recovery_game
    executors: list[Any] = [ShufflingExecutor(), None]
    first, second = executors if is_spread_first else executors[::-1]

    def opened(name: str) -> FileCheckpoint:
        return FileCheckpoint(tmp_path / f"{name}.npz", fingerprint="", interval_s=0.0)

    with spread(game, first) as begun, pytest.raises(KeyboardInterrupt):
        ranked(context, begun, lambda n: _Stopping(tmp_path / f"{n}.npz") if n == stopped else opened(n))
    with spread(game, second) as going_on:
        assert same_ranking(ranked(context, going_on, opened), ranked(context, game))


def test_what_becomes_of_a_failure() -> None:
    def outcome(kind: FailureKind, status: int = 1) -> Outcome:
        failure = Failure(kind=kind, sentence="it is so", exit_status=status)
        return Outcome(unit=unit(perform, name="batch 3"), failure=failure, attempts=2)

    with pytest.raises(CalibrationError, match=r"^it is so$"):
        result_of(outcome(FailureKind.REFUSED, CalibrationError.exit_status))
    with pytest.raises(UsageError, match=r"^batch 3 was lost 2 times: it is so; fewer workers"):
        result_of(outcome(FailureKind.KILLED))
    with pytest.raises(RuntimeError, match=r"^batch 3: it is so"):
        result_of(outcome(FailureKind.FAULT))


@pytest.mark.parametrize(
    "network", [networks.residual_add, pytest.param(networks.concat, marks=pytest.mark.wide)]
)
def test_groups_of_layer_shapley_are_units(network: Any, tmp_path: Path) -> None:
    context = small_context(network)
    score = LayerShapley().score
    alone = score(context, rng=np.random.default_rng(0), advance=lambda _: None)
    executor: Any = ShufflingExecutor()
    journals = Journals(tmp_path / "journal", {"of": "a test"})
    passes: list[int] = []
    spread_over = replace(context, executor=executor, journals=journals)
    for ran in (len(context.coupling.groups), 0):  # then all are in the journal
        found = score(spread_over, rng=np.random.default_rng(0), advance=passes.append)
        assert same_ranking(found, alone)
        assert executor.sessions[-1].ran == ran
        assert sum(passes) == LayerShapley().passes(context)
        passes.clear()
    with threads_of(1):
        here = score(context, rng=np.random.default_rng(0), advance=lambda _: None)
        there = score(
            replace(context, executor=local(2)), rng=np.random.default_rng(0), advance=lambda _: None
        )
    assert same_ranking(here, there)
