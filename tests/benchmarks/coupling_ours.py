"""edgeprune's side of the coupling benchmark: times, counts, and whether pruning equals masking."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from coupling_after import CHECK_IMAGES, after_pruning, distance
from coupling_child import SEED, Progress, half_of_every_group, prepare
from coupling_memory import memory_now_mb, peak_mb, reset_peak
from coupling_models import BenchModel
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.artifacts.choices import AttentionUnit, CouplingOptions
from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.fx import op_name, tensor_leaves
from edgeprune.graph.capture import capture
from edgeprune.graph.coupling import couple
from edgeprune.graph.masking import full_masks, mask_module
from edgeprune.graph.surgery import prune, surgery_recipe

Removal = tuple[int, ...]


def measure(model: BenchModel, progress: Progress, *, with_onnx: bool, group_seconds: float) -> None:
    """All figures of one model, told stage by stage."""
    warm_up()
    before_mb = memory_now_mb()
    reset_peak()
    torch.manual_seed(SEED)
    with progress.stage("build"):
        module = prepare(model)
    size_mb = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers())) / 2**20
    progress.tell(size_mb=size_mb)
    with progress.stage("capture"):
        captured = capture(module, model.input_shape)
    progress.tell(capture_peak_mb=peak_mb() - before_mb)
    del module
    before_mb = memory_now_mb()
    reset_peak()
    with progress.stage("couple"):
        coupling = couple(captured)
    if coupling.num_players == 0:
        coupling = couple(captured, VARIANTS["normalized"])
        progress.tell(option="--prune-normalized")
    progress.tell(couple_peak_mb=peak_mb() - before_mb)
    parts = half_of_every_group([list(g.players) for g in coupling.groups])
    everything = tuple(sorted(p for part in parts for p in part))
    with progress.stage("step"):
        pruned = prune(captured, coupling, everything)
    progress.tell(analysis_peak_mb=peak_mb() - before_mb, **describe(captured, coupling))
    gone = coupling.removed_mask(everything)
    progress.tell(
        macs_left=coupling.total_macs(gone) / max(coupling.total_macs(), 1),
        removed_share=_share(captured, coupling, gone),
    )
    with progress.stage("forward"), torch.no_grad():
        pruned(torch.randn((CHECK_IMAGES, *model.input_shape)))
    progress.tell(forward_runs=True)
    if not everything:
        return
    recipe = surgery_recipe(coupling, everything, captured)
    with progress.stage("check"):
        check(captured, coupling, parts, everything, progress, group_seconds=group_seconds)
    with progress.stage("variants"):
        check_variants(captured, coupling, progress)
    del captured, coupling
    after_pruning(model, pruned, recipe, progress, with_onnx=with_onnx)


def warm_up() -> None:
    """Export, couple and prune a tiny network, so that imports and first calls count for nobody."""
    tiny = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    captured = capture(tiny, (3, 4, 4))
    prune(captured, couple(captured), (0,))


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
    to_float64(captured.graph_module)
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


VARIANTS = {
    "normalized": CouplingOptions(prune_normalized=True),
    "heads": CouplingOptions(attention=AttentionUnit.HEADS),
}


def check_variants(captured: CapturedModel, default: CouplingGraph, progress: Progress) -> None:
    """What the user may choose besides, where it makes a difference: share of channels, and exactness."""
    images = torch.randn((CHECK_IMAGES, *captured.input_shape), dtype=torch.float64)
    for name, options in VARIANTS.items():
        coupling = couple(captured, options)
        asked_already = name == "normalized" and "option" in progress.facts
        if asked_already or coupling.num_players == default.num_players:
            continue
        parts = half_of_every_group([list(g.players) for g in coupling.groups])
        everything = tuple(sorted(p for part in parts for p in part))
        masked = mask_module(captured, coupling)
        deviation, _ = deviation_of(captured, coupling, masked, everything, images)
        gone = coupling.removed_mask(everything)
        progress.tell(
            **{
                f"{name}_share": _share(captured, coupling, np.ones(coupling.num_players, dtype=bool)),
                f"{name}_macs_left": coupling.total_macs(gone) / max(coupling.total_macs(), 1),
                f"{name}_deviation": deviation,
                f"{name}_notes": len(coupling.notes),
            }
        )


def to_float64(module: GraphModule) -> None:
    """Double precision throughout, also where the code of the model asks for single."""
    module.double()

    def widened(value: Any) -> Any:
        return torch.float64 if value is torch.float32 else value

    for node in module.graph.nodes:
        node.args = tuple(widened(a) for a in node.args)
        node.kwargs = {k: widened(v) for k, v in node.kwargs.items()}
    module.recompile()


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
    return distance(without, tuple(pruned)), distance(whole, without)
