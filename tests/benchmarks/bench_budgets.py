"""Budgets: accuracy at a given cost beside other methods, half of the latency, requests of all kinds.

Run as ``python tests/benchmarks/bench_budgets.py --results FOLDER``; goes on where it stopped and
writes a page a part, ``docs/benchmarks/budgets-PART.md``, from all that lies in FOLDER.
``--limit-minutes 0`` only writes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import budget_accuracy
import budget_latency
import budget_requests
import torch
from common import header, results_of, write_result
from trained_network import TrainedNetwork

Row = dict[str, Any]

TITLES = {
    "accuracy": "Budgets: what is left of accuracy, ResNet-20 on CIFAR-10",
    "latency": f"Budgets: half of the latency, {budget_latency.SIZE} pixels",
    "requests": "Budgets: requests of ResNet-20",
}


def main() -> None:
    """Measure what is not there yet, then write the pages of the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="keeps one JSON a result (default: a scratch folder)")
    parser.add_argument("--parts", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    deadline = time.monotonic() + 60 * options.limit_minutes
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.results or Path(scratch) / "results"
        bench = TrainedNetwork()
        for part in options.parts:
            jobs = _jobs(part, bench, folder, options.seeds, options.threads)
            rows, missing = results_of(jobs, folder, deadline)
            seeds = ", ".join(str(s) for s in range(options.seeds if part == "accuracy" else 1))
            command = f"python tests/benchmarks/bench_budgets.py --results FOLDER --parts {part}"
            text = header(TITLES[part], command, seeds, options.threads)
            if rows:
                text += _render(part, rows, bench)
            text += f"\nNot run: {', '.join(missing)}.\n" if missing else ""
            write_result(f"budgets-{part}.md", text)


def _jobs(
    part: str, bench: TrainedNetwork, folder: Path, seeds: int, threads: int
) -> dict[str, Callable[[Path], Row]]:
    """What there is to do, by the name of its result."""
    if part == "latency":
        return {
            f"latency-{name}": lambda _work, name=name: budget_latency.half_of_the_latency(
                name, folder / "searches" / name, threads=threads
            )
            for name in budget_latency.NETWORKS
        }
    if part == "requests":
        return {
            f"request-{number}": lambda work, name=name: budget_requests.request(name, work, threads=threads)
            for number, name in enumerate(budget_requests.NAMES)
        }
    return {
        cell.name: lambda _work, cell=cell: budget_accuracy.measure(bench, cell)
        for cell in budget_accuracy.cells(seeds)
    }


def _render(part: str, rows: list[Row], bench: TrainedNetwork) -> str:
    if part == "latency":
        return budget_latency.render(rows)
    if part == "requests":
        return budget_requests.render(rows)
    return budget_accuracy.render(rows, bench.base_accuracy())


if __name__ == "__main__":
    main()
