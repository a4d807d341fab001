"""CPU time of networks at 224 pixels in 8 bits over 32: plain, ours whole, ours mixed; and pruned as well."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quantized_resnet20 import by_nncf, plain

import edgeprune
from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import HOST
from edgeprune.artifacts.latency import LatencyRatio
from edgeprune.artifacts.quantization import Precision
from edgeprune.capture.export import export_program
from edgeprune.commands.quantize.mixed_precision import write_mixed
from edgeprune.exporting import export_onnx, simplify_onnx
from edgeprune.loading import load_model
from edgeprune.options.cards import load_card
from edgeprune.profiling.runner import runner_for
from edgeprune.profiling.timing import compare
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.targets import load_target

Row = dict[str, Any]

NETWORKS = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x1_0")
COMBINED: dict[str, dict[str, Any]] = {
    "resnet18 at half of the MACs": {"ratio": 0.5},
    "resnet18 at 15% of its time": {"budget": Budget(max_latency_share=0.15)},
}
"""Pruned as well: options of ``compress``."""
LABELS = ("onnxruntime static", "NNCF", "edgeprune int8", "edgeprune auto")
PAIRS = 200
SIZE = 224
_IMAGES = 32


def network(name: str, work: Path, *, threads: int) -> Row:
    """A network with random weights, its norms fitted to noise so that activations are alive."""
    images, source = _noise(), work / "source.onnx"
    write_network(name, source)
    plain(source, work / "plain.onnx", images)
    by_nncf(source, work / "nncf.onnx", images)
    form = integer_format(load_target(HOST))
    quantize_integers(source, work / "ours.onnx", images, IntegerSettings(form=form, threads=threads))
    mixed = write_mixed(
        source, work / "mixed.onnx", ImageBatch(images=images, labels=None),
        IntegerSettings(form=form, threads=threads), runner=runner_for(load_target(HOST), threads=threads),
        max_drop_points=100.0,  # answers of random weights are chance; the page is of times
    )  # fmt: skip
    files = {
        "onnxruntime static": "plain",
        "NNCF": "nncf",
        "edgeprune int8": "ours",
        "edgeprune auto": "mixed",
    }
    return {
        "network": name,
        "ratios": {
            label: _interval(compare(source, work / f"{file}.onnx", threads=threads, pairs=PAIRS))
            for label, file in files.items()
        },
        "sizes": {
            label: (work / f"{file}.onnx").stat().st_size / source.stat().st_size
            for label, file in files.items()
        },
        "pieces": [sum(p.integer for p in mixed.pieces), len(mixed.pieces)],
    }


def combined(name: str, work: Path, *, threads: int) -> Row:
    """ResNet-18 pruned, widths rounded, then 8 bits, against the whole in 32."""
    noise = (127 + 40 * _noise(64).permute(0, 2, 3, 1).numpy()).clip(0, 255).astype("uint8")
    np.savez(work / "images.npz", images=noise)
    report = edgeprune.compress(
        "torchvision:resnet18", weights="none", calibration=work / "images.npz", output=work / "out",
        preprocessing=load_card("imagenet"), input_shape=(3, SIZE, SIZE), threads=threads,
        precision=Precision.INT8, **COMBINED[name],
    )  # fmt: skip
    deployment = report.deployment
    assert deployment.latency_ratio is not None
    return {
        "network": name,
        "ratios": {"edgeprune int8": _interval(deployment.latency_ratio)},
        "sizes": {"edgeprune int8": deployment.compressed.size_bytes / deployment.original.size_bytes},
        "macs_left": 1 - report.pruning.macs_removed_share,
    }


def _noise(count: int = _IMAGES) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def write_network(name: str, path: Path) -> None:
    """An ONNX file of a network with random weights, its norms fitted to noise."""
    torch.manual_seed(0)
    module = load_model(f"torchvision:{name}", weights="none").module
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(8, 3, SIZE, SIZE))
    exported = path.with_suffix(".exported.onnx")
    export_onnx(export_program(module.eval(), torch.zeros(2, 3, SIZE, SIZE)), exported)
    simplify_onnx(exported, path)


def _interval(found: LatencyRatio) -> list[float]:
    return [found.ratio, found.low, found.high]


def render(rows: list[Row]) -> str:
    """One line a network."""
    text = (
        f"Random weights, {PAIRS} interleaved pairs, median with a 95% interval; in brackets the size "
        "over that of\n"
        "the 32-bit file. *onnxruntime static*: its own static quantization (QDQ, minmax, unsigned "
        "activations,\n"
        "a scale per output channel) after its own preprocessing. *NNCF* " + version("nncf") + ": its\n"
        "defaults for ONNX. *auto*: "
        "pieces in 8 bits of all pieces.\n"
        "*at half of the MACs*: `compress --ratio 0.5 --precision int8`, *at 15% of its time*:\n"
        "`--max-latency 15% --precision int8`, both against the whole network in 32 bits.\n\n"
        f"| network | {' | '.join(LABELS)} | pieces, or MACs left |\n|---|---|---|---|---|---|\n"
    )
    for row in rows:
        cells = [
            f"{_words(row['ratios'][label])} ({row['sizes'][label]:.3f})" if label in row["ratios"] else ""
            for label in LABELS
        ]
        pieces = f"{row['pieces'][0]} of {row['pieces'][1]}" if "pieces" in row else f"{row['macs_left']:.1%}"
        text += f"| {row['network']} | {' | '.join(cells)} | {pieces} |\n"
    return text


def _words(interval: list[float]) -> str:
    middle, low, high = interval
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"
