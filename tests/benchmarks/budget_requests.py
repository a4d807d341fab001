"""Budgets asked of ResNet-20 on the command line: three at once, out of reach, held already, resumed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import ended, research_data

from edgeprune.artifacts.budget import BudgetSection
from edgeprune.errors import BudgetError
from edgeprune.reporting import read_json

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
TARGET = "rpi4"
_THREE = ("--max-latency", "75%", "--max-size", "900kB", "--max-drop", "8")
REQUESTS: dict[str, tuple[str, ...]] = {
    "three limits at once": _THREE,
    "the drop alone": ("--max-drop", "4"),
    "out of reach": ("--max-latency", "5%"),
    "out of reach by the drop": ("--max-latency", "40%", "--max-drop", "1"),
    "already held": ("--max-latency", "100%", "--max-size", "4MB"),
}
RESUMED = "three limits, stopped by Ctrl-C after the first candidate and resumed"
NAMES = (*REQUESTS, RESUMED)


def request(name: str, work: Path, *, threads: int) -> Row:
    """One budget for ResNet-20: what came of it, in what time and memory."""
    with np.load(research_data() / "cifar10_train_10k.npz") as train:
        np.savez(work / "unlabelled.npz", images=train["images"][:1_000])
    limits = REQUESTS.get(name, _THREE)
    run = _run(work, "out", threads, limits)
    outcome = run.outcome
    if name == RESUMED:
        stopped = _run(work, "resumed", threads, limits, stop=True)
        resumed = _run(work, "resumed", threads, (*limits, "--resume"))
        outcome = (
            f"stopped after {stopped.seconds:.0f} s with status {stopped.status}; then {resumed.outcome}"
        )
        outcome += f"; {_compared(work / 'out', work / 'resumed')}"
        run = resumed
    return {
        "request": name,
        "limits": " ".join(limits),
        "outcome": outcome,
        "seconds": run.seconds,
        "peak_bytes": run.peak_bytes,
    }


@dataclass(frozen=True)
class _Run:
    status: int
    outcome: str
    seconds: float
    peak_bytes: int


def _run(work: Path, folder: str, threads: int, limits: tuple[str, ...], *, stop: bool = False) -> _Run:
    """The command in a process of its own; ``stop`` presses Ctrl-C as soon as one candidate is built."""
    data = research_data()
    command = [
        sys.executable, "-m", "edgeprune", "compress", str(data / "resnet20_cifar10.safetensors"),
        "--arch", f"{HERE / 'resnet20.py'}:resnet20", "--calibration", str(work / "unlabelled.npz"),
        "--card", "cifar10", "--target", TARGET, "--threads", str(threads), "-o", str(work / folder), *limits,
    ]  # fmt: skip
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the child of a background job would ignore it
    errors, started = work / f"{folder}.stderr", time.perf_counter()
    with errors.open("w") as stream:
        child = subprocess.Popen(command, stderr=stream)
    if stop:
        first = work / f"{folder}.journal" / "candidates" / "candidate-1"
        while child.poll() is None and not first.exists():
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
    found = ended(child, started)
    if found.status == 0:
        outcome = _delivered(work / folder)
    elif stop or found.status == BudgetError.exit_status:
        outcome = f"status {found.status}: {_last_words(errors.read_text())}"
    else:
        raise RuntimeError(f"{' '.join(command)} ended with {found.status}: {errors.read_text()}")
    return _Run(found.status, outcome, found.seconds, found.peak_bytes)


def _delivered(folder: Path) -> str:
    report = read_json(folder / "report.json")
    assert report.budget is not None
    if not report.pruning.macs_removed_share:
        return "; ".join(n for n in report.notes if "already holds" in n)
    return _chosen(report.budget)


def _chosen(search: BudgetSection) -> str:
    found = next(c for c in search.candidates if c.name == search.chosen)
    return (
        f"{found.name} of {len(search.candidates)}: {found.macs_share:.1%} of the MACs, "
        f"{found.latency_share:.1%} of the latency ({found.latency_provenance.value}), "
        f"{found.size_bytes / 1e3:.0f} kB, {found.drop_points:.2f} points lost of {search.drop_of}; "
        f"{search.binding} binds"
    )


def _last_words(errors: str) -> str:
    """The sentence a person reads last, in one line."""
    start = errors.rfind("error: ")
    return " ".join(errors[max(start, 0) :].split())


def _compared(first: Path, second: Path) -> str:
    pair = ((folder / "model.onnx").read_bytes() for folder in (first, second))
    same = len(set(pair)) == 1
    return (
        f"model.onnx is {'equal, byte by byte, to' if same else 'NOT equal to'} that of the run not stopped"
    )


def render(rows: list[Row]) -> str:
    """One line a request."""
    text = (
        "`compress resnet20_cifar10.safetensors --calibration` 1,000 unlabelled images "
        f"`--card cifar10 --target {TARGET}`\nand the limits; *s* (seconds, wall) and "
        "*memory*, at most, of the whole command (of the resumed run, where one was stopped).\n\n"
        "| request | limits | outcome | s | memory |\n|---|---|---|---|---|\n"
    )
    for row in rows:
        text += (
            f"| {row['request']} | `{row['limits']}` | {row['outcome']} | {row['seconds']:.0f} "
            f"| {row['peak_bytes'] / 1e9:.1f} GB |\n"
        )
    return text
