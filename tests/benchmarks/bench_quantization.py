"""8 bits: accuracy of ResNet-20 on the whole test set, CPU time of networks at 224 pixels.

Run as ``python tests/benchmarks/bench_quantization.py --results FOLDER``; writes
``docs/benchmarks/quantization.md`` from all that lies in FOLDER and goes on where it stopped.
``--limit-minutes 0`` only writes it anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import quantized_latency
import quantized_resnet20
import torch
from common import header, write_result
from trained_network import TrainedNetwork


def main() -> None:
    """Measure what is not there yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="keeps one JSON a result (default: a scratch folder)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    deadline = time.monotonic() + 60 * options.limit_minutes
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.results or Path(scratch) / "results"
        folder.mkdir(parents=True, exist_ok=True)
        jobs = _jobs(options.seeds, options.threads)
        for name, work in jobs.items():
            if (folder / name).exists() or time.monotonic() > deadline:
                continue
            with tempfile.TemporaryDirectory() as own:
                found = work(Path(own))
            (folder / name).write_text(json.dumps(found, indent=1))
            print(f"{name}: {json.dumps(found)}", flush=True)
        rows = [json.loads((folder / name).read_text()) for name in jobs if (folder / name).exists()]
        missing = [name.removesuffix(".json") for name in jobs if not (folder / name).exists()]
    text = header(
        "8 bits: accuracy and CPU time",
        "python tests/benchmarks/bench_quantization.py --results FOLDER",
        ", ".join(str(s) for s in range(options.seeds)),
        options.threads,
    )
    text += quantized_resnet20.render([r for r in rows if "case" in r])
    text += quantized_latency.render([r for r in rows if "network" in r])
    text += f"\nNot run: {', '.join(missing)}.\n" if missing else ""
    write_result("quantization.md", text)


def _jobs(seeds: int, threads: int) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """What there is to do, by the name of the file that keeps its result."""
    bench = TrainedNetwork()
    jobs: dict[str, Callable[[Path], dict[str, Any]]] = {}
    for seed in range(seeds):
        for case in quantized_resnet20.CASES:
            words = "".join(c if c.isalnum() else "-" for c in case)
            jobs[f"resnet20-{words}-{seed}.json"] = lambda work, case=case, seed=seed: (
                quantized_resnet20.measure(bench, case, seed, work)
            )
    for name in quantized_latency.NETWORKS:
        jobs[f"{name}.json"] = lambda work, name=name: quantized_latency.network(name, work, threads=threads)
    jobs["combined.json"] = lambda work: quantized_latency.combined(work, threads=threads)
    return jobs


if __name__ == "__main__":
    main()
