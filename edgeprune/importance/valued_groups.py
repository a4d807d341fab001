"""Games of single groups, valued one after the other or each as a unit of work."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import CoupledGroup
from edgeprune.executors.units import Telling, Unit, Work, result_of
from edgeprune.games.layer_game import LayerGame
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.player_values import PlayerValues, value_players
from edgeprune.shapley.checkpoint import Checkpoint, NoCheckpoint, State
from edgeprune.shapley.game import Game

_AHEAD = 2
"""Groups handed out at once for each worker."""


@dataclass(frozen=True, kw_only=True)
class GroupTask:
    """A group to be valued, by so many coalitions, with its own random numbers; in a worker its game, too."""

    group: CoupledGroup
    allowed: int
    rng: np.random.Generator
    game: LayerGame | None = None


Valued = Iterator[tuple[CoupledGroup, PlayerValues]]


def valued_groups(
    context: ScoringContext,
    tasks: Sequence[GroupTask],
    originals: tuple[ImageBatch, list[Tensor]],
    advance: Advance,
) -> Valued:
    """Groups with their values, in the order of the tasks: computed here, or by the workers of the context.

    ``originals`` are the images and the original's outputs on them.
    """
    value = _here if context.executor is None else _in_workers
    return value(context, tasks, originals, advance)


def _here(
    context: ScoringContext,
    tasks: Sequence[GroupTask],
    originals: tuple[ImageBatch, list[Tensor]],
    told: Advance,
) -> Valued:
    """Value groups one after the other."""
    for task in tasks:
        with _game(context, task.group, originals) as game:
            estimate = value_players(game, max_evaluations=task.allowed, rng=task.rng, advance=told)
        told(task.allowed - estimate.evaluations)
        yield task.group, estimate


def _in_workers(
    context: ScoringContext,
    tasks: Sequence[GroupTask],
    originals: tuple[ImageBatch, list[Tensor]],
    advance: Advance,
) -> Valued:
    """Value groups in workers, a group a unit; in the order of the tasks, and stored once they are there."""
    assert context.executor is not None
    threads = torch.get_num_threads()
    with context.executor.session((*originals, threads)) as session:
        for start in range(0, len(tasks), at_once := _AHEAD * session.most_units):
            window = tasks[start : start + at_once]
            kept = [_kept(context, task, len(originals[0])) for task in window]
            known = [each.restored() for each in kept]
            left = [
                Unit(
                    name=task.group.name,
                    key=task.group.name,
                    function=_valued_there,
                    payload=replace(task, game=_layer_game(context, task.group, originals).without_images()),
                    cores=threads,
                )
                for task, state in zip(window, known, strict=True)
                if state is None
            ]
            ran = iter([result_of(outcome) for outcome in session.run(left, Telling())])
            for task, checkpoint, state in zip(window, kept, known, strict=True):
                estimate = next(ran) if state is None else _values_of(state)
                checkpoint.keep(functools.partial(_state_of, estimate))
                advance(task.allowed)
                yield task.group, estimate


def _valued_there(work: Work) -> PlayerValues:
    task, (batch, reference, threads) = work.payload, work.shared
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    game = task.game.with_images(batch, reference)
    return value_players(game, max_evaluations=task.allowed, rng=task.rng)


def _kept(context: ScoringContext, task: GroupTask, images: int) -> Checkpoint:
    if context.journals is None:
        return NoCheckpoint()
    number = [g.name for g in context.coupling.groups].index(task.group.name)
    decided_by = f"{images} images, {task.allowed} coalitions, {task.rng.bit_generator.state}"
    return context.journals.checkpoint(f"group-{number}-valued", settings=decided_by)


def _state_of(estimate: PlayerValues) -> State:
    return {f.name: np.array(getattr(estimate, f.name)) for f in fields(estimate)}


def _values_of(state: State) -> PlayerValues:
    return PlayerValues(
        values=state["values"],
        standard_errors=state["standard_errors"],
        removal_costs=state["removal_costs"],
        evaluations=int(state["evaluations"]),
        choice=str(state["choice"]),
    )


@contextlib.contextmanager
def _game(
    context: ScoringContext, group: CoupledGroup, originals: tuple[ImageBatch, list[Tensor]]
) -> Iterator[Game]:
    """A group's game, its values stored where there is a journal."""
    game = _layer_game(context, group, originals)
    if context.journals is None:
        yield game
        return
    number = [g.name for g in context.coupling.groups].index(group.name)
    with context.journals.open(game, f"group-{number}-of-{len(originals[0])}-images") as kept:
        yield kept


def _layer_game(
    context: ScoringContext, group: CoupledGroup, originals: tuple[ImageBatch, list[Tensor]]
) -> LayerGame:
    return LayerGame(
        context.running,
        context.coupling,
        group.players,
        *originals,
        memory_limit_bytes=context.memory_limit_bytes,
    )
