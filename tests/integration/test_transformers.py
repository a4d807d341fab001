"""Transformers through the whole pipeline, and torchvision's own at a small size: masked equals pruned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import networks as nets
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import edgeprune
from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.choices import AttentionUnit, CouplingOptions
from edgeprune.artifacts.report import Verdict
from edgeprune.coupling.coupling import couple
from edgeprune.system.compat import import_torchvision

import_torchvision()

from torchvision.models.convnext import CNBlockConfig, ConvNeXt  # noqa: E402
from torchvision.models.swin_transformer import (  # noqa: E402
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)
from torchvision.models.vision_transformer import VisionTransformer  # noqa: E402


def vit() -> nn.Module:
    network = VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=48, num_classes=5
    )
    nn.init.normal_(network.heads.head.weight)
    return network


def swin() -> nn.Module:
    return SwinTransformer(
        patch_size=[2, 2], embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4],
        num_classes=5, stochastic_depth_prob=0.0,
    )  # fmt: skip


def swin_v2() -> nn.Module:
    """Position biases from a network of their own, a bias of which a third is always zero."""
    return SwinTransformer(
        patch_size=[2, 2], embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4],
        num_classes=5, stochastic_depth_prob=0.0, block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    )  # fmt: skip


def convnext() -> nn.Module:
    return ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)], num_classes=5, layer_scale=1.0)


# Players by default: head dimensions of each attention layer and hidden channels of each MLP; the residual
# stream is held by its layer norms. Then with whole heads, and with the streams and what is merged.
MODELS = {
    "vit": (vit, (3, 16, 16), 2 * (8 + 48), 2 * (4 + 48), 2 * (8 + 48) + 32),
    "swin": (
        swin, (3, 32, 32), 2 * (8 + 64) + 2 * (8 + 128), 2 * (2 + 64) + 2 * (4 + 128),
        2 * (8 + 64) + 2 * (8 + 128) + 16 + 32,
    ),
    "swin_v2": (
        swin_v2, (3, 32, 32), 2 * (8 + 64) + 2 * (8 + 128), 2 * (2 + 64) + 2 * (4 + 128),
        2 * (8 + 64) + 2 * (8 + 128) + 16 + 32,
    ),
    "convnext": (convnext, (3, 32, 32), 64 + 128, 64 + 128, 64 + 128 + 16 + 32),
}  # fmt: skip
OPTIONS = (
    CouplingOptions(),
    CouplingOptions(attention=AttentionUnit.HEADS),
    CouplingOptions(prune_normalized=True),
)


def macs_of(case: nets.Case) -> int:
    """As torch's own counter finds them, which knows of the kernels of attention only the plain one."""
    with sdpa_kernel(SDPBackend.MATH):
        return nets.counted_macs(case.captured.graph_module, case.images)


@pytest.mark.parametrize(
    "name", [n if n in {"vit", "convnext"} else pytest.param(n, marks=pytest.mark.wide) for n in MODELS]
)
def test_every_group_is_exact_whatever_was_chosen(name: str) -> None:
    factory, shape, *players = MODELS[name]
    torch.manual_seed(0)
    captured = nets.make_case(factory(), shape)
    for options, expected in zip(OPTIONS, players, strict=True):
        case = replace(captured, coupling=couple(captured.captured, options))
        assert (case.coupling.num_players, case.coupling.notes) == (expected, ())
        assert macs_of(case) == case.coupling.total_macs()
        for row in nets.compare(case, case.removals()):
            assert row.deviation < 1e-10
            assert row.effect > 1e-8


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit", {"ratio": 0.25}),
        pytest.param(
            "vit",
            {"attention_unit": AttentionUnit.HEADS, "prune_normalized": True, "ratio": 0.75},
            marks=pytest.mark.wide,
        ),
    ],
    ids=["head dimensions", "heads and stream"],
)
def test_a_transformer_goes_through_the_whole_pipeline(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    factory, shape, *_ = MODELS[name]
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 255, (24, *shape[1:], 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    report = edgeprune.compress(
        factory().eval(),
        calibration=tmp_path / "images.npz",
        preprocessing=Preprocessing(mean=(0.5,), std=(0.25,)),
        output=tmp_path / "out",
        width_quantum=1,
        threads=1,
        effort=edgeprune.Effort.QUICK,
        **options,
    )
    assert report.pruning.macs_removed_share >= 0.25
    assert all(figure.verdict is Verdict.PASSED for figure in report.parity)
    assert report.recovery.mean_error_after < report.recovery.mean_error_before
    assert report.deployment.compressed.macs < report.deployment.original.macs
    told = any("norms take their statistics over fewer channels" in note for note in report.notes)
    assert told == ("prune_normalized" in options)
