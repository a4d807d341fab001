"""Shapley values of all players at once from gradients of the multilinear extension."""

from __future__ import annotations

import numpy as np

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley.aggregate import Moments
from edgeprune.shapley.estimate import Estimate, Method, from_units
from edgeprune.shapley.game import Advance, CountedGame, DifferentiableGame, FloatArray


def multilinear(
    game: DifferentiableGame,
    *,
    passes: int,
    q_low: float,
    q_high: float = 1.0,
    aggregate: Aggregate,
    batch: int,
    rng: np.random.Generator,
    fixed_images: bool = False,
    measure_ends: bool = False,
    advance: Advance = lambda _units: None,
) -> Estimate:
    """phi_i = E over q of dF/dm_i at coalitions drawn with inclusion probability q (Owen 1972).

    Every image of every pass has its own coalition, q uniform in [``q_low``, ``q_high``]; [0, 1] gives the
    Shapley law, more keeps coalitions near the size that survives pruning. One backward pass serves all
    players.

    Owen's theorem is about the extension that is linear in every membership, whose derivative is the gain
    v(S + i) - v(S). A network with some of its channels scaled is another extension: its derivative is that
    at the coalition itself and not the difference across the whole step, so the values are biased wherever
    the loss bends within a step. ``correction.corrected`` measures that difference and takes it away.

    ``evaluations`` are forward-and-backward passes of one batch; ``measure_ends`` adds two coalition values
    of all images, for the mean values of the empty and of the grand coalition. The aggregate is over the
    marginals: the root mean square, say, is of the marginals of image and coalition, not of an image's own
    value. The standard errors take images and coalitions as drawn together; with ``fixed_images`` they are
    for the images at hand, as those of other estimators, from the scatter of the means of passes.

    Raises:
        UsageError: no pass, an empty batch, or a range of inclusion probabilities not within [0, 1];
            ``fixed_images`` with another aggregate than the mean.
    """
    check_range(q_low, q_high)
    if fixed_images and aggregate is not Aggregate.MEAN:
        raise UsageError(
            f"errors for the images at hand are not known for {aggregate.value}: give the mean as aggregate"
        )
    if passes < 1 or batch < 1:
        raise UsageError(f"passes={passes} with batch={batch} is not accepted: give 1 or more of each")
    moments = Moments(game.num_players)
    pass_means = np.zeros((passes, game.num_players))
    evaluations = 0
    for number in range(passes):
        order = rng.permutation(game.num_images)
        for start in range(0, game.num_images, batch):
            images = order[start : start + batch]
            rows = 1 if game.shared_coalition else len(images)
            memberships = draw_memberships(rows, game.num_players, q_low, q_high, rng)
            found = game.marginals(np.broadcast_to(memberships, (len(images), game.num_players)), images)
            moments.add(found)
            pass_means[number] += found.sum(axis=0) / game.num_images
            evaluations += 1
            advance(1)
    values, errors = from_units(pass_means) if fixed_images else moments.aggregate(aggregate)
    ends = CountedGame(game).ends() if measure_ends else (None, None)
    return Estimate(
        values=values,
        standard_errors=errors,
        evaluations=evaluations + (2 if measure_ends else 0),
        empty_value=ends[0],
        grand_value=ends[1],
        method=Method.MULTILINEAR,
        choice=f"gradients at coalitions of inclusion probability {q_low:g} to {q_high:g}, {passes} for each "
        f"of {game.num_images} images",
        aggregate=aggregate,
    )


def draw_memberships(
    rows: int, num_players: int, q_low: float, q_high: float, rng: np.random.Generator
) -> FloatArray:
    """Memberships (rows, n), 0 or 1, each row's inclusion probability uniform in [``q_low``, ``q_high``]."""
    q = rng.uniform(q_low, q_high, size=(rows, 1))
    return np.asarray(rng.random((rows, num_players)) < q, dtype=np.float64)


def check_range(q_low: float, q_high: float) -> None:
    """Refuse what is no range of probabilities.

    Raises:
        UsageError: not 0 <= ``q_low`` <= ``q_high`` <= 1.
    """
    if not 0.0 <= q_low <= q_high <= 1.0:
        raise UsageError(
            f"inclusion probabilities from {q_low} to {q_high} are not accepted: give 0 <= low <= high <= 1"
        )
