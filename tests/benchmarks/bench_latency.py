"""How far measured latencies are to be trusted: writes docs/benchmarks/latency-noise.md.

Run: python tests/benchmarks/bench_latency.py [--repeats 6]

Part "A/A": a model against itself with one thread, by the protocol of every comparison, while another process
keeps the machine busy. All that differs from 1 is noise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import REPOSITORY, header, write_result
from resnet20 import resnet20
from torch import nn

from edgeprune.capture.export import export_program
from edgeprune.devices.recorded import NOISE_LIMIT
from edgeprune.exporting import export_onnx
from edgeprune.profiling.timing import compare
from edgeprune.system.compat import import_torchvision

SHAPES = {"digits": (1, 8, 8), "resnet20": (3, 32, 32), "mobilenet_v3_small": (3, 224, 224)}
BUSY = "import os; begun_by = os.getppid()\nwhile os.getppid() == begun_by: sum(i * i for i in range(10_000))"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A model against itself: median ratio of CPU time, and its 95% interval."""

    model: str
    ratio: float
    low: float
    high: float


def network(name: str) -> nn.Module:
    """With random weights, which times do not depend on."""
    torch.manual_seed(0)
    if name == "digits":
        sys.path.insert(0, str(REPOSITORY / "examples" / "digits"))
        from model import DigitsNet

        return DigitsNet()
    if name == "resnet20":
        return resnet20()
    return import_torchvision().models.get_model(name, weights=None)


@contextmanager
def busy_machine() -> Iterator[None]:
    """Another process that computes all the time."""
    child = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        child.kill()
        child.wait()


def measured(repeats: int) -> list[Comparison]:
    """All models, in turns."""
    comparisons = []
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: Path(scratch) / f"{name}.onnx" for name in SHAPES}
        for name, path in paths.items():
            export_onnx(export_program(network(name).eval(), torch.zeros(2, *SHAPES[name])), path)
        with busy_machine():
            for repeat in range(repeats):
                for name, path in paths.items():
                    told = compare(path, path, threads=1, batch_size=1, seed=repeat)
                    comparisons.append(Comparison(model=name, ratio=told.ratio, low=told.low, high=told.high))
    return comparisons


def rendered(comparisons: list[Comparison], load_average: tuple[float, float], took_s: float) -> str:
    """The page."""
    off = {name: [abs(c.ratio - 1) for c in comparisons if c.model == name] for name in SHAPES}
    everything = [each for values in off.values() for each in values]
    tail = float(np.quantile(everything, 0.9))
    verdict = "reached" if tail <= NOISE_LIMIT else "MISSED"
    rows = [
        f"| {name} | {len(values)} | {statistics.median(values):.2%} | {np.quantile(values, 0.9):.2%} "
        f"| {max(values):.2%} | {_covered(name, comparisons)} |"
        for name, values in off.items()
    ]
    return "\n".join(
        (
            header("Noise of measured latencies", "python tests/benchmarks/bench_latency.py", "0 on", 1),
            "A model against itself, by the protocol of every comparison: 100 pairs in turns, five rounds of",
            "new sessions, CPU time, one thread. Another process computed all the while, beside whatever",
            f"else the machine did: load average {load_average[0]:.1f} before and {load_average[1]:.1f}",
            f"after, on {os.cpu_count()} cores. It took {took_s:.0f} s.",
            "",
            f"**90th percentile of |ratio - 1| over all comparisons: {tail:.2%}** (aim: at most "
            f"{NOISE_LIMIT:.0%}, {verdict}).",
            "",
            "| model | times | median of abs(ratio - 1) | 90th percentile | largest | interval has 1 |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
        )
    )


def _covered(name: str, comparisons: list[Comparison]) -> str:
    own = [c.low <= 1 <= c.high for c in comparisons if c.model == name]
    return f"{sum(own)} of {len(own)}"


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    repeats = parser.parse_args().repeats
    before, began_s = os.getloadavg()[0], time.monotonic()
    comparisons = measured(repeats)
    took_s = time.monotonic() - began_s
    write_result("latency-noise.md", rendered(comparisons, (before, os.getloadavg()[0]), took_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
