"""Budgets asked of the search: half of the latency at 224 pixels, three limits at once, none to reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import research_data

import edgeprune
from edgeprune.artifacts.budget import Budget, BudgetSection
from edgeprune.artifacts.latency import LatencyRatio
from edgeprune.artifacts.report import RunReport
from edgeprune.cards import load_card
from edgeprune.errors import BudgetError
from edgeprune.latency.timing import compare
from edgeprune.reporting import read_json

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
HALF = 0.5
NETWORKS = ("resnet18", "mobilenet_v2", "efficientnet_b0")
ANY_WIDTH = ("resnet18",)
"""Beside which as many MACs are cut at any width."""
PAIRS = 200
_IMAGES, _SIZE = 256, 224

REQUESTS: dict[str, tuple[str, Budget]] = {
    "three limits at once": (
        "rpi4",
        Budget(max_latency_share=0.75, max_size_bytes=900_000, max_drop_points=8.0),
    ),
    "out of reach": ("rpi4", Budget(max_latency_share=0.05)),
    "out of reach by the drop": ("rpi4", Budget(max_latency_share=0.4, max_drop_points=1.0)),
    "already held": ("rpi4", Budget(max_latency_share=1.0, max_size_bytes=4_000_000)),
}


def half_of_the_latency(name: str, work: Path, *, threads: int) -> Row:
    """Ask for half of a network's latency on this host; for some, cut as many MACs at any width beside it.

    What lies in ``work`` already is not made again.
    """
    work.mkdir(parents=True, exist_ok=True)
    np.savez(work / "images.npz", images=_smooth_noise())
    rounded, peak_bytes = _compressed(name, work, "rounded", threads, "--max-latency", f"{HALF:.0%}")
    removed = rounded.pruning.macs_removed_share
    search = rounded.budget
    assert search is not None
    return {
        "network": name,
        "ratio": _interval(rounded.deployment.host_cpu_ratio),
        "macs_left": 1 - removed,
        "quantum": rounded.pruning.width_quantum,
        "size_left": rounded.deployment.compressed.size_bytes / rounded.deployment.original.size_bytes,
        "candidates": [[c.macs_share, c.latency_share] for c in search.candidates],
        **(_any_width(name, work, removed, threads) if name in ANY_WIDTH else {}),
        "seconds": sum(t.duration_s for t in rounded.stage_times),
        "peak_bytes": peak_bytes,
        "images": _IMAGES,
    }


def _any_width(name: str, work: Path, removed: float, threads: int) -> Row:
    """As many MACs cut at any width, and the rounded network beside it."""
    options = ("--ratio", f"{removed}", "--width-quantum", "1")
    found, _ = _compressed(name, work, "any", threads, *options)
    files = (work / folder / "model.onnx" for folder in ("any", "rounded"))
    return {
        "any_ratio": _interval(found.deployment.host_cpu_ratio),
        "any_macs_left": 1 - found.pruning.macs_removed_share,
        "rounded_over_any": _interval(compare(*files, threads=threads, pairs=PAIRS)),
    }


def _compressed(name: str, work: Path, folder: str, threads: int, *options: str) -> tuple[RunReport, int]:
    """What the command reports, in a process of its own, and the most memory that took."""
    peak = work / f"{folder}-peak-bytes.json"
    if not peak.exists():
        command = [
            sys.executable, "-m", "edgeprune", "compress", f"torchvision:{name}", "--weights", "none",
            "--calibration", str(work / "images.npz"), "--card", "imagenet",
            "--input-shape", f"3x{_SIZE}x{_SIZE}", "--threads", str(threads),
            "-o", str(work / folder), *options,
        ]  # fmt: skip
        if (work / f"{folder}.journal").exists():
            command.append("--resume")
        child = subprocess.Popen(command)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
        peak.write_text(json.dumps(usage.ru_maxrss * 1024))
    return read_json(work / folder / "report.json"), json.loads(peak.read_text())


def _smooth_noise() -> np.ndarray:
    """Images (n, 224, 224, 3) of coloured noise, coarse and fine: random weights need no more."""
    rng = np.random.default_rng(0)
    images = np.zeros((_IMAGES, _SIZE, _SIZE, 3))
    for cells in (4, 16, 56):
        patches = rng.normal(size=(_IMAGES, cells, cells, 3))
        images += np.repeat(np.repeat(patches, _SIZE // cells, axis=1), _SIZE // cells, axis=2)
    return np.clip(127 + 40 * images, 0, 255).astype(np.uint8)


def _interval(found: LatencyRatio | None) -> list[float]:
    assert found is not None
    return [found.ratio, found.low, found.high]


def request(name: str, work: Path, *, threads: int) -> Row:
    """One budget for ResNet-20: what came of it."""
    target, budget = REQUESTS[name]
    data = research_data()
    calibration = work / "unlabelled.npz"
    with np.load(data / "cifar10_train_10k.npz") as train:
        np.savez(calibration, images=train["images"][:1_000])

    def asked() -> RunReport:
        return edgeprune.compress(
            data / "resnet20_cifar10.safetensors",
            architecture=f"{HERE / 'resnet20.py'}:resnet20",
            calibration=calibration,
            preprocessing=load_card("cifar10"),
            target=target,
            budget=budget,
            output=work / "out",
            threads=threads,
        )

    limits = {k: v for k, v in asdict(budget).items() if v is not None}
    return {"request": name, "target": target, "budget": limits, "outcome": _outcome(asked)}


def _outcome(asked: Callable[[], RunReport]) -> str:
    try:
        report = asked()
    except BudgetError as error:
        return f"status {error.exit_status}: {error}"
    search = report.budget
    assert search is not None
    if not report.pruning.macs_removed_share:
        return "; ".join(n for n in report.notes if "already holds" in n)
    return _chosen(search)


def _chosen(search: BudgetSection) -> str:
    found = next(c for c in search.candidates if c.name == search.chosen)
    return (
        f"{found.name} of {len(search.candidates)}: {found.latency_share:.1%} of the latency "
        f"({found.latency_provenance.value}), {found.size_bytes / 1e6:.3f} MB, {found.drop_points:.2f} "
        f"points lost of {search.drop_of}; {search.binding} binds"
    )


def render(rows: list[Row]) -> str:
    """Both tables."""
    return _latency_table([r for r in rows if "network" in r]) + _requests(
        [r for r in rows if "request" in r]
    )


def _latency_table(rows: list[Row]) -> str:
    if not rows:
        return ""
    text = (
        f"\n## Half of the latency, {_SIZE} pixels\n\n"
        f"`compress torchvision:NAME --weights none --max-latency 50%` on this host, images of\n"
        "noise; latency is CPU time over that of the original, interleaved pairs in one process, with a\n"
        "95% interval. *any width*: as many MACs cut by the same command with `--width-quantum 1`, where\n"
        f"tried. *rounded over any width*: {PAIRS} interleaved pairs of the two. *candidates*: MACs left\n"
        "-> latency of all that were built, in order. *s* (seconds), *memory*: of the\n"
        "whole command with the limit.\n\n"
        "| network | latency | MACs left | size left | widths in steps of "
        "| any width: latency, MACs left | rounded over any width | candidates | images | s | memory |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        memory = f"{row['peak_bytes'] / 1e9:.1f} GB" if "peak_bytes" in row else "not measured"
        any_width = "|"
        if "any_ratio" in row:
            any_width = (
                f"{_words(row['any_ratio'])}, {row['any_macs_left']:.1%} | {_words(row['rounded_over_any'])}"
            )
        tried = ", ".join(f"{macs:.1%} -> {latency:.1%}" for macs, latency in row["candidates"])
        text += (
            f"| {row['network']} | {_words(row['ratio'])} | {row['macs_left']:.1%} | {row['size_left']:.1%} "
            f"| {row['quantum']} | {any_width} | {tried} | {row['images']} "
            f"| {row['seconds']:.0f} | {memory} |\n"
        )
    return text


def _requests(rows: list[Row]) -> str:
    if not rows:
        return ""
    text = (
        "\n## Requests of ResNet-20, 1,000 unlabelled images\n\n"
        "| request | limits | outcome |\n|---|---|---|\n"
    )
    for row in rows:
        limits = ", ".join(f"{name} {value:g}" for name, value in row["budget"].items())
        text += f"| {row['request']} | {row['target']}: {limits} | {row['outcome']} |\n"
    return text


def _words(interval: list[float]) -> str:
    middle, low, high = interval
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"
