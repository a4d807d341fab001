"""Budgets: accuracy at a given cost beside other methods, half of the latency, requests of all kinds.

Run as ``python tests/benchmarks/bench_budgets.py --results FOLDER``; goes on where it stopped and
writes a page a part, ``docs/benchmarks/budgets-PART.md``, from all that lies in FOLDER.
``--limit-minutes 0`` only writes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import budget_accuracy
import budget_latency
import budget_requests
from common import Jobs, Part, run_parts
from trained_network import TrainedNetwork


@cache
def _bench() -> TrainedNetwork:
    return TrainedNetwork()


def _latency(folder: Path, _seeds: int, threads: int) -> Jobs:
    return {
        f"latency-{name}": lambda _work, name=name: budget_latency.half_of_the_latency(
            name, folder / "searches" / name, threads=threads
        )
        for name in budget_latency.NETWORKS
    }


def _requests(_folder: Path, _seeds: int, threads: int) -> Jobs:
    return {
        f"request-{number}": lambda work, name=name: budget_requests.request(name, work, threads=threads)
        for number, name in enumerate(budget_requests.NAMES)
    }


def _accuracy(_folder: Path, seeds: int, _threads: int) -> Jobs:
    return {
        cell.name: lambda _work, cell=cell: budget_accuracy.measure(_bench(), cell)
        for cell in budget_accuracy.cells(seeds)
    }


def _accuracy_page(rows: list[dict[str, Any]]) -> str:
    return budget_accuracy.render(rows, _bench().base_accuracy())


PARTS = {
    "accuracy": Part(
        title="Budgets: what is left of accuracy, ResNet-20 on CIFAR-10",
        jobs=_accuracy,
        render=_accuracy_page,
        seeded=True,
    ),
    "latency": Part(
        title=f"Budgets: half of the latency, {budget_latency.SIZE} pixels",
        jobs=_latency,
        render=budget_latency.render,
    ),
    "requests": Part(title="Budgets: requests of ResNet-20", jobs=_requests, render=budget_requests.render),
}

if __name__ == "__main__":
    run_parts("budgets", __doc__, PARTS, threads=2)
