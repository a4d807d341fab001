"""edgeprune's side of the coupling benchmark: times, counts, and whether pruning equals masking."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coupling_child import Progress, half_of_every_group, prepare
from coupling_models import BenchModel
from torch import Tensor, nn

from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.fx import op_name, tensor_leaves
from edgeprune.graph.capture import capture, export_program
from edgeprune.graph.coupling import couple
from edgeprune.graph.masking import full_masks, mask_module
from edgeprune.graph.surgery import prune

Removal = tuple[int, ...]
CHECK_IMAGES = 2


def measure(model: BenchModel, progress: Progress, *, with_onnx: bool, group_seconds: float) -> None:
    """All figures of one model, told stage by stage."""
    warm_up()
    before_mb = _status_mb("VmRSS")
    _reset_peak()
    with progress.stage("build"):
        module = prepare(model)
    size_mb = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers())) / 2**20
    progress.tell(size_mb=size_mb)
    with progress.stage("capture"):
        captured = capture(module, model.input_shape)
    del module
    with progress.stage("couple"):
        coupling = couple(captured)
    progress.tell(**describe(captured, coupling))
    parts = half_of_every_group([list(g.players) for g in coupling.groups])
    everything = tuple(sorted(p for part in parts for p in part))
    with progress.stage("step"):
        pruned = prune(captured, coupling, everything)
    gone = coupling.removed_mask(everything)
    progress.tell(
        macs_left=coupling.total_macs(gone) / max(coupling.total_macs(), 1),
        removed_share=_share(captured, coupling, gone),
        peak_mb=_status_mb("VmHWM") - before_mb,
    )
    with progress.stage("forward"), torch.no_grad():
        pruned(torch.randn((CHECK_IMAGES, *model.input_shape)))
    progress.tell(forward_runs=True)
    if with_onnx:
        with progress.stage("onnx"):
            deviation = onnx_deviation(pruned, model.input_shape)
        progress.tell(onnx_deviation=deviation)
    del pruned
    if everything:
        with progress.stage("check"):
            check(captured, coupling, parts, everything, progress, group_seconds=group_seconds)


def warm_up() -> None:
    """Export and couple a tiny network, so that imports and first calls count for nobody."""
    couple(
        capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval(), (3, 4, 4))
    )


def describe(captured: CapturedModel, coupling: CouplingGraph) -> dict[str, Any]:
    """Counts of a coupling graph; frozen channels are counted by op and reason."""
    frozen: Counter[str] = Counter()
    for row in coupling.frozen:
        frozen[f"{row.op}: {row.reason}"] += row.channels
    return {
        "players": coupling.num_players,
        "groups": len(coupling.groups),
        "prunable_share": _share(captured, coupling, np.ones(coupling.num_players, dtype=bool)),
        "unruled": dict(Counter(name.partition(" ")[0] for name in coupling.unruled_ops)),
        "frozen": dict(frozen.most_common()),
        "channels": _channels(captured, coupling),
    }


def _channels(captured: CapturedModel, coupling: CouplingGraph) -> int:
    """Output channels of all weighted layers, a shared weight once; those that no rule knows count too."""
    widths = {layer.weight: len(layer.out_players) for layer in coupling.layers}
    for node in captured.graph_module.graph.nodes:
        if node.op == "call_function" and op_name(node).startswith(("conv", "linear")):
            weight = node.args[1]
            name = str(weight.target) if isinstance(weight, torch.fx.Node) else node.name
            transposed = "transpose" in op_name(node)
            widths.setdefault(name, int(node.meta["val"].shape[1 if transposed else -1]))
    return sum(widths.values())


def _share(captured: CapturedModel, coupling: CouplingGraph, gone: np.ndarray) -> float:
    """Share of the output channels of all weighted layers that leave with the players in ``gone``."""
    leaving = {}
    for layer in coupling.layers:
        players = layer.out_players
        leaving[layer.weight] = int(gone[players[players != NO_PLAYER]].sum())
    return sum(leaving.values()) / max(_channels(captured, coupling), 1)


def check(
    captured: CapturedModel,
    coupling: CouplingGraph,
    parts: list[Removal],
    everything: Removal,
    progress: Progress,
    *,
    group_seconds: float,
) -> None:
    """Masked against pruned in float64: all groups together, then each alone while time is left."""
    captured.graph_module.double()
    images = torch.randn((CHECK_IMAGES, *captured.input_shape), dtype=torch.float64)
    masked = mask_module(captured, coupling)
    deviation, effect = deviation_of(captured, coupling, masked, everything, images)
    progress.tell(deviation=deviation, effect=effect)
    start = time.perf_counter()
    worst, worst_group, checked = 0.0, "", 0
    ordered = np.random.default_rng(1).permutation(len(parts)).tolist()
    for index in ordered:
        if time.perf_counter() - start > group_seconds:
            break
        found, _ = deviation_of(captured, coupling, masked, parts[index], images)
        checked += 1
        if not found <= worst:
            owner = coupling.group_of_player()[parts[index][0]]
            worst, worst_group = found, coupling.groups[owner].name
    progress.tell(group_deviation=worst, worst_group=worst_group, groups_checked=checked)


@torch.no_grad()
def deviation_of(
    captured: CapturedModel, coupling: CouplingGraph, masked: nn.Module, removed: Removal, images: Tensor
) -> tuple[float, float]:
    """Pruned from masked, and masked from the original, both relative to the largest output.

    The masked pass has a coalition per row: the first half of its rows is the grand coalition.
    """
    masks = full_masks(2 * len(images), coupling.num_players, dtype=images.dtype)
    masks[len(images) :, list(removed)] = 0
    outputs = tensor_leaves(masked(torch.cat([images, images]), masks))
    whole, without = zip(*(o.chunk(2) for o in outputs), strict=True)
    pruned = tensor_leaves(prune(captured, coupling, removed)(images))
    return _distance(without, tuple(pruned)), _distance(whole, without)


def _distance(expected: tuple[Tensor, ...], got: tuple[Tensor, ...]) -> float:
    """Largest difference relative to the largest value; infinite where shapes differ or NaN appears."""
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        if a.shape != b.shape:
            return float("inf")
        found = float((a - b).abs().max() / a.abs().max())
        worst = max(worst, float("inf") if math.isnan(found) else found)
    return worst


def onnx_deviation(pruned: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Export the pruned graph to ONNX, run it in onnxruntime, and compare with torch in float32."""
    import onnxruntime

    from edgeprune.exporting import export_onnx

    images = torch.rand((CHECK_IMAGES, *input_shape))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        export_onnx(export_program(pruned, images), path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = tensor_leaves(pruned(images))
    return _distance(tuple(expected), tuple(torch.from_numpy(np.asarray(f)) for f in found))


def _status_mb(field: str) -> float:
    """A line of the kernel's account of this process, in MiB (Linux only)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def _reset_peak() -> None:
    """Forget the highest memory so far (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5")
