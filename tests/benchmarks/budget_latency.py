"""Half of the latency asked of networks at 224 pixels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import succeeded

from edgeprune.artifacts.latency import LatencyRatio
from edgeprune.artifacts.report import RunReport
from edgeprune.profiling.timing import compare
from edgeprune.reporting import read_json

Row = dict[str, Any]

HALF = 0.5
NETWORKS = ("resnet18", "mobilenet_v2", "efficientnet_b0")
ANY_WIDTH = ("resnet18", "mobilenet_v2")
"""Beside which as many MACs are cut at any width."""
PAIRS = 200
SIZE = 224
_IMAGES = 256


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
        "ratio": _interval(rounded.deployment.latency_ratio),
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
        "any_ratio": _interval(found.deployment.latency_ratio),
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
            "--input-shape", f"3x{SIZE}x{SIZE}", "--threads", str(threads),
            "-o", str(work / folder), *options,
        ]  # fmt: skip
        if (work / f"{folder}.journal").exists():
            command.append("--resume")
        peak.write_text(json.dumps(succeeded(command).peak_bytes))
    return read_json(work / folder / "report.json"), json.loads(peak.read_text())


def _smooth_noise() -> np.ndarray:
    """Images (n, 224, 224, 3) of coloured noise, coarse and fine: random weights need no more."""
    rng = np.random.default_rng(0)
    images = np.zeros((_IMAGES, SIZE, SIZE, 3))
    for cells in (4, 16, 56):
        patches = rng.normal(size=(_IMAGES, cells, cells, 3))
        images += np.repeat(np.repeat(patches, SIZE // cells, axis=1), SIZE // cells, axis=2)
    return np.clip(127 + 40 * images, 0, 255).astype(np.uint8)


def _interval(found: LatencyRatio | None) -> list[float]:
    assert found is not None
    return [found.ratio, found.low, found.high]


def render(rows: list[Row]) -> str:
    """One line a network."""
    text = (
        "`compress torchvision:NAME --weights none --max-latency 50%` on this host, images of\n"
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


def _words(interval: list[float]) -> str:
    middle, low, high = interval
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"
