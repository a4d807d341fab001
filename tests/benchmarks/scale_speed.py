"""How much sooner a ranking is with two workers: ResNet-20 on CIFAR-10, on two cores."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import REPOSITORY, Jobs, NotMeasuredError, ended, research_data

Row = dict[str, Any]

WAYS: dict[str, tuple[str, ...]] = {
    "one process": (),
    "1 worker": ("--workers", "1"),
    "2 workers": ("--workers", "2"),
}
IMAGES = 1000
_PREPROCESSING = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")


def jobs(effort: str) -> Jobs:
    """One compression by each way."""
    return {f"speed {way}": lambda work, way=way: _measured(way, effort, work) for way in WAYS}


def _measured(way: str, effort: str, work: Path) -> Row:
    data = research_data()
    child = subprocess.Popen(
        [
            sys.executable, "-m", "edgeprune", "compress", str(data / "resnet20_cifar10.safetensors"),
            "--arch", f"{REPOSITORY / 'tests' / 'benchmarks' / 'resnet20.py'}:resnet20",
            "--calibration", str(data / "cifar10_train_10k.npz"), *_PREPROCESSING,
            "--max-images", str(IMAGES), "--ratio", "0.5", "--effort", effort, "--threads", "1",
            "--target", "rpi4", "--no-pictures", "-q", *WAYS[way], "-o", str(work / "out"),
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    done = ended(child, time.perf_counter())
    if done.status:
        raise NotMeasuredError(f"compress ended with {done.status}")
    report = json.loads((work / "out" / "report.json").read_text())
    stages = {each["stage"]: each["duration_s"] for each in report["stage_times"]}
    return {
        "speed": way,
        "ranking_s": sum(seconds for stage, seconds in stages.items() if stage.startswith("rank")),
        "seconds": done.seconds,
        "cpu_seconds": done.cpu_seconds,
    }


def render(rows: list[Row]) -> str:
    """A table with the gain of each way over one process."""
    text = (
        f"\n## Sooner by workers\n\nResNet-20 on CIFAR-10, {IMAGES:,} images, cut by half in rounds, one\n"
        "thread a process, two cores. *ranking*: wall-clock time of all rounds, with the start of\n"
        "workers and with what one process does for itself (statistics, eliminations, exact values of\n"
        "small groups).\n\n"
        "| how | ranking | times as fast | whole run | CPU |\n|---|---|---|---|---|\n"
    )
    one = next((row["ranking_s"] for row in rows if row["speed"] == "one process"), None)
    for row in rows:
        faster = "" if one is None else f"{one / row['ranking_s']:.2f}"
        text += (
            f"| {row['speed']} | {row['ranking_s']:.1f} s | {faster} | {row['seconds']:.0f} s "
            f"| {row['cpu_seconds']:.0f} s |\n"
        )
    return text
