"""Unbiased values from stratified pairs, each used for all players, with regression adjustment.

Two published ideas in one estimator: stratify coalitions by size and use each for every player (SVARM,
Kolpaczki et al. 2024), and estimate only the residual of a model of the game (regression adjustment, Witter
et al. 2025). ``shapiq`` 1.4 has the first, with independent draws and without standard errors, and not the
second. Added here: complementary pairs without replacement, so that all even parts of the game cancel and
the values are exact once all pairs fit; a linear model with slopes by coalition size whose part in the
values is known in closed form; a correction that keeps the values unbiased although the model is fitted to
the same pairs; standard errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance, FloatArray, IndexArray
from edgeprune.shapley.estimate import Estimate, Method, require, without_choice
from edgeprune.shapley.estimators.pairs import (
    allocate,
    draw_pairs,
    half_differences,
    multiplicity,
    pairs_by_size,
)
from edgeprune.shapley.game import CountedGame, Game

_FOLDS = 5
_EACH_SIZE = 2
_LEAST_FREE = 0.2
_PENALTIES = tuple(10.0**power for power in range(-8, 3))


def adjusted(
    game: Game,
    *,
    max_evaluations: int,
    rng: np.random.Generator,
    adjust: bool = True,
    advance: Advance = lambda _units: None,
) -> Estimate:
    """Shapley values (n,) from half differences g(S) = (v(S) - v(N - S)) / 2 of pairs drawn size by size.

    phi_i = (v(N) - v(0)) / n + sum over sizes s of E[g(S) w_i(S)], w_i = 1 / s for members and
    -1 / (n - s) for the others, sizes s and n - s being one. ``adjust`` subtracts from g a model that is
    linear in the members, with slopes by size, and adds its expectation. Each pair is compared with a model
    fitted to other pairs; where a finite number of pairs is drawn without replacement, those that the model
    was fitted to count as known. So the values are unbiased for any model; they sum to the whole gain.
    Without ``adjust`` the level of g adds to the variance: stratified sampling as in SVARM.

    Standard errors are those of stratified sampling from a finite population, from the residuals; a size of
    which one pair was drawn has none to give.

    Raises:
        UsageError: the limit is below two pairs of every size.
    """
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    n = counted.num_players
    if n < 2:
        require(max_evaluations, 2, "a game")
        return without_choice(counted, Method.ADJUSTED)
    require(max_evaluations, least_evaluations(n), f"two pairs of every size for {n} players")
    empty, grand = counted.ends()
    drawn = _draw(counted, max_evaluations, rng)
    model_of = _fits(drawn) if adjust else [np.zeros((2, n))]
    values, variance = np.full(n, (grand - empty) / n), np.zeros(n)
    for size in range(1, n // 2 + 1):
        part, squared_error = _of_size(drawn, size, model_of)
        values += part
        variance += squared_error
    what = "less a linear fit with slopes by size" if adjust else "no fit"
    return Estimate(
        values=values,
        standard_errors=np.sqrt(variance),
        evaluations=counted.evaluations,
        empty_value=empty,
        grand_value=grand,
        method=Method.ADJUSTED,
        choice=f"{len(drawn.halves)} pairs of coalitions stratified by size, {what}",
    )


def least_evaluations(num_players: int) -> int:
    """The smallest limit that ``adjusted`` accepts for n players."""
    return 2 + 2 * int(np.minimum(pairs_by_size(num_players), _EACH_SIZE).sum())


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Pairs in order of size: centred members (p, n), half differences, sizes and folds (p,)."""

    centred: FloatArray
    halves: FloatArray
    sizes: IndexArray
    folds: IndexArray
    pairs_of: IndexArray

    @property
    def num_players(self) -> int:
        """Players n."""
        return int(self.centred.shape[1])

    def features(self) -> FloatArray:
        """Centred members, and the same times the ``tilt`` of their size (p, 2 n)."""
        return np.concatenate([self.centred, self.centred * self.tilt(self.sizes)[:, None]], axis=1)

    def tilt(self, sizes: IndexArray) -> FloatArray:
        """Linear in size, from 1 at the smallest coalitions to -1 at half of the players."""
        half = self.num_players // 2
        return np.asarray(1.0 - 2.0 * (sizes - 1) / max(1, half - 1))


def _draw(counted: CountedGame, max_evaluations: int, rng: np.random.Generator) -> _Drawn:
    n = counted.num_players
    pairs_of, size = pairs_by_size(n), np.arange(1, n // 2 + 1)
    # The optimal shares of strata whose half differences have equal variance.
    share = multiplicity(n) / np.sqrt(size * (n - size))
    counts = allocate(pairs_of, (max_evaluations - 2) // 2, share, np.minimum(pairs_of, _EACH_SIZE))
    blocks = [
        draw_pairs(n, int(s), int(m), int(p), rng) for s, m, p in zip(size, counts, pairs_of, strict=True)
    ]
    coalitions = np.concatenate([block[rng.permutation(len(block))] for block in blocks])
    return _Drawn(
        centred=coalitions - coalitions.mean(axis=1, keepdims=True),
        halves=half_differences(counted, coalitions),
        sizes=np.repeat(size, counts),
        folds=np.concatenate([(np.arange(m) + s) % _FOLDS for s, m in zip(size, counts, strict=True)]),
        pairs_of=pairs_of,
    )


def _of_size(drawn: _Drawn, size: int, model_of: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Contribution of the pairs of one size to the values (n,), and its squared error."""
    n, own = drawn.num_players, drawn.sizes == size
    centred, folds, available = drawn.centred[own], drawn.folds[own], int(drawn.pairs_of[size - 1])
    standing = multiplicity(n)[size - 1]
    # 1 / s or -1 / (n - s), as the centred members are 1 - s / n or -s / n.
    weights = centred * (standing * n / (size * (n - size)))
    tilt = drawn.tilt(np.array([size]))[0]
    value, left = np.zeros(n), np.empty(len(folds))
    used = folds if len(model_of) > 1 else np.zeros_like(folds)
    for fold in np.unique(used):
        out = used == fold
        slopes = model_of[fold][0] + tilt * model_of[fold][1]
        residuals = drawn.halves[own] - centred @ slopes
        # The model of a fold was fitted to all other pairs: they count as known.
        seen = ~out if len(model_of) > 1 else np.zeros_like(out)
        if seen.any() and standing == 2.0:
            residuals = residuals - residuals[seen].mean()
        known = int(seen.sum()) / available
        part = (1.0 - known) * (weights[out] * residuals[out, None]).mean(axis=0)
        part += (weights[seen] * residuals[seen, None]).sum(axis=0) / available
        value += out.mean() * (part + standing * (slopes - slopes.mean()) / (n - 1))
        left[out] = residuals[out]
    if len(left) == available:
        return value, np.zeros(n)
    scatter = (weights * left[:, None]).var(axis=0, ddof=1)
    return value, np.asarray((1.0 - len(left) / available) * scatter / len(left))


def _fits(drawn: _Drawn) -> list[FloatArray]:
    """Slopes and their change with size (2, n), by fold: fitted to the pairs of all other folds."""
    n = drawn.num_players
    counts = np.bincount(drawn.sizes, minlength=n)[drawn.sizes]
    importance = multiplicity(n)[drawn.sizes - 1] / counts / np.sqrt(drawn.sizes * (n - drawn.sizes))
    features, models = drawn.features(), []
    for fold in range(_FOLDS):
        others = drawn.folds != fold
        halves = _about_size(drawn.halves[others, None], drawn.sizes[others], n)[:, 0]
        rows = _about_size(features[others], drawn.sizes[others], n) * importance[others, None]
        target = halves * importance[others]
        freedom = len(rows) - len(np.unique(drawn.sizes[others]))
        score, slopes = _ridge(rows[:, :n], target, freedom)
        score_by_size, by_size = _ridge(rows, target, freedom)
        plain = np.concatenate([slopes, np.zeros(n)])
        models.append((by_size if score_by_size < score else plain).reshape(2, n))
    return models


def _about_size(rows: FloatArray, sizes: IndexArray, n: int) -> FloatArray:
    """Rows (p, c) minus the mean of their size, but for halves: which of the two is stored is arbitrary."""
    count = np.bincount(sizes, minlength=n)[:, None]
    sums = np.zeros((len(count), rows.shape[1]))
    np.add.at(sums, sizes, rows)
    means = sums / np.maximum(1, count)
    if n % 2 == 0:
        means[n // 2] = 0.0
    return np.asarray(rows - means[sizes])


def _ridge(rows: FloatArray, target: FloatArray, freedom: int) -> tuple[float, FloatArray]:
    """The lowest generalised cross-validation score over penalties, and its coefficients."""
    left, strengths, right = np.linalg.svd(rows, full_matrices=False)
    along, square = left.T @ target, np.square(strengths)
    beyond = max(0.0, float(target @ target - along @ along))
    best, chosen = np.inf, np.zeros(rows.shape[1])
    for penalty in _PENALTIES:
        level = penalty * float(square.max(initial=0.0))
        if level == 0.0:
            break
        kept = square / (square + level)
        unexplained = beyond + float(np.square((1.0 - kept) * along).sum())
        free = 1.0 - float(kept.sum()) / max(1, freedom)
        # With few degrees of freedom left the score is a quotient of two numbers near 0.
        score = unexplained / free**2 if free > _LEAST_FREE else np.inf
        if score < best:
            best, chosen = score, right.T @ (along * strengths / (square + level))
    return best, chosen
