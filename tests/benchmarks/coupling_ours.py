"""edgeprune's side of the coupling benchmark: times, counts, and whether pruning equals masking."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from coupling_after import CHECK_IMAGES, after_pruning, distance
from coupling_child import SEED, Progress, half_of_every_group, prepare, shuffled_groups
from coupling_memory import memory_now_mb, peak_mb, reset_peak
from coupling_models import BenchModel
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.artifacts.choices import AttentionUnit, CouplingOptions
from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.fx import op_name, tensor_leaves
from edgeprune.pruning.masking import full_masks, mask_module
from edgeprune.pruning.surgery import prune, surgery_recipe

Removal = tuple[int, ...]
BISECTIONS = 12
ROWS_AT_ONCE = 8
"""Coalitions of single groups in one masked pass."""


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
    groups = [list(g.players) for g in coupling.groups]
    everything = half_of_the_macs(coupling, groups)
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
        check(captured, coupling, everything, progress)
    with progress.stage("alone"):
        check_alone(captured, coupling, half_of_every_group(groups), progress, limit_s=group_seconds)
    with progress.stage("variants"):
        check_variants(captured, coupling, progress)
    del captured, coupling
    after_pruning(model, pruned, recipe, progress, with_onnx=with_onnx)


def half_of_the_macs(coupling: CouplingGraph, groups: list[list[int]]) -> Removal:
    """The same share of every group, as large as it takes to leave at most half of all MACs, if it can."""
    orders = shuffled_groups(groups)

    def leaving(share: float) -> Removal:
        return tuple(sorted(p for o in orders for p in o[: min(round(share * len(o)), len(o) - 1)]))

    least, most = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (least + most) / 2
        enough = coupling.total_macs(coupling.removed_mask(leaving(middle))) * 2 <= coupling.total_macs()
        least, most = (least, middle) if enough else (middle, most)
    return leaving(most)


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


def check(captured: CapturedModel, coupling: CouplingGraph, everything: Removal, progress: Progress) -> None:
    """Masked against pruned in float64: what left in the step, from all groups together."""
    to_float64(captured.graph_module)
    images = torch.randn((CHECK_IMAGES, *captured.input_shape), dtype=torch.float64)
    masked = mask_module(captured, coupling)
    deviation, effect = deviation_of(captured, coupling, masked, everything, images)
    progress.tell(deviation=deviation, effect=effect)


@torch.no_grad()
def check_alone(
    captured: CapturedModel,
    coupling: CouplingGraph,
    parts: list[Removal],
    progress: Progress,
    *,
    limit_s: float,
) -> None:
    """Masked against pruned in float64 on one image: half of one group at a time, while time is left."""
    image = torch.randn((1, *captured.input_shape), dtype=torch.float64)
    masked = mask_module(captured, coupling)
    start = time.perf_counter()
    worst, worst_group, checked = 0.0, "", 0
    ordered = np.random.default_rng(1).permutation(len(parts)).tolist()
    for first in range(0, len(ordered), ROWS_AT_ONCE):
        chunk = ordered[first : first + ROWS_AT_ONCE]
        if time.perf_counter() - start > limit_s:
            break
        masks = full_masks(len(chunk), coupling.num_players, dtype=image.dtype)
        for row, index in enumerate(chunk):
            masks[row, list(parts[index])] = 0
        outputs = tensor_leaves(masked(image.expand(len(chunk), *image.shape[1:]), masks))
        for row, index in enumerate(chunk):
            pruned = prune(captured, coupling, parts[index], share_unchanged=True)
            expected = tuple(output[row : row + 1] for output in outputs)
            found = distance(expected, tuple(tensor_leaves(pruned(image))))
            checked += 1
            if not found <= worst:
                owner = coupling.group_of_player()[parts[index][0]]
                worst, worst_group = found, coupling.groups[owner].name
        progress.tell(group_deviation=worst, worst_group=worst_group, groups_checked=checked)
    progress.tell(groups_to_check=len(parts))


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
