"""Every estimator of ``edgeprune.shapley`` and of shapiq behind one call: a game and a number of passes.

One coalition's value on all images is one forward pass; a pass with gradients counts as three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial as partial_of
from typing import Any

import numpy as np

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley import (
    SHAPLEY,
    CountedGame,
    DerivativeWeights,
    DifferentiableGame,
    Game,
    Orders,
    adjusted,
    choose_removal,
    corrected,
    hybrid,
    least_squares,
    multilinear,
    partial,
    permutation,
    race,
    semivalue,
)
from edgeprune.shapley.estimators.correction import PASS_WITH_GRADIENT

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Found:
    """Values (n,), or only the sets to remove by their size, and the forward passes spent."""

    values: np.ndarray | None
    passes: int
    removed: dict[int, list[int]] | None = None


Method = Callable[[CountedGame, DifferentiableGame | None, int, np.random.Generator, list[int]], Found]


def _valued(estimator: Callable[..., Any], **options: Any) -> Method:
    def run(
        game: CountedGame, _g: DifferentiableGame | None, passes: int, rng: np.random.Generator, _s: list[int]
    ) -> Found:
        found = estimator(game, max_evaluations=passes, rng=rng, **options)
        return Found(values=found.values, passes=game.evaluations)

    return run


def _partial(
    game: CountedGame, _g: DifferentiableGame | None, passes: int, _r: np.random.Generator, _s: list[int]
) -> Found:
    found = partial(game, max_evaluations=passes)
    return Found(values=found.values, passes=game.evaluations)


def _gradients(
    game: CountedGame,
    differentiable: DifferentiableGame | None,
    passes: int,
    rng: np.random.Generator,
    _s: list[int],
    *,
    weights: DerivativeWeights,
) -> Found:
    ends = 2 if weights is DerivativeWeights.TRAPEZOIDAL else 0  # the empty and the grand coalition
    rounds = _rounds(differentiable, passes - ends)
    assert differentiable is not None
    found = multilinear(
        differentiable, passes=rounds, q_low=0.0, aggregate=Aggregate.MEAN, batch=_BATCH, rng=rng,
        weights=weights, measure_ends=ends > 0,
    )  # fmt: skip
    return Found(values=found.values, passes=PASS_WITH_GRADIENT * rounds + ends)


def _corrected(
    game: CountedGame,
    differentiable: DifferentiableGame | None,
    passes: int,
    rng: np.random.Generator,
    _s: list[int],
) -> Found:
    n = game.num_players
    coalitions = passes // 2 // (n + 1 + PASS_WITH_GRADIENT)
    if coalitions < 2:
        raise UsageError("too few passes for two coalitions with gradients")
    rounds = _rounds(differentiable, passes - coalitions * (n + 1 + PASS_WITH_GRADIENT))
    assert differentiable is not None
    start = multilinear(
        differentiable, passes=rounds, q_low=0.0, aggregate=Aggregate.MEAN, batch=_BATCH, rng=rng,
        weights=DerivativeWeights.EQUAL, fixed_images=True,
    )  # fmt: skip
    found = corrected(differentiable, start, players=np.arange(n), coalitions=coalitions, q_low=0.0, rng=rng)
    return Found(values=found.values, passes=PASS_WITH_GRADIENT * rounds + found.evaluations)


def _rounds(differentiable: DifferentiableGame | None, passes: int) -> int:
    if differentiable is None or passes < 2 * PASS_WITH_GRADIENT:
        raise UsageError("no gradients, or too few passes")
    return passes // PASS_WITH_GRADIENT


def _race(
    game: CountedGame, _g: DifferentiableGame | None, passes: int, rng: np.random.Generator, sizes: list[int]
) -> Found:
    """Half of the passes on values, the rest on the players near each of the cuts, in equal parts."""
    start = hybrid(game, max_evaluations=passes // 2, rng=rng)
    share = (passes - game.evaluations) // len(sizes)
    removed = {k: race(game, start, remove=k, max_evaluations=share, rng=rng).removed for k in sizes}
    return Found(values=None, passes=game.evaluations, removed={k: list(r) for k, r in removed.items()})


def _removal(
    game: CountedGame, _g: DifferentiableGame | None, passes: int, rng: np.random.Generator, sizes: list[int]
) -> Found:
    """One run for every cut, each with all passes: what a user asks for is one cut."""
    removed, spent = {}, 0
    for k in sizes:
        found = choose_removal(_fresh(game), remove=k, max_evaluations=passes, rng=rng)
        removed[k], spent = list(found.removed), max(spent, found.evaluations)
    return Found(values=None, passes=spent, removed=removed)


def _fresh(game: CountedGame) -> Game:
    return game.underlying


def _peer(make: Callable[[int, int], Any]) -> Method:
    def run(
        game: CountedGame, _g: DifferentiableGame | None, passes: int, rng: np.random.Generator, _s: list[int]
    ) -> Found:
        n = game.num_players
        empty = float(game.means(np.zeros((1, n), dtype=bool))[0])

        def values(coalitions: np.ndarray) -> np.ndarray:
            return game.means(np.atleast_2d(np.asarray(coalitions, dtype=bool))) - empty

        approximator = make(n, int(rng.integers(2**31)))
        found = approximator.approximate(passes, values)
        return Found(values=np.asarray(found.get_n_order_values(1)), passes=game.evaluations)

    return run


def peers() -> dict[str, Method]:
    """Estimators of shapiq, none where it is not installed; for values alone its SVARM-IQ is SVARM."""
    try:
        import shapiq
    except ImportError:
        return {}
    return {
        "shapiq KernelSHAP, paired": _peer(
            lambda n, s: shapiq.KernelSHAP(n=n, pairing_trick=True, random_state=s)
        ),
        "shapiq unbiased KernelSHAP": _peer(lambda n, s: shapiq.UnbiasedKernelSHAP(n=n, random_state=s)),
        "shapiq permutation": _peer(lambda n, s: shapiq.PermutationSamplingSV(n=n, random_state=s)),
        "shapiq SVARM": _peer(lambda n, s: shapiq.SVARM(n=n, random_state=s)),
    }


def methods() -> dict[str, Method]:
    """All of them by name, ours first."""
    return {
        "permutation, independent": _valued(permutation, orders=Orders.INDEPENDENT),
        "permutation, antithetic": _valued(permutation, orders=Orders.ANTITHETIC),
        "permutation, stratified": _valued(permutation, orders=Orders.STRATIFIED),
        "semivalue (Shapley law)": _valued(semivalue, law=SHAPLEY),
        "partial": _partial,
        "least squares": _valued(least_squares),
        "regression-adjusted": _valued(adjusted),
        "stratified pairs (SVARM-like)": _valued(adjusted, adjust=False),
        "hybrid": _valued(hybrid),
        "gradients": partial_of(_gradients, weights=DerivativeWeights.TRAPEZOIDAL),
        "gradients, equal weights": partial_of(_gradients, weights=DerivativeWeights.EQUAL),
        "gradients, corrected": _corrected,
        "racing": _race,
        "choose_removal": _removal,
        **peers(),
    }
