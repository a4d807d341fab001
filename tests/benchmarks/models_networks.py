"""Networks that people bring, with random weights: small ones of torchvision, timm and ultralytics."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from edgeprune.system.compat import import_torchvision

TIMM = (
    *("mobilenetv4_conv_small", "fastvit_t8", "repvit_m0_9", "efficientvit_b0", "ghostnetv2_100"),
    *("convnext_atto", "mobilevit_xxs", "mobilevitv2_050"),
)
SEGMENTATION = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")
YOLO = ("yolov8n", "yolo11n")


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval()


def timm_network(name: str) -> nn.Module:
    """A classifier of timm."""
    import_torchvision()
    import timm

    return _seeded(lambda: timm.create_model(name, pretrained=False))


class _Only(nn.Module):
    """One of the outputs of a network that gives a dictionary."""

    def __init__(self, network: nn.Module, key: str) -> None:
        super().__init__()
        self.network, self.key = network, key

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.network(images)[self.key]
        return output


def segmentation_network(name: str) -> nn.Module:
    """A segmenter of torchvision, its main output."""
    models = import_torchvision().models.segmentation
    return _Only(_seeded(lambda: getattr(models, name)(weights=None, weights_backbone=None)), "out")


def yolo_network(name: str) -> nn.Module:
    """A detector of ultralytics from its yaml, as it is exported: decoded boxes and scores in one tensor."""
    import_torchvision()
    os.environ["YOLO_OFFLINE"] = "1"
    from ultralytics.nn.tasks import DetectionModel

    network = _seeded(lambda: DetectionModel(f"{name}.yaml", ch=3, nc=80, verbose=False))
    head: Any = network.model[-1]
    head.export, head.format = True, "onnx"
    return network


def _factory(build: Callable[[str], nn.Module], name: str) -> Callable[[], nn.Module]:
    return lambda: build(name)


for _build, _names in ((timm_network, TIMM), (segmentation_network, SEGMENTATION), (yolo_network, YOLO)):
    for _name in _names:  # a factory each, for --arch FILE:NAME
        setattr(sys.modules[__name__], _name, _factory(_build, _name))
