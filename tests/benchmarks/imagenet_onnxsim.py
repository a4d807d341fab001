"""onnxsim's own structured pruning on ResNet-20 and EfficientNet-Lite0, as it comes: it has no recovery."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from common import Jobs, research_data
from imagenet_data import FITTING, TEST, answers, judged, no_images
from imagenet_data import read_images as imagenet
from imagenet_jobs import Settings, child
from imagenet_networks import SIZES, lacking, trained
from resnet20 import resnet20
from safetensors.torch import load_file
from torch import Tensor, nn
from trained_network import read_images as cifar

from edgeprune import parity
from edgeprune.capture.export import export_program
from edgeprune.exporting import export_onnx, simplify_onnx
from edgeprune.profiling.work import total_macs

Row = dict[str, Any]

NETWORKS = {"ResNet-20": (0.25, 0.5), "EfficientNet-Lite0": (0.1, 0.15, 0.25, 0.4)}
"""Cuts of each, shares of the MACs."""
WAYS = {
    "filter norm, each layer alike": ("apply_structured_pruning", False),
    "filter norm, global": ("apply_structured_pruning", True),
    "filter norm x activation, each layer alike": ("apply_structured_wanda_pruning", False),
}
"""Its function, and whether it ranks over the network."""
CALIBRATION = 64
_BISECTIONS = 8
_MOST = 0.98
"""Share of a layer's channels that it is asked to remove at most."""


def lacks() -> str | None:
    """Why this part cannot be measured here."""
    return _no_pruning() or no_images() or lacking(0)


@cache
def _no_pruning() -> str | None:
    if importlib.util.find_spec("onnxsim") is None:
        return "onnxsim is not installed"
    import onnxsim

    missing = sorted({name for name, _ in WAYS.values() if not hasattr(onnxsim, name)})
    return f"onnxsim {version('onnxsim')} has no {' and no '.join(missing)}" if missing else None


def jobs(_folder: Path, settings: Settings, threads: int) -> Jobs:
    """One a network, way and cut; those at a quarter first."""
    cells = [(n, w, r) for n, ratios in NETWORKS.items() for r in ratios for w in WAYS]
    cells = [c for c in cells if c[2] in settings.ratios or c[0] == "ResNet-20"]
    task = {"task": "onnxsim", "threads": threads, "images": settings.images}
    return {
        f"onnxsim {network} {way} {ratio:g}": lambda work, n=network, w=way, r=ratio: child(
            {**task, "network": n, "way": w, "ratio": r, "work": str(work)}, work
        )
        for network, way, ratio in sorted(cells, key=lambda c: c[2] != 0.25)
    }


def pruned_by_onnxsim(task: Row) -> Row:
    """Prune an exported network until the share of its MACs is gone, and judge the file."""
    module, size, fitting, (test, labels) = _network(task["network"], task["images"])
    work = Path(task["work"])
    exported, source, smaller = (work / f"{name}.onnx" for name in ("exported", "source", "smaller"))
    export_onnx(export_program(module, torch.zeros(2, 3, size, size)), exported)
    simplify_onnx(exported, source)
    gone, sparsity = _least_pruned(source, smaller, task["way"], fitting, task["ratio"])
    found = parity.run_onnx(smaller, test, threads=task["threads"])[0]
    before = answers(module, test)
    return {
        "network": task["network"],
        "way": task["way"],
        "ratio": task["ratio"],
        "sparsity": sparsity,
        "macs_removed": gone,
        **judged(torch.from_numpy(found), before, labels),
        "original_top1": judged(before, before, labels)["top1"],
    }


def _network(name: str, limit: int | None) -> tuple[nn.Module, int, Tensor, tuple[Tensor, Tensor]]:
    """The trained network, its size, images to fit with, and those to judge with and their labels."""
    if name == "EfficientNet-Lite0":
        size = SIZES[0]
        return trained(0), size, imagenet(FITTING, size, CALIBRATION)[0], imagenet(TEST, size, limit)
    data, network = research_data(), resnet20()
    network.load_state_dict(load_file(data / "resnet20_cifar10.safetensors"))
    test, labels = cifar(data / "cifar10_test.npz")
    fitting, _ = cifar(data / "cifar10_train_10k.npz")
    return network.eval(), 32, fitting[:CALIBRATION], (test[:limit], labels[:limit])


def _least_pruned(source: Path, smaller: Path, way: str, images: Tensor, ratio: float) -> tuple[float, float]:
    """Write the least pruned file that lacks ``ratio`` of the MACs, the most pruned where none does.

    Gives the share of the MACs that it lacks and the share of channels that was asked for.
    """
    whole, prune = total_macs(source), _pruner(source, way, images)

    def tried(sparsity: float) -> tuple[float, onnx.ModelProto]:
        model = prune(sparsity)
        onnx.save_model(model, str(smaller))
        return 1 - total_macs(smaller) / whole, model

    low, high = 0.0, _MOST
    gone, best = tried(high)
    if gone >= ratio:
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            share, model = tried(middle)
            if share >= ratio:
                high, gone, best = middle, share, model
            else:
                low = middle
    onnx.save_model(best, str(smaller))
    return gone, high


def _pruner(source: Path, way: str, images: Tensor) -> Callable[[float], onnx.ModelProto]:
    """onnxsim's function as one of the share of channels."""
    import onnxsim

    name, everywhere = WAYS[way]
    function, model = getattr(onnxsim, name), onnx.load_model(str(source))
    data: Row = {}
    if name == "apply_structured_wanda_pruning":
        batches = torch.split(images, 16)
        data = {"calibration_data": [{model.graph.input[0].name: batch.numpy()} for batch in batches]}

    def prune(sparsity: float) -> onnx.ModelProto:
        found: onnx.ModelProto = function(
            onnx.load_model(str(source)), sparsity=sparsity, global_sparsity=everywhere, **data
        )
        return found

    return prune


def render(rows: list[Row]) -> str:
    """One line a network, cut and way."""
    text = (
        f"onnxsim {version('onnxsim')}, `apply_structured_pruning` (by the filters' norm) and\n"
        f"`apply_structured_wanda_pruning` (norm times activation, on {CALIBRATION} images), nothing else: "
        "it has no\nrecovery. It is asked for the least share of channels with which the exported file lacks "
        f"that share of the MACs,\n{_MOST:.0%} of them at most. *original* and *pruned*: top-1 on all test "
        "images. Ours at the same cuts:\n`imagenet-accuracy.md`, `budgets-accuracy.md`.\n\n"
        "| network | cut | way | MACs removed | test images | original | pruned | points lost | agreement |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    for row in sorted(rows, key=lambda r: (r["network"], r["ratio"], r["way"])):
        reached = "" if row["macs_removed"] >= row["ratio"] else " (no more)"
        text += (
            f"| {row['network']} | {row['ratio']:.0%} | {row['way']} | {row['macs_removed']:.1%}{reached} "
            f"| {row['test_images']:,} | {row['original_top1']:.2%} | {row['top1']:.2%} "
            f"| {100 * (row['original_top1'] - row['top1']):.1f} | {row['agreement']:.1%} |\n"
        )
    return text
