"""Memory and time of ``quantize`` with many images at 224 pixels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import succeeded
from quantized_latency import SIZE, write_network

Row = dict[str, Any]

NETWORKS = ("mobilenet_v3_small", "resnet18")
IMAGES = 2_000
_HELD_OUT = 0.05


def calibrated(name: str, work: Path, *, threads: int) -> Row:
    """The command in a process of its own, on images of noise in one ``.npz``."""
    source = work / "source.onnx"
    write_network(name, source)
    shape = (IMAGES, SIZE, SIZE, 3)
    np.savez(work / "images.npz", images=np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    command = [
        sys.executable, "-m", "edgeprune", "quantize", str(source), "--calibration",
        str(work / "images.npz"), "--card", "imagenet", "--held-out", str(_HELD_OUT),
        "--threads", str(threads), "-o", str(work / "int8.onnx"),
    ]  # fmt: skip
    ended = succeeded(command)
    return {"network": name, "images": IMAGES, "seconds": ended.seconds, "peak_bytes": ended.peak_bytes}


def render(rows: list[Row]) -> str:
    """One line a network."""
    text = (
        f"`quantize NETWORK.onnx --card imagenet --held-out {_HELD_OUT}` (two passes over the images for "
        "ranges,\nthe rest judges), noise in one `.npz`; *memory* at most and *s* (seconds, wall) of the "
        "whole command.\nThe images themselves take "
        f"{IMAGES * 3 * SIZE * SIZE * 4 / 1e9:.2f} GB in 32 bits.\n\n"
        "| network | images | memory | s |\n|---|---|---|---|\n"
    )
    for row in rows:
        text += (
            f"| {row['network']} | {row['images']:,} | {row['peak_bytes'] / 1e9:.2f} GB "
            f"| {row['seconds']:.0f} |\n"
        )
    return text
