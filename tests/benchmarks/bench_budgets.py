"""Budgets: accuracy at a given cost beside other methods, latency asked and reached, requests of all kinds.

Run as ``python tests/benchmarks/bench_budgets.py --results FOLDER``; writes ``docs/benchmarks/budgets.md``
from all that lies in FOLDER and goes on where it stopped. ``--limit-minutes 0`` only writes it anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import budget_accuracy
import budget_limits
import torch
from common import header, write_result
from trained_network import TrainedNetwork

PARTS = ("latency", "requests", "accuracy")


def main() -> None:
    """Measure what is not there yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="keeps one JSON a result (default: a scratch folder)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    deadline = time.monotonic() + 60 * options.limit_minutes
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.results or Path(scratch) / "results"
        folder.mkdir(parents=True, exist_ok=True)
        bench = TrainedNetwork()
        for name, work in _jobs(bench, folder, options.parts, options.seeds, options.threads).items():
            path = folder / name
            if path.exists() or time.monotonic() > deadline:
                continue
            with tempfile.TemporaryDirectory() as own:
                found = work(Path(own))
            path.write_text(json.dumps(found, indent=1))
            print(f"{path.stem}: {json.dumps(found)}", flush=True)
        planned = budget_accuracy.cells(options.seeds)
        absent = sum(not (folder / c.file_name).exists() for c in planned)
        base = bench.base_accuracy()
        accuracy = [json.loads(p.read_text()) for p in sorted(folder.glob("accuracy-*.json"))]
        others = [json.loads((folder / n).read_text()) for n in _limits_files() if (folder / n).exists()]
    text = header(
        "Budgets: what is left of accuracy, and whether limits hold",
        "python tests/benchmarks/bench_budgets.py --results FOLDER",
        ", ".join(str(s) for s in range(options.seeds)),
        options.threads,
    )
    text += budget_accuracy.render(accuracy, base, absent) + budget_limits.render(others)
    write_result("budgets.md", text)


def _limits_files() -> list[str]:
    return [
        *(f"latency-{n}.json" for n in budget_limits.NETWORKS),
        *(f"request-{n.replace(' ', '-')}.json" for n in budget_limits.REQUESTS),
    ]


def _jobs(
    bench: TrainedNetwork, folder: Path, parts: list[str], seeds: int, threads: int
) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """What there is to do, by the name of the file that keeps its result."""
    jobs: dict[str, Callable[[Path], dict[str, Any]]] = {}
    if "latency" in parts:
        for name in budget_limits.NETWORKS:
            jobs[f"latency-{name}.json"] = lambda _work, name=name: budget_limits.half_of_the_latency(
                name, folder / "searches" / name, threads=threads
            )
    if "requests" in parts:
        for name in budget_limits.REQUESTS:
            jobs[f"request-{name.replace(' ', '-')}.json"] = lambda work, name=name: budget_limits.request(
                name, work, threads=threads
            )
    if "accuracy" in parts:
        for cell in budget_accuracy.cells(seeds):
            jobs[cell.file_name] = lambda _work, cell=cell: budget_accuracy.measure(bench, cell)
    return jobs


if __name__ == "__main__":
    main()
