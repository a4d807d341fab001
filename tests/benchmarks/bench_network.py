"""Every criterion on ResNet-20: four cuts, one share for all groups or chosen over the network, no training.

Run as ``python tests/benchmarks/bench_network.py --results FOLDER``; writes
``docs/benchmarks/shapley-network.md`` from all that lies in FOLDER and goes on where it stopped.
``--limit-minutes 0`` only writes the table anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

import torch
from common import commits, folder_or_scratch, header, results_of, write_result
from network_report import OURS, ROUNDS, Rivals, left_out, render, rivals
from network_rivals import look, render_rivals
from trained_network import IMAGES, TrainedNetwork

from edgeprune.commands.run.iterative_pruning import MOST_AT_ONCE
from edgeprune.importance.registry import criterion_names

RATIOS = (0.25, 0.4, 0.5, 0.65)
MODES = ("global", "uniform", ROUNDS)
LEADING = ("hybrid", "fpgm", "l2", "l1", "taylor-squared", "activation-weight")
"""Criteria that are run first."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One pruned network of the table."""

    criterion: str
    ratio: float
    mode: str
    seed: int

    @property
    def name(self) -> str:
        """Of its result."""
        return f"{self.criterion}-{self.ratio:g}-{self.mode}-{self.seed}"


def measure(bench: TrainedNetwork, cell: Cell) -> dict[str, object]:
    """Score, select, prune, recover and judge."""
    context = bench.context(cell.seed, cell.ratio)
    started = time.perf_counter()
    if cell.mode == ROUNDS:
        removed, ranking = bench.plan_in_rounds(cell.ratio, cell.seed)
        effort = {"evaluations": ranking.evaluations, "score_s": time.perf_counter() - started}
        choice = f"costs of the rest anew after {', '.join(f'{r:.0%}' for r in ranking.rounds)}"
    else:
        scores = bench.scores(cell.criterion, cell.ratio, cell.seed)
        removed = bench.plan(cell.criterion, cell.ratio, cell.seed, uniform=cell.mode == "uniform")
        effort = {"evaluations": scores.evaluations, "score_s": scores.duration_s}
        choice = scores.choice
    found = bench.recover(removed, context.images.images, cell.seed)
    return {
        **asdict(cell),
        "macs_removed": bench.macs_removed(removed),
        "pruned": float(bench.hits(bench.outputs(found.bare)).mean()),
        **bench.judged(bench.outputs(found.recovered)),
        **effort,
        "recovery_cpu_s": found.recovery_cpu_s,
        "choice": choice,
    }


def cells(seeds: int) -> list[Cell]:
    """In the order of work: the leading criteria, then the others."""
    names = [*LEADING, *(n for n in criterion_names() if n not in LEADING)]
    found = []
    for seed in range(seeds):
        for ratio in RATIOS:
            for name in names:
                modes = [m for m in MODES if m != ROUNDS or (name == OURS and ratio > MOST_AT_ONCE)]
                found += [Cell(criterion=name, ratio=ratio, mode=m, seed=seed) for m in modes]
    return sorted(found, key=lambda c: (c.criterion not in LEADING, c.seed, c.ratio))


def looks(
    bench: TrainedNetwork, rows: list[dict[str, object]], folder: Path, deadline: float
) -> list[tuple[Rivals, dict[tuple[str, int], dict[str, object]]]]:
    """Ours and the best other of each cut, looked at more closely; cuts without all of it are left out."""
    folder.mkdir(exist_ok=True)
    whole = []
    for pair in rivals(rows):
        both = [(method, seed) for seed in pair.seeds for method in (pair.ours, pair.best)]
        jobs = {
            f"{pair.ratio:g}-{'-'.join(method)}-{seed}": lambda _work, method=method, seed=seed, pair=pair: (
                look(bench, method, pair.ratio, seed)
            )
            for method, seed in both
        }
        found, missing = results_of(jobs, folder, deadline)
        if not missing:
            whole.append((pair, {(m[0], seed): row for (m, seed), row in zip(both, found, strict=True)}))
    return whole


def main() -> None:
    """Measure what is not there yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="keeps one JSON a network (default: a scratch folder)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="CRITERION", help="others are not run now")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    deadline = time.monotonic() + 60 * options.limit_minutes
    with folder_or_scratch(options.results) as folder:
        bench = TrainedNetwork()
        planned = cells(options.seeds)
        wanted = [
            c for c in planned if c.mode in options.modes and c.criterion in (options.only or [c.criterion])
        ]
        results_of({c.name: lambda _work, cell=c: measure(bench, cell) for c in wanted}, folder, deadline)
        (base,), _ = results_of({"base": lambda _work: {"accuracy": bench.base_accuracy()}}, folder, inf)
        rows = [json.loads(p.read_text()) for p in sorted(folder.glob("*-*.json"))]
        text = header(
            "Criteria side by side on ResNet-20, without training",
            "python tests/benchmarks/bench_network.py --results FOLDER",
            ", ".join(str(s) for s in range(options.seeds)),
            options.threads,
            commits(folder),
        )
        absent = Counter(
            f"{c.criterion} {c.mode}" for c in planned if not (folder / f"{c.name}.json").exists()
        )
        text += render(rows, base["accuracy"], IMAGES)
        text += render_rivals(looks(bench, rows, folder / "rivals", deadline)) + left_out(dict(absent))
    write_result("shapley-network.md", text)


if __name__ == "__main__":
    main()
