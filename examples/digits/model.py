"""A small CNN for 8x8 digits: plain, residual and depthwise-separable layers, 3.6 M MACs an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity shortcut."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.first = conv_norm(channels, hidden, 3)
        self.second = conv_norm(hidden, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class DigitsNet(nn.Module):
    """(n, 1, 8, 8) float32 -> (n, 10) class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(1, 32, 3)
        self.block = ResidualBlock(32, 64)
        self.widen = conv_norm(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.depthwise = conv_norm(64, 64, 3, groups=64)
        self.pointwise = conv_norm(64, 64, 1)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(torch.relu(self.stem(x)))
        x = self.pool(torch.relu(self.widen(x)))
        x = torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
        return self.head(x.mean((2, 3)))


def digits_net() -> DigitsNet:
    """The model with random weights; what ``--arch examples/digits/model.py:digits_net`` calls."""
    return DigitsNet()
