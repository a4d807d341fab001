"""The result file of the network benchmark: one table a cut, criteria by their accuracy after recovery."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from trained_network import MOST_PASSES, unpacked

Row = dict[str, Any]

OURS = "hybrid"
ROUNDS = "rounds"
"""Chosen over the network as with *global*, ranked in rounds."""


def render(rows: list[Row], base: float, images: int) -> str:
    """The tables and the verdict, below the header."""
    text = (
        f"{images:,} unlabelled training images (another draw a seed), whole test set of 10,000 images, no\n"
        f"training; the original has {base:.2%}. *global*: players with the least removal cost per MAC\n"
        "saved leave, over all groups (`edgeprune.selection`); *uniform*: the same share of every group,\n"
        "cheapest first; *rounds*: global, ranked in rounds, as `compress` does for such cuts.\n"
        "*pruned*: before recovery; *recovered*: after the closed-form recovery, the same for all;\n"
        "*divergence*: mean Kullback-Leibler divergence of the recovered answers from the\n"
        "original's on the test images (lower is better). Mean over seeds, ± half of the range where there\n"
        "are several. *score*: wall seconds of the criterion, on a machine that did other work, too;\n"
        f"*passes*: batch passes, {MOST_PASSES:,} at most for leave-one-out and greedy, on fewer images so.\n"
    )
    for ratio in sorted({r["ratio"] for r in rows}):
        text += _cut([r for r in rows if r["ratio"] == ratio], ratio)
    return text + _verdict(rows)


def left_out(missing: dict[str, int]) -> str:
    """Networks of the plan that were not measured, by criterion and selection."""
    if not missing:
        return ""
    return "\nNot run: " + ", ".join(f"{name} ({count})" for name, count in missing.items()) + " networks.\n"


@dataclass(frozen=True)
class Rivals:
    """Criterion and selection of ours, as ``compress`` does it, and of the best other after recovery."""

    ratio: float
    ours: tuple[str, str]
    best: tuple[str, str]
    seeds: tuple[int, ...]


def rivals(rows: list[Row]) -> list[Rivals]:
    """By cut, with the seeds that both have."""
    found = []
    for ratio in sorted({r["ratio"] for r in rows}):
        methods = by_method([r for r in rows if r["ratio"] == ratio])
        ours = (OURS, ROUNDS) if (OURS, ROUNDS) in methods else (OURS, "global")
        others = {k: v for k, v in methods.items() if k[0] != OURS}
        if ours not in methods or not others:
            continue
        best = max(others, key=lambda k: mean(others[k], "recovered"))
        seeds = {r["seed"] for r in methods[ours]} & {r["seed"] for r in methods[best]}
        found.append(Rivals(ratio, ours, best, tuple(sorted(seeds))))
    return found


def _cut(rows: list[Row], ratio: float) -> str:
    ordered = sorted(by_method(rows).items(), key=lambda item: -mean(item[1], "recovered"))
    text = f"\n## {ratio:.0%} of the MACs cut\n\n"
    titles = (
        "criterion",
        "selection",
        "seeds",
        "MACs removed",
        "pruned",
        "recovered",
        "divergence",
        "passes",
    )
    text += table_row([*titles, "score"]) + table_row(["---"] * 9)
    for (name, mode), found in ordered:
        cells = [
            f"**{name}**" if name == OURS else name,
            mode,
            f"{len(found)}",
            f"{mean(found, 'macs_removed'):.1%}",
            _spread(found, "pruned"),
            _spread(found, "recovered"),
            f"{mean(found, 'divergence'):.4f}",
            f"{mean(found, 'evaluations'):.0f}",
            f"{mean(found, 'score_s'):.0f} s",
        ]
        text += table_row(cells)
    return text


def _verdict(rows: list[Row]) -> str:
    text = "\n## Ours against the best other\n\n"
    text += (
        "After recovery; the seeds' images are common to both. *Difference*: points of accuracy, seed by\n"
        "seed, then their mean with the standard error that the draw of 10,000 test images leaves (from the\n"
        "images on which the two disagree, seeds averaged). *Least divergence*: of the others, whose it is,\n"
        "and its ratio to ours, seed by seed.\n\n"
    )
    text += table_row(["cut", "ours", "best other", "difference", "mean", "least divergence of others"])
    text += table_row(["---"] * 6)
    for pair in rivals(rows):
        methods = by_method([r for r in rows if r["ratio"] == pair.ratio])
        ours, best = {r["seed"]: r for r in methods[pair.ours]}, methods[pair.best]
        others = {k: v for k, v in methods.items() if k[0] != OURS}
        (near, near_mode), nearest = min(others.items(), key=lambda item: mean(item[1], "divergence"))
        gaps = [f"{100 * (ours[r['seed']]['recovered'] - r['recovered']):+.2f}" for r in best]
        ratios = [f"{r['divergence'] / ours[r['seed']]['divergence']:.2f}" for r in nearest]
        cells = [
            f"{pair.ratio:.0%}",
            _spread([*ours.values()], "recovered"),
            f"{', '.join(pair.best)}: {_spread(best, 'recovered')}",
            ", ".join(gaps),
            _paired([(ours[r["seed"]], r) for r in best]),
            f"{near}, {near_mode}: {', '.join(ratios)}",
        ]
        text += table_row(cells)
    return text


def table_row(cells: list[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |\n"


def _paired(pairs: list[tuple[Row, Row]]) -> str:
    """Mean difference in points over seeds and its standard error over test images."""
    each = np.mean([_hits(a) - _hits(b) for a, b in pairs], axis=0)
    return f"{100 * each.mean():+.2f} ± {100 * each.std(ddof=1) / len(each) ** 0.5:.2f}"


def _hits(row: Row) -> np.ndarray:
    """1 for each test image (n,) told rightly, else 0."""
    return unpacked(row["hits"]).astype(float)


def by_method(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by criterion and selection, in order of their seeds."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: r["seed"]):
        found[row["criterion"], row["mode"]].append(row)
    return found


def mean(rows: list[Row], key: str) -> float:
    """Of one figure."""
    return statistics.mean(r[key] for r in rows)


def _spread(rows: list[Row], key: str) -> str:
    values = [r[key] for r in rows]
    text = f"{100 * statistics.mean(values):.2f}"
    return text if len(values) < 2 else f"{text} ± {50 * (max(values) - min(values)):.2f}"
