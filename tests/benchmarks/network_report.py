"""The result file of the network benchmark: one table a cut, criteria by their accuracy after recovery."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

Row = dict[str, Any]

OURS = "hybrid"


def render(rows: list[Row], base: float, images: int, missing: dict[str, int]) -> str:
    """Everything below the header."""
    text = (
        f"{images:,} unlabelled training images (another draw a seed), whole test set of 10,000 images, no\n"
        f"training; the original has {base:.2%}. *global*: players with the least removal cost per MAC\n"
        "saved leave, over all groups (`edgeprune.selection`); *uniform*: the same share of every group,\n"
        "cheapest first. *pruned*: before recovery; *recovered*: after the closed-form recovery, the same\n"
        "for all. Mean over seeds, ± half of the range where there are several. *score*: wall seconds of\n"
        "the criterion, on a machine that did other work, too; *passes*: batch passes.\n"
    )
    for ratio in sorted({r["ratio"] for r in rows}):
        text += _cut([r for r in rows if r["ratio"] == ratio], ratio)
    return text + _verdict(rows) + _left_out(missing)


def _left_out(missing: dict[str, int]) -> str:
    """Networks of the plan that were not measured, by criterion and selection."""
    if not missing:
        return ""
    return "\nNot run: " + ", ".join(f"{name} ({count})" for name, count in missing.items()) + " networks.\n"


def _cut(rows: list[Row], ratio: float) -> str:
    by_method = _by_method(rows)
    ordered = sorted(by_method.items(), key=lambda item: -_mean(item[1], "recovered"))
    text = f"\n## {ratio:.0%} of the MACs cut\n\n"
    text += "| criterion | selection | seeds | MACs removed | pruned | recovered | passes | score |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for (name, mode), found in ordered:
        cells = [
            f"**{name}**" if name == OURS else name,
            mode,
            f"{len(found)}",
            f"{_mean(found, 'macs_removed'):.1%}",
            _spread(found, "pruned"),
            _spread(found, "recovered"),
            f"{_mean(found, 'evaluations'):.0f}",
            f"{_mean(found, 'score_s'):.0f} s",
        ]
        text += f"| {' | '.join(cells)} |\n"
    return text


def _verdict(rows: list[Row]) -> str:
    text = "\n## Ours against the best other\n\n"
    text += "Points of accuracy after recovery; the seeds' images are common to both.\n\n"
    text += "| cut | ours | best other | difference by seed |\n|---|---|---|---|\n"
    for ratio in sorted({r["ratio"] for r in rows}):
        by_method = _by_method([r for r in rows if r["ratio"] == ratio])
        ours = by_method.get((OURS, "global"), [])
        others = {k: v for k, v in by_method.items() if k[0] != OURS}
        if not ours or not others:
            continue
        (name, mode), best = max(others.items(), key=lambda item: _mean(item[1], "recovered"))
        at = {r["seed"]: r["recovered"] for r in best}
        gaps = [f"{100 * (r['recovered'] - at[r['seed']]):+.2f}" for r in ours if r["seed"] in at]
        text += (
            f"| {ratio:.0%} | {_spread(ours, 'recovered')} | {name}, {mode}: {_spread(best, 'recovered')} "
            f"| {', '.join(gaps)} |\n"
        )
    return text


def _by_method(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: r["seed"]):
        found[row["criterion"], row["mode"]].append(row)
    return found


def _mean(rows: list[Row], key: str) -> float:
    return statistics.mean(r[key] for r in rows)


def _spread(rows: list[Row], key: str) -> str:
    values = [r[key] for r in rows]
    text = f"{100 * statistics.mean(values):.2f}"
    return text if len(values) < 2 else f"{text} ± {50 * (max(values) - min(values)):.2f}"
