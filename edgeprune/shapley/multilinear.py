"""Shapley values of all players at once from gradients of the multilinear extension."""

from __future__ import annotations

import numpy as np

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley.aggregate import Moments
from edgeprune.shapley.checkpoint import Checkpoint, NoCheckpoint, State, generator_state, set_generator
from edgeprune.shapley.estimate import Estimate, Method, from_units
from edgeprune.shapley.game import Advance, CountedGame, DifferentiableGame, FloatArray, IndexArray


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
    checkpoint: Checkpoint | None = None,
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
    With a ``checkpoint`` an estimate that was stopped goes on, its random numbers too, and ends the same.

    Raises:
        UsageError: no pass, an empty batch, or a range of inclusion probabilities not within [0, 1];
            ``fixed_images`` with another aggregate than the mean.
    """
    checkpoint = checkpoint or NoCheckpoint()
    check_range(q_low, q_high)
    if fixed_images and aggregate is not Aggregate.MEAN:
        raise UsageError(
            f"errors for the images at hand are not known for {aggregate.value}: give the mean as aggregate"
        )
    if passes < 1 or batch < 1:
        raise UsageError(f"passes={passes} with batch={batch} is not accepted: give 1 or more of each")
    walk = _Walk(game.num_players, passes, checkpoint.restored(), rng)
    if walk.evaluations:
        advance(walk.evaluations)
    while walk.passes_done < passes:
        images = walk.next_images(game.num_images, batch, rng)
        rows = 1 if game.shared_coalition else len(images)
        memberships = draw_memberships(rows, game.num_players, q_low, q_high, rng)
        found = game.marginals(np.broadcast_to(memberships, (len(images), game.num_players)), images)
        walk.add(found, game.num_images)
        checkpoint.offer(lambda: walk.state(rng))
        advance(1)
    checkpoint.keep(lambda: walk.state(rng))
    values, errors = from_units(walk.pass_means) if fixed_images else walk.moments.aggregate(aggregate)
    ends = CountedGame(game).ends() if measure_ends else (None, None)
    return Estimate(
        values=values,
        standard_errors=errors,
        evaluations=walk.evaluations + (2 if measure_ends else 0),
        empty_value=ends[0],
        grand_value=ends[1],
        method=Method.MULTILINEAR,
        choice=f"gradients at coalitions of inclusion probability {q_low:g} to {q_high:g}, {passes} for each "
        f"of {game.num_images} images",
        aggregate=aggregate,
    )


class _Walk:
    """How far an estimate has come through the passes over all images, and what it found."""

    def __init__(
        self, num_players: int, passes: int, restored: State | None, rng: np.random.Generator
    ) -> None:
        self.moments = Moments(num_players)
        self.pass_means = np.zeros((passes, num_players))
        self.passes_done = 0
        self.evaluations = 0
        self._order = np.empty(0, dtype=np.int64)
        if restored is not None:
            self.moments.restore(restored)
            self.pass_means, self._order = restored["pass_means"].copy(), restored["order"]
            self.passes_done, self.evaluations = int(restored["passes_done"]), int(restored["evaluations"])
            set_generator(rng, restored["rng"])

    def next_images(self, num_images: int, batch: int, rng: np.random.Generator) -> IndexArray:
        """The next (b,) of an order drawn anew in every pass."""
        if not len(self._order):
            self._order = rng.permutation(num_images)
        images, self._order = self._order[:batch], self._order[batch:]
        return images

    def add(self, marginals: FloatArray, num_images: int) -> None:
        """Count one batch of marginals (b, n)."""
        self.moments.add(marginals)
        self.pass_means[self.passes_done] += marginals.sum(axis=0) / num_images
        self.evaluations += 1
        self.passes_done += not len(self._order)

    def state(self, rng: np.random.Generator) -> State:
        """All of it, and where the random numbers stand."""
        return {
            **self.moments.state(),
            "pass_means": self.pass_means,
            "order": self._order,
            "passes_done": np.array(self.passes_done),
            "evaluations": np.array(self.evaluations),
            "rng": generator_state(rng),
        }


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
