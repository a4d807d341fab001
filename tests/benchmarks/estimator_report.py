"""The page of the estimator benchmark."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

import numpy as np
from common import header

COMPARED = (
    "partial",
    "permutation, antithetic",
    "permutation, independent",
    "least squares",
    "regression-adjusted",
    "shapiq KernelSHAP, paired",
    "shapiq SVARM",
)
"""Whose distance to the oracle rank is shown."""


OURS = "gradients"
PLAIN = "permutation, independent"
FEWER = 50


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What estimates are compared with: values (n,), from a table or from two halves of orders."""

    name: str
    players: int
    images: int
    empty: float
    grand: float
    values: list[float]
    losses: dict[str, float]
    oracle_rank: list[int] | None = None
    oracle_losses: dict[str, float] | None = None
    halves: list[list[float]] = field(default_factory=list)
    orders: int = 0

    @property
    def family(self) -> str:
        """Games of one layer of differently trained networks belong together."""
        return self.name.split("-")[0]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One estimate."""

    game: str
    method: str
    asked: int
    seed: int
    passes: int
    overlap: float
    losses: dict[str, float]
    values: list[float] | None = None


Game = tuple[Truth, list[Result]]


def render(games: list[Game], threads: int, unfinished: list[str], made_by: list[str]) -> str:
    """Tables of all games with results that commits ``made_by`` measured; ``unfinished`` ones are named."""
    text = header(
        "Estimators of Shapley values against the passes they take",
        "python tests/benchmarks/bench_estimators.py",
        "from 0, their number stated with each game",
        threads,
        made_by,
    )
    text += _paragraph(
        "Players are the filters of one layer; v(S) is minus the mean cross-entropy with the labels when",
        "only the filters of S are left. Games of ResNet-20 are those of the first convolution of a block,",
        "on training images; those of LeNet-1 are of its second one, on the test images that the thesis",
        "values on. A forward pass of all images counts as 1, a forward and backward pass as 3.",
    )
    text += _paragraph(
        "*rank* is Spearman's correlation with the true values, *overlap* the share of the truly least",
        "valuable filters among those removed (mean over cuts of 25, 50 and 75%), *loss* the cross-entropy",
        "after removing 25 / 50 / 75% at once: all means over seeds (and over networks of LeNet-1). Rows are",
        "in order of overlap. `choose_removal` is run once for each cut, with the passes stated for each,",
        "and looks for the set of the least loss, not for the least valuable filters. Estimators that need",
        "more passes than were allowed are left out, as are gradients beyond 400 passes.",
    )
    if unfinished:
        text += _paragraph(f"Not run, or not to the end: {', '.join(unfinished)}.")
    families = list(dict.fromkeys(truth.family for truth, _ in games))
    grouped = [[game for game in games if game[0].family == family] for family in families]
    text += "".join(_quality(group) for group in grouped)
    with_oracle = [group for group in grouped if group[0][0].oracle_rank is not None]
    return text + _fiftieth(grouped) + (_oracle(with_oracle) if with_oracle else "")


def _fiftieth(groups: list[list[Game]]) -> str:
    """Gradients against plain permutation sampling with fifty times the passes, where both were run."""
    rows = ""
    for games in groups:
        truth, results = games[0]
        plain = [r for r in results if r.method == PLAIN]
        if not plain:
            continue
        most = max(r.asked for r in plain)
        plain = [r for r in plain if r.asked == most]
        allowed = float(np.mean([r.passes for r in plain])) / FEWER
        ours = [r for r in results if r.method == OURS and r.passes <= allowed]
        if ours:
            ours = [r for r in ours if r.asked == max(r.asked for r in ours)]
            cells = [_figures([(truth, r) for r in found]) for found in (plain, ours)]
            both = " | ".join(f"{a} / {b}" for a, b in zip(*(c[:3] for c in cells), strict=True))
            losses = " | ".join(c[3] for c in cells)
            rows += f"| {truth.family} | {truth.players} | {truth.images} | {both} | {losses} |\n"
    if not rows:
        return ""
    return (
        "## A fiftieth of the passes\n\n"
        + _paragraph(
            "Plain permutation sampling with the most passes it was given, and gradients of the multilinear",
            "extension (what `hybrid` ranks networks by) with the most that were tried within a fiftieth of",
            "them: plain / ours. Gradients take another coalition for each image, so that their error falls",
            "with the number of images as well as with the passes.",
        )
        + "| game | filters | images | passes | rank | overlap | loss, plain | loss, ours |\n"
        + "|---|---|---|---|---|---|---|---|\n"
        + rows
        + "\n"
    )


def _quality(games: list[Game]) -> str:
    truth = games[0][0]
    seeds = len({r.seed for _, results in games for r in results})
    many = f", {len(games)} networks" if len(games) > 1 else ""
    text = f"## {truth.family}: {truth.players} filters, {truth.images:,} images{many}, {seeds} seeds\n\n"
    text += _paragraph(*(_about(each) for each, _ in games))
    text += "| passes allowed | estimator | passes | rank | overlap | loss |\n|---|---|---|---|---|---|\n"
    for asked in sorted({r.asked for _, results in games for r in results}):
        own = {
            m: [(t, r) for t, results in games for r in results if (r.asked, r.method) == (asked, m)]
            for m in dict.fromkeys(r.method for _, results in games for r in results)
        }
        rows = [_row(asked, method, pairs) for method, pairs in own.items() if pairs]
        text += "".join(row for _, row in sorted(rows))
    return text + "\n"


def _row(asked: int, method: str, pairs: list[tuple[Truth, Result]]) -> tuple[float, str]:
    """What a row is sorted by, and the row."""
    cells = [f"{asked}", method, *_figures(pairs)]
    return -float(np.mean([r.overlap for _, r in pairs])), f"| {' | '.join(cells)} |\n"


def _figures(pairs: list[tuple[Truth, Result]]) -> list[str]:
    """Means of passes, rank correlation, overlap and losses, in words."""
    ranks = [spearman(r.values, t.values) for t, r in pairs if r.values is not None]
    losses = {k: float(np.mean([r.losses[k] for _, r in pairs])) for k in pairs[0][1].losses}
    return [
        f"{float(np.mean([r.passes for _, r in pairs])):.0f}",
        f"{np.mean(ranks):.3f}" if ranks else "sets",
        f"{float(np.mean([r.overlap for _, r in pairs])):.2f}",
        _losses(losses, pairs[0][0].players),
    ]


def _about(truth: Truth) -> str:
    if truth.halves:
        half = spearman(*truth.halves)
        about = (
            f"Truth: {truth.orders} orders in antithetic pairs. Its two halves correlate by {half:.3f} "
            f"(ranks), so the whole has about {2 * half / (1 + half):.3f} (Spearman and Brown)."
        )
    else:
        about = f"{truth.name}, truth: exact, from all {2**truth.players:,} coalitions."
    about += (
        f" Loss with all filters {-truth.grand:.3f}, with none {-truth.empty:.3f}; by the true values "
        + _losses(truth.losses, truth.players)
    )
    if truth.oracle_losses:
        about += f"; best sets of all {_losses(truth.oracle_losses, truth.players)}"
    return about + "."


def _losses(losses: dict[str, float], players: int) -> str:
    cuts = [players // 4, players // 2, 3 * players // 4]
    return " / ".join(f"{losses[str(k)]:.2f}" for k in cuts)


def _oracle(groups: list[list[Game]]) -> str:
    text = "## Distance to the oracle rank\n\n" + _paragraph(
        "After Adamczewski et al. (2024): the oracle rank is the ranking whose leading sets share most",
        "members with the best sets of every size, here from the table of all coalitions. The distance is",
        "the mean number of places by which a filter stands elsewhere (our choice of a distance; 0 is the",
        "oracle rank, a random ranking has about n / 3). Means over seeds and, for LeNet-1, over networks.",
    )
    for games in groups:
        truth = games[0][0]
        exact = float(np.mean([distance(t.values, t.oracle_rank) for t, _ in games]))
        limits = sorted({r.asked for _, results in games for r in results if r.method in COMPARED})
        text += f"{truth.family}, {truth.players} filters; exact Shapley values: {exact:.2f}.\n\n"
        text += "| estimator | " + " | ".join(f"{limit} passes" for limit in limits) + " |\n"
        text += "|---|" + "---|" * len(limits) + "\n"
        for method in COMPARED:
            cells = [_distance_cell(games, limit, method) for limit in limits]
            text += f"| {method} | " + " | ".join(cells) + " |\n"
        text += "\n"
    return text


def _distance_cell(games: list[Game], limit: int, method: str) -> str:
    found = [
        distance(r.values, t.oracle_rank)
        for t, results in games
        for r in results
        if (r.asked, r.method) == (limit, method)
    ]
    return f"{np.mean(found):.2f}" if found else "-"


def distance(values: list[float] | None, oracle_rank: list[int] | None) -> float:
    """Mean number of places between two rankings."""
    assert values is not None
    assert oracle_rank is not None
    place, true_place = np.empty(len(values)), np.empty(len(values))
    place[np.argsort(-np.array(values), kind="stable")] = np.arange(len(values))
    true_place[oracle_rank] = np.arange(len(values))
    return float(np.abs(place - true_place).mean())


def spearman(a: list[float] | None, b: list[float] | None) -> float:
    """Rank correlation."""
    assert a is not None
    assert b is not None
    ranks = [np.argsort(np.argsort(x, kind="stable")).astype(float) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def _paragraph(*parts: str) -> str:
    return textwrap.fill(" ".join(parts), 110) + "\n\n"
