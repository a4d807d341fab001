"""EfficientNet-Lite at several cuts: pruned, recovered, distilled; ours and others, recovered alike."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Jobs, NotMeasuredError, keep
from imagenet_data import no_images
from imagenet_jobs import Settings, child
from imagenet_networks import SIZES, lacking

Row = dict[str, Any]

RATIOS = (0.25, 0.1, 0.15, 0.4)
"""Cuts in the order in which they are made."""
OURS = "hybrid"
METHODS = (OURS, "l1", "fpgm", "taylor", "Torch-Pruning, each layer alike", "Torch-Pruning, global")
STAGES = ("pruned", "recovered", "distilled")
DISTILLED_SEEDS = 1


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A network of the table; ``minutes`` of distillation, 0 for what is recovered alone."""

    network: int
    method: str
    ratio: float
    seed: int
    minutes: float = 0.0

    @property
    def name(self) -> str:
        """Of its result."""
        stage = f"distilled {self.minutes:g} min" if self.minutes else "recovered"
        return f"lite{self.network} {stage} {self.method} {self.ratio:g} {self.seed}"

    @property
    def plan(self) -> str:
        """Of the plan that both stages share."""
        method = "".join(c if c.isalnum() else "-" for c in self.method)
        return f"lite{self.network}-{method}-{self.ratio:g}-{self.seed}"


def lacks(network: int) -> str | None:
    """Why EfficientNet-Lite ``network`` cannot be measured here."""
    return no_images() or lacking(network)


def cells(
    network: int, ratios: Sequence[float], methods: Sequence[str], minutes: float, seeds: int
) -> list[Cell]:
    """In the order of work: by seed, ours before the others, all recovered before the first is distilled."""
    stages = (0.0, minutes) if minutes else (0.0,)
    found = [
        Cell(network=network, method=m, ratio=r, seed=s, minutes=t)
        for s in range(seeds)
        for m in methods
        for r in ratios
        for t in stages
        if not t or s < DISTILLED_SEEDS
    ]
    return sorted(found, key=lambda c: (c.seed, c.method != OURS, c.minutes, ratios.index(c.ratio)))


def jobs(planned: Sequence[Cell], folder: Path, settings: Settings, threads: int) -> Jobs:
    """The original first, then every cell, each in processes of its own; cells not asked for are not run."""
    shared = {"network": planned[0].network, "images": settings.images, "threads": threads, "seed": 0}
    found: Jobs = {
        f"lite{planned[0].network} original": lambda work: child({**shared, "task": "original"}, work)
    }
    for cell in planned:
        measure = _distilled if cell.minutes else _recovered
        if cell.method not in settings.methods or cell.ratio not in settings.ratios:
            measure = _left_out
        task = {**shared, **asdict(cell)}
        found[cell.name] = lambda work, c=cell, t=task, m=measure: m(c, t, folder, work)
    return found


def _left_out(_cell: Cell, _task: Row, _folder: Path, _work: Path) -> Row:
    raise NotMeasuredError


def _recovered(cell: Cell, task: Row, folder: Path, work: Path) -> Row:
    """Plan where no job has planned before, prune and recover; plan and weights are kept for distillation."""
    plan, state = _kept(cell, folder)
    planned = _planned(plan, task, work)
    found = child({**task, "task": "recover", "plan": str(plan), "state": str(state)}, work)
    effort = {key: planned[key] for key in ("seconds", "cpu_s", "peak_bytes")}
    return {**asdict(cell), **found, "pruned": {**found["pruned"], **effort}}


def _distilled(cell: Cell, task: Row, folder: Path, work: Path) -> Row:
    """Recover, with images kept back for the training as ``compress`` does, and train."""
    plan, _ = _kept(cell, folder)
    state = work / "recovered.pt"
    _planned(plan, task, work)
    child({**task, "task": "recover", "plan": str(plan), "state": str(state), "training": True}, work)
    found = child({**task, "task": "train", "plan": str(plan), "state": str(state)}, work)
    return {**asdict(cell), "distilled": found}


def _kept(cell: Cell, folder: Path) -> tuple[Path, Path]:
    """Files of the plan and of the recovered weights."""
    plans, networks = folder / "plans", folder / "networks"
    for each in (plans, networks):
        each.mkdir(exist_ok=True)
    return plans / f"{cell.plan}.json", networks / f"{cell.plan}.pt"


def _planned(path: Path, task: Row, work: Path) -> Row:
    if not path.exists():
        keep(path, child({**task, "task": "plan"}, work))
    found: Row = json.loads(path.read_text())
    return found


def render(rows: list[Row]) -> str:
    """A table a cut, methods by what recovery leaves, and ours against the best other."""
    base = next((r for r in rows if "method" not in r), None)
    plans = [r for r in rows if "recovered" in r]
    taught = {_key(r): r for r in rows if "distilled" in r}
    if base is None or not plans:
        return "" if base is None else f"The original has {base['top1']:.1%}.\n"
    text = _introduction(base, plans[0], max((r["minutes"] for r in taught.values()), default=0.0))
    for ratio in sorted({r["ratio"] for r in plans}):
        text += _cut([r for r in plans if r["ratio"] == ratio], taught, ratio)
    return text + _verdict(plans)


def _introduction(base: Row, plan: Row, minutes: float) -> str:
    network, deciding = plan["network"], plan["deciding_images"]
    trained = f" and our\ndistillation ({minutes:g} minutes of CPU time, seed 0)" if minutes else ""
    return (
        f"EfficientNet-Lite{network} at {SIZES[network]} pixels, {plan['fitting_images'] + deciding} "
        f"unlabelled images to fit with, of which recovery and\ndistillation keep {deciding} to decide; "
        f"another order and split a seed. {base['test_images']} test images that only judge; the\noriginal "
        f"has {base['top1']:.1%}. Widths in the steps of the target rpi4. All methods have our recovery"
        f"{trained}.\n*hybrid* is ours, beyond 30% of the MACs in rounds as `compress` does it; "
        "*Torch-Pruning*: its magnitude.\n*agreement*: test images on which the network says the same as the "
        "original; *divergence*: mean\nKullback-Leibler divergence of its answers from the original's. *s*, "
        "*CPU s* and *memory* (at most) are of the\nstage, in a process of its own: of ranking and selecting "
        "for *pruned*, of recovery, of distillation. Means over\nseeds, ± half of the range where there are "
        "several.\n"
    )


def _cut(rows: list[Row], taught: dict[Any, Row], ratio: float) -> str:
    text = f"\n## {ratio:.0%} of the MACs cut\n\n"
    titles = ["method", "stage", "seeds", "MACs removed", "top-1", "agreement", "divergence", "s", "CPU s"]
    text += _line([*titles, "memory"]) + _line(["---"] * 10)
    methods = {r["method"] for r in rows}
    by_method = {m: [r for r in rows if r["method"] == m] for m in methods}
    for method in sorted(methods, key=lambda m: -_mean(r["recovered"]["top1"] for r in by_method[m])):
        own = by_method[method]
        distilled = [taught[_key(r)]["distilled"] for r in own if _key(r) in taught]
        stages = ([r["pruned"] for r in own], [r["recovered"] for r in own], distilled)
        for stage, found in zip(STAGES, stages, strict=True):
            if found:
                label = f"**{method}**" if method == OURS else method
                removed = f"{_mean(r['macs_removed'] for r in own):.1%}"
                text += _line([label, stage, f"{len(found)}", removed, *_figures(found)])
    return text


def _figures(found: list[Row]) -> list[str]:
    return [
        _spread([100 * r["top1"] for r in found], 1),
        _spread([100 * r["agreement"] for r in found], 1),
        _spread([r["divergence"] for r in found], 3),
        f"{_mean(r['seconds'] for r in found):.0f}",
        f"{_mean(r['cpu_s'] for r in found):.0f}",
        f"{max(r['peak_bytes'] for r in found) / 1e9:.2f} GB",
    ]


def _verdict(rows: list[Row]) -> str:
    """Recovered: ours against the other with the highest mean, on the seeds that both have."""
    text = (
        "\n## Ours against the best other, recovered\n\n"
        "Points of top-1 by seed, then their mean with the standard error that the draw of test images\n"
        "leaves (from the images on which the two disagree, seeds averaged); points of agreement by seed.\n\n"
    )
    text += _line(["cut", "ours", "best other", "difference", "mean", "agreement, difference"])
    text += _line(["---"] * 6)
    ratios = sorted({r["ratio"] for r in rows})
    lines = [line for ratio in ratios if (line := _rivals([r for r in rows if r["ratio"] == ratio], ratio))]
    return text + "".join(lines) if lines else ""


def _rivals(rows: list[Row], ratio: float) -> str:
    """The line of a cut; nothing where ours or every other is missing."""
    ours = {r["seed"]: r["recovered"] for r in rows if r["method"] == OURS}
    others = {r["method"] for r in rows if r["method"] != OURS and r["seed"] in ours}
    if not others:
        return ""
    shared = {m: [r for r in rows if r["method"] == m and r["seed"] in ours] for m in others}
    best = max(sorted(shared), key=lambda m: _mean(r["recovered"]["top1"] for r in shared[m]))
    pairs = [(ours[r["seed"]], r["recovered"]) for r in shared[best]]
    own, other = ([100 * pair[side]["top1"] for pair in pairs] for side in (0, 1))
    return _line(
        [
            f"{ratio:.0%}",
            _spread(own, 1),
            f"{best}: {_spread(other, 1)}",
            ", ".join(f"{a - b:+.1f}" for a, b in zip(own, other, strict=True)),
            _paired(pairs),
            ", ".join(f"{100 * (a['agreement'] - b['agreement']):+.1f}" for a, b in pairs),
        ]
    )


def _paired(pairs: list[tuple[Row, Row]]) -> str:
    each = np.mean([_hits(a) - _hits(b) for a, b in pairs], axis=0)
    return f"{100 * each.mean():+.1f} ± {100 * each.std(ddof=1) / len(each) ** 0.5:.1f}"


def _hits(row: Row) -> np.ndarray:
    return np.array([hit == "1" for hit in row["hits"]], dtype=float)


def _key(row: Row) -> tuple[str, float, int]:
    return row["method"], row["ratio"], row["seed"]


def _mean(values: Iterable[float]) -> float:
    return statistics.mean(values)


def _spread(values: list[float], digits: int) -> str:
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {(max(values) - min(values)) / 2:.{digits}f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
