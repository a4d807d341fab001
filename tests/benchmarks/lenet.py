"""LeNet-1 on MNIST as the thesis behind this project has it: network, training, data split, curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.games.layer_game import LayerGame
from edgeprune.shapley.game import all_coalitions
from edgeprune.storage.files import atomic_write_bytes

SHAPLEY_IMAGES = 1_000
VALIDATION_IMAGES = 1_000
BATCH = 64
LEARNING_RATE = 1e-3


class LeNet1(nn.Module):
    """Two 5x5 convolutions of 4 and 12 filters, each with tanh and average pooling, and a linear layer."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 5)
        self.conv2 = nn.Conv2d(4, 12, 5)
        self.linear = nn.Linear(192, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = functional.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        return self.linear(torch.flatten(x, 1))


@dataclass(frozen=True)
class Images:
    """Images (k, 1, 28, 28) from 0 to 1 and their labels (k,)."""

    pixels: Tensor
    labels: Tensor

    def __getitem__(self, chosen: Tensor | slice) -> Images:
        return Images(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Split:
    """MNIST's test set as published: to value filters on, to choose by, and to judge on."""

    shapley: Images
    validation: Images
    test: Images


def load_mnist(data: Path, name: str) -> Images:
    """``train`` (60,000) or ``test`` (10,000)."""
    with np.load(data / f"mnist_{name}.npz") as file:
        pixels = torch.from_numpy(file["images"].astype(np.float32) / 255)[:, None]
        return Images(pixels, torch.from_numpy(file["labels"].astype(np.int64)))


def split_test_set(test: Images, seed: int) -> Split:
    """1,000 Shapley, 1,000 validation and 8,000 test images, drawn anew for every seed."""
    order = torch.from_numpy(np.random.default_rng([seed, 4]).permutation(len(test.labels)))
    first, second = SHAPLEY_IMAGES, SHAPLEY_IMAGES + VALIDATION_IMAGES
    return Split(test[order[:first]], test[order[first:second]], test[order[second:]])


def train(train_set: Images, seed: int, epochs: int) -> LeNet1:
    """A LeNet-1 trained on the whole training set with Adam; the same for the same seed and machine."""
    torch.manual_seed(seed)
    network = LeNet1()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        order = torch.randperm(len(train_set.labels))
        for chosen in order.split(BATCH):
            batch = train_set[chosen]
            loss = functional.cross_entropy(network(batch.pixels), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def trained(scratch: Path, train_set: Images, seed: int, epochs: int) -> LeNet1:
    """The network of ``seed`` from the scratch folder, trained and put there if it is not."""
    path = scratch / f"lenet1-seed{seed}-epochs{epochs}.safetensors"
    if not path.is_file():
        scratch.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, save(train(train_set, seed, epochs).state_dict()))
    network = LeNet1()
    network.load_state_dict(load_file(path))
    return network.eval().requires_grad_(False)


FILTERS = 12
STEPS = 12
"""Points of a curve: 0 to 11 filters removed."""


@dataclass(frozen=True)
class Curve:
    """Accuracy and loss (12,) on the test images with 0 to 11 filters removed, and what it took."""

    accuracy: np.ndarray
    loss: np.ndarray
    evaluations: float = 0.0
    published: float = 0.0


class JudgeTable:
    """Accuracy and loss (4096,) of every coalition on some images, by bit code."""

    def __init__(self, game: LayerGame, labels: torch.Tensor) -> None:
        self.accuracy, self.loss = np.zeros(2**FILTERS), np.zeros(2**FILTERS)
        for replay in game.replays(all_coalitions(FILTERS)):
            count = replay.coalitions.stop - replay.coalitions.start
            expected = labels[replay.images].repeat(count)[:, None]
            lead = replay.outputs[0] - replay.outputs[0].gather(1, expected)
            hits = (lead.amax(1) <= 0).view(count, -1).sum(1)
            losses = torch.logsumexp(lead, 1).view(count, -1).double().sum(1)
            self.accuracy[replay.coalitions] += hits.numpy() / len(labels)
            self.loss[replay.coalitions] += losses.numpy() / len(labels)

    def curve(self, codes: np.ndarray, evaluations: float = 0.0, published: float = 0.0) -> Curve:
        """The curve of the sets kept (12,), given by bit code."""
        return Curve(self.accuracy[codes], self.loss[codes], evaluations, published)


def codes_of_order(removed: np.ndarray) -> np.ndarray:
    """Bit codes (12,) of what is left after 0 to 11 removals."""
    gone = np.concatenate([[0], np.cumsum(1 << np.asarray(removed))])[:STEPS]
    return 2**FILTERS - 1 - gone


def codes_of_sets(sets: tuple[np.ndarray, ...]) -> np.ndarray:
    """Bit codes (12,) of the sets kept after 0 to 11 removals, from those of each size."""
    return np.array([(1 << np.asarray(sets[FILTERS - removed])).sum() for removed in range(STEPS)])


def mean_curve(curves: list[Curve]) -> Curve:
    """Pointwise mean."""
    return Curve(
        *(np.mean([getattr(c, part) for c in curves], axis=0) for part in ("accuracy", "loss")),
        *(float(np.mean([getattr(c, part) for c in curves])) for part in ("evaluations", "published")),
    )
