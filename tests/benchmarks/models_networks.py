"""Networks that people bring, with random weights: small ones of the libraries that people take them from."""

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
SSD = ("ssdlite320_mobilenet_v3_large",)
UNET = ("unet_mobilenet_v2", "unet_resnet18")
TRANSFORMERS = ("vit_tiny_patch16",)
YOLO = ("yolov8n", "yolo11n")
_NOISE_BATCHES = 3


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


class _BoxesAndScores(nn.Module):
    """A detector of torchvision up to its heads; resizing, anchors and suppression are no part of a graph."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.head(list(self.backbone(images).values()))
        return outputs["bbox_regression"], outputs["cls_logits"]


def ssd_network(name: str) -> nn.Module:
    """Backbone and heads of a detector of torchvision, its norms with the statistics of noise.

    As it is built values shrink to 1e-29 on the way to its heads, as those of no trained network do.
    """
    models = import_torchvision().models.detection
    detector = _seeded(lambda: getattr(models, name)(weights=None, weights_backbone=None))
    network = _BoxesAndScores(detector).train()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None  # a plain mean over the batches
    with torch.no_grad():
        for _ in range(_NOISE_BATCHES):
            network(torch.rand(8, 3, 224, 224))
    return network.eval()


def unet_network(name: str) -> nn.Module:
    """A U-Net of segmentation-models-pytorch for one class."""
    import_torchvision()
    import segmentation_models_pytorch as segmentation

    return _seeded(lambda: segmentation.Unet(name.removeprefix("unet_"), encoder_weights=None))


def transformers_network(_name: str) -> nn.Module:
    """A vision transformer of Hugging Face, of the size that DeiT calls tiny."""
    import_torchvision()
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768, num_labels=1000)
    return _seeded(lambda: ViTForImageClassification(config))


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


_FAMILIES = (
    *((timm_network, TIMM), (segmentation_network, SEGMENTATION), (ssd_network, SSD)),
    *((unet_network, UNET), (transformers_network, TRANSFORMERS), (yolo_network, YOLO)),
)
for _build, _names in _FAMILIES:
    for _name in _names:  # a factory each, for --arch FILE:NAME
        setattr(sys.modules[__name__], _name, _factory(_build, _name))
