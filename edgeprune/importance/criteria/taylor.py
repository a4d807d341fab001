"""First-order Taylor terms of the value at the full network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from edgeprune.artifacts.arrays import Advance, FloatArray
from edgeprune.artifacts.pruning import Aggregate, Ranking
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import (
    PER_GROUP,
    affordable_images,
    fewer_images_note,
    make_ranking,
    relative_to_group,
)
from edgeprune.shapley.aggregate import Moments

_IMAGES_AT_ONCE = 64


class _Kind(Enum):
    """The quantity averaged over images, in words."""

    SIGNED = "mean over images of dv/dm at the whole network; costs are values and may be negative"
    ABSOLUTE = "mean over images of |dv/dm| at the whole network"
    SQUARED = "root mean square over images of dv/dm at the whole network; costs are squares"


@dataclass(frozen=True, kw_only=True)
class Taylor:
    """Mean over images of dv/dm, m the player's mask: v(N) - v(N without i) to first order.

    The mask multiplies the channel wherever it enters a consumer, so dv/dm = sum of a dv/da over all these
    places: the term (dC/dz) z of Molchanov et al. (ICLR 2017) with its sign, for all coupled places together.
    Costs are the values (loss units): a negative one says that the loss falls without the channel.
    """

    name: str = "taylor"
    summary: str = "first-order change of the loss, with its sign (Molchanov et al. 2017)"

    def passes(self, context: ScoringContext) -> int:
        """One pass over the images, forward and backward."""
        return _passes(context)

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by gradients at the grand coalition."""
        return _score(self.name, context, advance, _Kind.SIGNED)


@dataclass(frozen=True, kw_only=True)
class TaylorAbsolute:
    """Mean over images of |dv/dm|: |sum over positions of (dC/dz) z|, Molchanov et al. (ICLR 2017).

    As in the paper, the absolute value is of each image's sum over positions. Costs are relative to their
    group (``relative_to_group``), where the paper rescales each layer to L2 norm 1.
    """

    name: str = "taylor-abs"
    summary: str = "mean absolute first-order change of each image's loss (Molchanov et al. 2017)"

    def passes(self, context: ScoringContext) -> int:
        """One pass over the images, forward and backward."""
        return _passes(context)

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by gradients at the grand coalition."""
        return _score(self.name, context, advance, _Kind.ABSOLUTE)


@dataclass(frozen=True, kw_only=True)
class TaylorSquared:
    """Root mean square over images of dv/dm: (g_m z_m)^2 of Molchanov et al. (CVPR 2019), per-channel gates.

    Costs are the mean squares, which the paper finds comparable over layers without rescaling.
    """

    name: str = "taylor-squared"
    summary: str = "squared first-order change of each image's loss (Molchanov et al. 2019)"

    def passes(self, context: ScoringContext) -> int:
        """One pass over the images, forward and backward."""
        return _passes(context)

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by gradients at the grand coalition."""
        return _score(self.name, context, advance, _Kind.SQUARED)


def _passes(context: ScoringContext) -> int:
    return math.ceil(affordable_images(context, at_once=_IMAGES_AT_ONCE) / _IMAGES_AT_ONCE)


def _terms(context: ScoringContext, images: int) -> Iterator[FloatArray]:
    """dv/dm at the grand coalition (b, n), batch by batch."""
    for start in range(0, images, _IMAGES_AT_ONCE):
        chosen = np.arange(start, min(start + _IMAGES_AT_ONCE, images), dtype=np.int64)
        yield context.game.marginals(np.ones((len(chosen), context.coupling.num_players)), chosen)


def _score(name: str, context: ScoringContext, advance: Advance, kind: _Kind) -> Ranking:
    started = time.perf_counter()
    images = affordable_images(context, at_once=_IMAGES_AT_ONCE)
    before = context.game.evaluations
    moments = Moments(context.coupling.num_players)
    for terms in _terms(context, images):
        moments.add(np.abs(terms) if kind is _Kind.ABSOLUTE else terms)
        advance(1)
    values, errors = moments.aggregate(Aggregate.RMS if kind is _Kind.SQUARED else Aggregate.MEAN)
    costs, scale = values, ""
    if kind is _Kind.SQUARED:
        costs = np.square(values)
    elif kind is _Kind.ABSOLUTE:
        costs, scale = relative_to_group(values, context.coupling), f"; {PER_GROUP}"
    return make_ranking(
        name,
        values,
        started,
        removal_costs=costs,
        standard_errors=errors,
        evaluations=context.game.evaluations - before,
        images=images,
        choice=f"{kind.value}{scale}; loss: {context.game.loss_description}",
        notes=fewer_images_note(context, images),
    )
