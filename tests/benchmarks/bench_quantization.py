"""8 bits: accuracy of ResNet-20 on the whole test set, CPU time and memory of networks at 224 pixels.

Run as ``python tests/benchmarks/bench_quantization.py --results FOLDER``; goes on where it stopped and
writes a page a part, ``docs/benchmarks/quantization-PART.md``, from all that lies in FOLDER.
``--limit-minutes 0`` only writes.
"""

from __future__ import annotations

from pathlib import Path

import quantized_latency
import quantized_memory
import quantized_resnet20
from common import Jobs, Part, run_parts
from trained_network import TrainedNetwork


def _accuracy(_folder: Path, seeds: int, _threads: int) -> Jobs:
    bench = TrainedNetwork()
    return {
        f"resnet20-{case}-{seed}": lambda work, case=case, seed=seed: quantized_resnet20.measure(
            bench, case, seed, work
        )
        for seed in range(seeds)
        for case in quantized_resnet20.CASES
    }


def _latency(_folder: Path, _seeds: int, threads: int) -> Jobs:
    jobs: Jobs = {
        name: lambda work, name=name: quantized_latency.network(name, work, threads=threads)
        for name in quantized_latency.NETWORKS
    }
    for name in quantized_latency.COMBINED:
        jobs[name] = lambda work, name=name: quantized_latency.combined(name, work, threads=threads)
    return jobs


def _memory(_folder: Path, _seeds: int, threads: int) -> Jobs:
    return {
        f"memory-{name}": lambda work, name=name: quantized_memory.calibrated(name, work, threads=threads)
        for name in quantized_memory.NETWORKS
    }


PARTS = {
    "accuracy": Part(
        title="8 bits: accuracy of ResNet-20 on CIFAR-10",
        jobs=_accuracy,
        render=quantized_resnet20.render,
        seeded=True,
    ),
    "latency": Part(
        title=f"8 bits: CPU time over 32 bits, {quantized_latency.SIZE} pixels",
        jobs=_latency,
        render=quantized_latency.render,
    ),
    "memory": Part(
        title=f"8 bits: memory of calibration, {quantized_latency.SIZE} pixels",
        jobs=_memory,
        render=quantized_memory.render,
    ),
}

if __name__ == "__main__":
    run_parts("quantization", __doc__, PARTS, threads=1)
