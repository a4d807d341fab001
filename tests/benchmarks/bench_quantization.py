"""8 bits: accuracy of ResNet-20 on the whole test set, CPU time of networks at 224 pixels.

Run as ``python tests/benchmarks/bench_quantization.py --results FOLDER``; goes on where it stopped and
writes a page a part, ``docs/benchmarks/quantization-PART.md``, from all that lies in FOLDER.
``--limit-minutes 0`` only writes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import quantized_latency
import quantized_resnet20
import torch
from common import header, results_of, write_result
from trained_network import TrainedNetwork

Row = dict[str, Any]

TITLES = {
    "accuracy": "8 bits: accuracy of ResNet-20 on CIFAR-10",
    "latency": f"8 bits: CPU time over 32 bits, {quantized_latency.SIZE} pixels",
}
RENDER = {"accuracy": quantized_resnet20.render, "latency": quantized_latency.render}


def main() -> None:
    """Measure what is not there yet, then write the pages of the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="keeps one JSON a result (default: a scratch folder)")
    parser.add_argument("--parts", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    deadline = time.monotonic() + 60 * options.limit_minutes
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.results or Path(scratch) / "results"
        for part in options.parts:
            jobs = _accuracy(options.seeds) if part == "accuracy" else _latency(options.threads)
            rows, missing = results_of(jobs, folder, deadline)
            seeds = ", ".join(str(s) for s in range(options.seeds if part == "accuracy" else 1))
            command = f"python tests/benchmarks/bench_quantization.py --results FOLDER --parts {part}"
            text = header(TITLES[part], command, seeds, options.threads) + RENDER[part](rows)
            text += f"\nNot run: {', '.join(missing)}.\n" if missing else ""
            write_result(f"quantization-{part}.md", text)


def _accuracy(seeds: int) -> dict[str, Callable[[Path], Row]]:
    """What there is to do, by the name of its result."""
    bench = TrainedNetwork()
    return {
        f"resnet20-{case}-{seed}": lambda work, case=case, seed=seed: quantized_resnet20.measure(
            bench, case, seed, work
        )
        for seed in range(seeds)
        for case in quantized_resnet20.CASES
    }


def _latency(threads: int) -> dict[str, Callable[[Path], Row]]:
    jobs: dict[str, Callable[[Path], Row]] = {
        name: lambda work, name=name: quantized_latency.network(name, work, threads=threads)
        for name in quantized_latency.NETWORKS
    }
    for name in quantized_latency.COMBINED:
        jobs[name] = lambda work, name=name: quantized_latency.combined(name, work, threads=threads)
    return jobs


if __name__ == "__main__":
    main()
