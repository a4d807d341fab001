"""Combine numbers of positions and groups into one number per player, and into ``Ranking``."""

from __future__ import annotations

import math
import time

import numpy as np

from edgeprune.artifacts.arrays import FloatArray, IndexArray
from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph
from edgeprune.artifacts.pruning import Ranking
from edgeprune.errors import UsageError
from edgeprune.importance.base import ScoringContext

_NAMED = 5
"""Groups named in a note."""


def over_positions(values: FloatArray, players: IndexArray, num_players: int) -> FloatArray:
    """Sum of ``values`` (positions,) over the positions of every player (num_players,)."""
    held = players != NO_PLAYER
    return np.bincount(players[held], weights=values[held], minlength=num_players).astype(np.float64)


PER_GROUP = "costs divided by their group's mean and weighted by the MACs that a player of the group saves"
"""What ``relative_to_group`` does, for ``Ranking.choice``."""


def relative_to_group(costs: FloatArray, coupling: CouplingGraph) -> FloatArray:
    """Rescale costs that compare only within a group, so that the mean cost per MAC is equal in all groups.

    Divided by the group's mean (Torch-Pruning's normaliser "mean"; Fang et al., DepGraph, CVPR 2023), times
    the share of the network's MACs that one of its players saves, since selection divides by that saving.
    A group of zeros is unchanged.
    """
    result = costs.copy()
    whole = coupling.total_macs()
    for group in coupling.groups:
        players = list(group.players)
        saved = 1.0 - coupling.total_macs(coupling.removed_mask(players[:1])) / whole
        if (mean := costs[players].mean()) > 0.0:
            result[players] = costs[players] / mean * saved
    return result


def affordable_images(context: ScoringContext, *, at_once: int, rounds: int = 1) -> int:
    """Number of images that ``rounds`` passes over them, ``at_once`` per batch, may use within the limit.

    Raises:
        UsageError: ``max_evaluations`` does not allow ``rounds`` batches.
    """
    images = len(context.images)
    if context.max_evaluations is None:
        return images
    batches = context.max_evaluations // rounds
    if batches < 1:
        raise UsageError(
            f"max_evaluations={context.max_evaluations} is too few: this criterion needs at least {rounds}, "
            f"and {rounds * math.ceil(images / at_once)} for all {images} images"
        )
    return min(images, batches * at_once)


def fewer_images_note(context: ScoringContext, images: int) -> tuple[str, ...]:
    """A note if the limit left images out."""
    if images == len(context.images):
        return ()
    return (
        f"max_evaluations={context.max_evaluations} allows {images} of the {len(context.images)} images; "
        "the first ones were taken",
    )


def named(groups: list[str]) -> str:
    """The first group names of a list, for notes."""
    return ", ".join(groups[:_NAMED]) + (", ..." if len(groups) > _NAMED else "")


def make_ranking(
    criterion: str,
    values: FloatArray,
    started: float,
    *,
    choice: str,
    removal_costs: FloatArray | None = None,
    standard_errors: FloatArray | None = None,
    evaluations: int = 0,
    images: int = 0,
    notes: tuple[str, ...] = (),
) -> Ranking:
    """``Ranking`` with the time since ``started``; costs are the values and errors NaN unless given."""
    return Ranking(
        criterion=criterion,
        values=values,
        removal_costs=values if removal_costs is None else removal_costs,
        standard_errors=np.full(len(values), np.nan) if standard_errors is None else standard_errors,
        evaluations=evaluations,
        images=images,
        duration_s=time.perf_counter() - started,
        choice=choice,
        notes=notes,
    )
