"""What the example scripts share: two small networks, and generated images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = 4


class Classifier(nn.Module):
    """(n, 1, 16, 16) float32 -> (n, 4) class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1, stride=2)
        self.head = nn.Linear(16 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(nn.functional.avg_pool2d(x, 4).flatten(1))


class Detector(nn.Module):
    """(n, 1, 24, 24) float32 -> (n, 6, 36): center, size and two class scores for every 4 x 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1, stride=4)
        self.head = nn.Conv2d(16, 6, 1)
        rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
        self.register_buffer("centers", torch.stack([columns, rows]) * 4 + 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(torch.relu(self.second(torch.relu(self.first(x)))))
        boxes = [self.centers + y[:, :2], 4 + 2 * torch.sigmoid(y[:, 2:4])]
        return torch.cat([*boxes, torch.sigmoid(y[:, 4:])], 1).flatten(2)


def classifier() -> Classifier:
    return Classifier()


def detector() -> Detector:
    return Detector()


def striped_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise uint8 (count, 16, 16) with a bright stripe, whose place is the class."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    images = generator.integers(0, 90, (count, 16, 16), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 120
    return images, labels


def images_with_boxes(count: int) -> np.ndarray:
    """Noise uint8 (count, 24, 24) with a bright square of 8 x 8 pixels somewhere."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (count, 24, 24), dtype=np.uint8)
    for image in images:
        row, column = generator.integers(0, 16, 2)
        image[row : row + 8, column : column + 8] += 180
    return images


def trained_classifier(steps: int = 60) -> Classifier:
    """The classifier, trained for a second on striped images."""
    torch.manual_seed(0)
    images, labels = striped_images(128)
    inputs, wanted = torch.from_numpy(images[:, None]).float() / 255, torch.from_numpy(labels)
    network = classifier()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), wanted).backward()
        optimizer.step()
    return network.eval()


def sure_detector() -> Detector:
    """The detector with random weights whose scores are spread, so that it detects something."""
    torch.manual_seed(0)
    network = detector().eval()
    with torch.no_grad():
        network.head.weight[4:] *= 4
        network.head.bias[4:] -= 0.5
    return network


def save_striped_images(folder: Path) -> Path:
    """Write labelled calibration images, with a card that says how they become the input."""
    images, labels = striped_images(64)
    path = folder / "stripes.npz"
    np.savez(path, images=images, labels=labels)
    path.with_suffix(".toml").write_text('name = "stripes"\nmean = [0.0]\nstd = [1.0]\n')
    return path
