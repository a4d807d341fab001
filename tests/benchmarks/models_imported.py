"""Exported classifiers and files of packages that come back: equal to the file, pruned as their masks say."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Jobs
from models_networks import timm_network
from models_shipped import NUDENET, OCR, READERS, file_of
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from networks import compare, make_case, randomise
from onnx_graphs import check
from onnx_models import written

from edgeprune.system.compat import import_torchvision

Row = dict[str, Any]
SIDE = 64
SIDES = {"vgg11_bn": 224}
"""Of networks whose pooling enlarges smaller maps, which nobody exports."""
TORCHVISION = (
    *("resnet18", "resnet34", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "squeezenet1_1"),
    *("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "efficientnet_b0", "mnasnet0_5", "mnasnet1_0"),
    *("regnet_x_400mf", "regnet_y_400mf", "vgg11_bn", "densenet121", "convnext_tiny"),
)
TIMM = (
    *("mobilenetv4_conv_small", "fastvit_t8", "repvit_m0_9", "efficientvit_b0", "ghostnetv2_100"),
    *("convnext_atto", "mobilenetv3_small_050", "lcnet_050", "tinynet_e", "mixnet_s", "efficientnet_lite0"),
    *("hardcorenas_a", "repghostnet_050", "edgenext_xx_small", "resnet10t"),
)
FOREIGN: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "nudenet 320n.onnx": (NUDENET, "320n.onnx", (3, 320, 320)),
    "rapidocr det": (OCR, f"models/{READERS['det'][0]}", (3, 160, 320)),
    "rapidocr cls": (OCR, f"models/{READERS['cls'][0]}", (3, 48, 192)),
    "rapidocr rec": (OCR, f"models/{READERS['rec'][0]}", (3, 48, 320)),
}
"""Files of packages, by the file and the shape of an image."""
QUARTER = 4
LEAST_SCALE = 1e-3


def jobs(_folder: Path, _seeds: int, threads: int) -> Jobs:
    """One job a network."""
    torch.set_num_threads(threads)
    found: Jobs = {name: lambda work, n=name: imported(n, work) for name in (*TORCHVISION, *TIMM)}
    return found | {name: lambda _work, n=name: foreign(n) for name in FOREIGN}


def foreign(name: str) -> Row:
    """A file that a package ships, imported and cut as the others are; there is no module of it."""
    began = time.perf_counter()
    package, file, shape = FOREIGN[name]
    row = _cut(check(file_of(package, file), shape, low=-1.0), shape)
    return {"network": name, **row, "s": time.perf_counter() - began}


def imported(name: str, work: Path) -> Row:
    """Export, import, compare with onnxruntime, and cut a quarter of every group in double precision."""
    began = time.perf_counter()
    shape = (3, *2 * (SIDES.get(name, SIDE),))
    torch.manual_seed(0)
    module = (
        import_torchvision().models.get_model(name, weights=None)
        if name in TORCHVISION
        else timm_network(name)
    )
    with torch.no_grad():
        for parameter in module.parameters():  # scales of branches that begin near 0 would hide every cut
            if 0.0 < float(parameter.abs().max()) < LEAST_SCALE:
                parameter.uniform_(0.5, 1.0)
    randomise(module, shape)
    path = written(module, work / "m.onnx", shape)
    try:
        network = check(path, shape)
    except Exception as error:  # what is not imported is a result, too
        return {"network": name, "said": str(error).strip().splitlines()[0][:200]}
    own = make_case(module, shape, trained=True)
    row = _cut(network, shape)
    return {
        "network": name,
        **row,
        "own_players": own.coupling.num_players,
        "s": time.perf_counter() - began,
    }


def _cut(network: nn.Module, shape: tuple[int, ...]) -> Row:
    case = make_case(network, shape, trained=True)
    rng = np.random.default_rng(0)
    removed = [
        int(player)
        for group in case.coupling.groups
        for player in rng.choice(group.players, len(group.players) // QUARTER, replace=False)
    ]
    (row,) = compare(case, [tuple(sorted(removed))])
    return {"players": case.coupling.num_players, "deviation": row.deviation, "effect": row.effect}


def _own(row: Row) -> str:
    return f"{row['own_players']:,}" if "own_players" in row else ""


def render(rows: list[Row]) -> str:
    """One line a network."""
    back = [row for row in rows if "deviation" in row]
    text = (
        f"Random weights and norm statistics, {SIDE} pixels (vgg11_bn: 224). Each file is imported and held\n"
        "against onnxruntime (relative error of 1e-4 at most, beyond what single precision leaves), then a\n"
        "quarter of the channels of every group is cut: *deviation* of pruned from masked in double\n"
        "precision, beside the *effect* of the cut, both relative to the largest output. *channels*:\n"
        "prunable ones of the imported network, and of the module that was exported. The last four are as\n"
        "packages ship them, with their own weights.\n"
        f"{len(back)} of {len(rows)} come back.\n\n"
        "| network | channels | of the module | deviation | effect | s |\n|---|---|---|---|---|---|\n"
    )
    for row in rows:
        text += (
            f"| {row['network']} | {row['players']:,} | {_own(row)} | {row['deviation']:.1e} "
            f"| {row['effect']:.2f} | {row['s']:.0f} |\n"
            if "deviation" in row
            else f"| {row['network']} | {row['said']} | | | | |\n"
        )
    return text
