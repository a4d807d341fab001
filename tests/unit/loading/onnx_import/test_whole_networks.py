"""Exported classifiers come back: equal to the file, coupled, and pruned as masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import compare, make_case, randomise
from onnx_graphs import check
from onnx_models import written

from edgeprune.loading.model import load_model
from edgeprune.system.compat import import_torchvision

SHAPE = (3, 32, 32)
NAMES = ("resnet18",)
MORE_NAMES = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "efficientnet_b0",
    "mnasnet0_5",
    "regnet_y_400mf",
)


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(n, marks=pytest.mark.wide) for n in MORE_NAMES)])
def test_exported_networks_prune_as_their_masks_say(name, tmp_path):
    torch.manual_seed(0)
    module = import_torchvision().models.get_model(name, weights=None, num_classes=10)
    randomise(module, SHAPE)
    path = written(module, tmp_path / "m.onnx", SHAPE)
    imported = check(path, SHAPE)
    own, case = (make_case(network, SHAPE, trained=True) for network in (module, imported))
    assert case.coupling.unruled_ops == ()
    assert len(case.coupling.groups) == len(own.coupling.groups)
    assert case.coupling.num_players == own.coupling.num_players
    rng = np.random.default_rng(0)
    removed = sorted(
        int(player)
        for group in case.coupling.groups
        for player in rng.choice(group.players, len(group.players) // 4, replace=False)
    )
    (row,) = compare(case, [tuple(removed)])
    assert row.deviation < 1e-10
    assert row.effect > 1e-3


def test_averages_of_permuted_images(tmp_path):
    """The exporter writes such an average with strides over all images."""
    blocks = import_torchvision().models.convnext
    settings = [blocks.CNBlockConfig(8, 16, 1), blocks.CNBlockConfig(16, None, 1)]
    module = blocks.ConvNeXt(settings, num_classes=10)
    check(written(module, tmp_path / "m.onnx", SHAPE), SHAPE)


def test_names_of_layers_are_those_of_the_torch_model(tmp_path):
    module = import_torchvision().models.resnet18(weights=None, num_classes=10)
    loaded = load_model(written(module, tmp_path / "m.onnx", SHAPE))
    names = {name for name, _ in loaded.module.named_parameters()}
    assert {"layer1.0.conv1.weight", "layer4.1.conv2.weight", "fc.weight", "fc.bias"} <= names
