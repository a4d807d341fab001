"""Real architectures, every group: pruning does what masking says, costs what was counted, and replays."""

from __future__ import annotations

from pathlib import Path

import pytest
from networks import Case, compare, counted_macs, make_case
from replays import check_refusal, check_replay
from torch import nn

from edgeprune.loading.model import load_model
from edgeprune.pruning.surgery import prune
from edgeprune.system.compat import import_torchvision

RESNET20 = Path(__file__).resolve().parents[1] / "benchmarks" / "resnet20.py"


REPLAYED = {
    "resnet18": True,
    "mobilenet_v2": False,
    "densenet121": False,
    "squeezenet1_0": True,
    "efficientnet_b0": False,
}
"""Whose recipe is replayed on their class; whether with their program, which takes as long as the rest."""


def narrow_classifier() -> nn.Module:
    """VGG's layers at a width that fits a test: its own have 120 million weights."""
    wide, inner = nn.Linear(25088, 64), nn.Linear(64, 48)
    return nn.Sequential(wide, nn.ReLU(), nn.Dropout(), inner, nn.ReLU(), nn.Dropout(), nn.Linear(48, 10))


def check(case: Case, *, groups_at_once: int = 1) -> None:
    """Every group alone (or a few side by side, where they are many) and all together."""
    removals = case.removals(groups_at_once=groups_at_once)
    assert case.coupling.unruled_ops == ()
    assert {f.reason for f in case.coupling.frozen} == {"output of the model"}
    for row in compare(case, removals):
        assert row.deviation < 1e-10
        assert row.effect > 1e-3
    everything = removals[-1]
    pruned = prune(case.captured, case.coupling, everything)
    counted = counted_macs(pruned, case.images)
    assert counted == case.coupling.total_macs(case.coupling.removed_mask(everything))
    assert counted < 0.6 * counted_macs(case.captured.graph_module, case.images)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        # 8 blocks with a convolution inside each, and the stream of each of 4 stages.
        pytest.param("resnet18", 12, marks=pytest.mark.wide),
        # 16 expansions, 7 streams, stem and the last convolution.
        pytest.param("mobilenet_v2", 25, marks=pytest.mark.wide),
        # 8 convolutions and 2 hidden linear layers.
        pytest.param("vgg11_bn", 10, marks=pytest.mark.wide),
        # 58 bottlenecks and growths, the stem and 3 transitions.
        pytest.param("densenet121", 120, marks=pytest.mark.wide),
        # Stem, and 3 convolutions in each of 8 fire modules; the classifier stays.
        ("squeezenet1_0", 25),
        # Channel shuffles couple halves of the streams with each other.
        pytest.param("shufflenet_v2_x0_5", 33, marks=pytest.mark.wide),
        # Squeeze and excitation in 9 of 11 blocks.
        pytest.param("mobilenet_v3_small", 27, marks=pytest.mark.wide),
        # Group convolutions of 16 channels a group, squeeze and excitation.
        pytest.param("regnet_y_400mf", 53, marks=pytest.mark.wide),
        pytest.param("mnasnet0_5", 25, marks=pytest.mark.wide),
        pytest.param("efficientnet_b0", 40, marks=pytest.mark.wide),
        # Four branches joined in each of 9 modules.
        pytest.param("googlenet", 57, marks=pytest.mark.wide),
    ],
)
def test_torchvision(name, groups, tmp_path):
    extra = {"init_weights": False} if name == "googlenet" else {}
    module = import_torchvision().models.get_model(name, weights=None, num_classes=10, **extra)
    if name == "vgg11_bn":
        module.classifier = narrow_classifier()
    case = make_case(module, (3, 32, 32))
    assert len(case.coupling.groups) == groups
    check(case, groups_at_once=6 if groups > 100 else 1)
    if name in REPLAYED:
        check_replay(module, case, tmp_path, program=REPLAYED[name])
    if name == "shufflenet_v2_x0_5":  # whose code splits a stream in halves
        check_refusal(module, case, tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "groups"),
    [
        ("r3d_18", (3, 4, 16, 16), 12),
        pytest.param("lraspp_mobilenet_v3_large", (3, 32, 32), 30, marks=pytest.mark.wide),
    ],
)
def test_video_and_segmentation(name, shape, groups):
    extra = {"weights_backbone": None} if "lraspp" in name else {}
    module = import_torchvision().models.get_model(name, weights=None, num_classes=10, **extra)
    case = make_case(module, shape)
    assert len(case.coupling.groups) == groups
    check(case, groups_at_once=4)


@pytest.mark.realdata
def test_resnet20_with_trained_weights(research_data):
    loaded = load_model(research_data / "resnet20_cifar10.safetensors", architecture=f"{RESNET20}:resnet20")
    case = make_case(loaded.module, (3, 32, 32), trained=True)
    # 9 blocks with a convolution inside each; option A couples 16 of 32 and 32 of 64 channels of the streams.
    assert len(case.coupling.groups) == 12
    check(case)
