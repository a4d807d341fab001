"""Single-layer games of ResNet-20 for the estimator benchmarks: cached prefix, one matrix product, suffix.

Players are the filters of a block's first convolution. All that follows the mask up to the next ReLU is
linear, so every filter's contribution to it is computed once and a coalition is their sum; only the later
blocks are run anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from lenet import load_mnist, split_test_set, trained
from resnet20 import BasicBlock, ResNet20, resnet20
from torch import Tensor
from torch.nn import functional

from edgeprune.shapley.game import CoalitionGame
from edgeprune.shapley.journal import JournaledGame

BLOCKS = tuple(f"layer{stage}.{place}" for stage in (1, 2, 3) for place in (0, 1, 2))
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LENET_EPOCHS = 15


class FilterGame:
    """Minus the cross-entropy with the labels (m, k) when only some filters of ``block``'s conv1 are left.

    Differentiable: memberships between 0 and 1 scale the filters.
    """

    shared_coalition = False

    def __init__(
        self, network: ResNet20, block: str, images: Tensor, labels: Tensor, *, coalitions_at_once: int = 64
    ) -> None:
        self._blocks = [b for stage in (network.layer1, network.layer2, network.layer3) for b in stage]
        place = BLOCKS.index(block)
        own = self._blocks[place]
        assert isinstance(own, BasicBlock)
        self._later = self._blocks[place + 1 :]
        self._linear = network.linear
        self._labels = labels
        self._coalitions_at_once = coalitions_at_once
        with torch.no_grad():
            x = functional.relu(network.bn1(network.conv1(images)))
            for before in self._blocks[:place]:
                x = before(x)
            hidden = functional.relu(own.bn1(own.conv1(x)))
            self._contributions = _contributions(own, hidden)
            self._base = _without_hidden(own, x, hidden)
        self._shape = self._base.shape[1:]

    @property
    def num_players(self) -> int:
        """Filters."""
        return int(self._contributions.shape[1])

    @property
    def num_images(self) -> int:
        """Images."""
        return len(self._labels)

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        """v(S) (m, k) of coalitions (m, n)."""
        found = np.empty((len(coalitions), self.num_images))
        # Image by image, so that its contributions and the sums of many coalitions stay in the CPU's cache.
        for start in range(0, len(coalitions), self._coalitions_at_once):
            block = torch.from_numpy(coalitions[start : start + self._coalitions_at_once].astype(np.float32))
            for image in range(self.num_images):
                with torch.no_grad():
                    sums = block @ self._contributions[image]
                    rows = sums.add_(self._base[image].flatten()).reshape(-1, *self._shape)
                    loss = self._loss(rows, self._labels[image].expand(len(block)))
                found[start : start + len(block), image] = -loss.double().numpy()
        return found

    def marginals(self, memberships: np.ndarray, images: np.ndarray) -> np.ndarray:
        """dv/dm (b, n) for the images (b,), each at its own membership (b, n)."""
        chosen = torch.from_numpy(images)
        masks = torch.from_numpy(memberships.astype(np.float32)).requires_grad_(True)
        sums = torch.einsum("bn,bno->bo", masks, self._contributions[chosen])
        rows = (sums + self._base[chosen].flatten(1)).reshape(-1, *self._shape)
        total = -self._loss(rows, self._labels[chosen]).sum()
        (gradient,) = torch.autograd.grad(total, masks)
        return np.asarray(gradient.double().numpy())

    def _loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        x = functional.relu(rows)
        for block in self._later:
            x = block(x)
        return functional.cross_entropy(self._linear(x.mean(dim=(2, 3))), labels, reduction="none")


def _contributions(block: BasicBlock, hidden: Tensor) -> Tensor:
    """What every filter adds to the block's last sum (k, n, outputs x height x width)."""
    scale = block.bn2.weight / torch.sqrt(block.bn2.running_var + block.bn2.eps)
    weight = (block.conv2.weight * scale[:, None, None, None]).transpose(0, 1)
    parts = [
        functional.conv2d(hidden[:, i : i + 1], weight[i][:, None], padding=1).flatten(1)
        for i in range(hidden.shape[1])
    ]
    return torch.stack(parts, dim=1)


def _without_hidden(block: BasicBlock, x: Tensor, hidden: Tensor) -> Tensor:
    """The block's last sum with no filter left (k, outputs, height, width)."""
    base = block.bn2(torch.zeros_like(block.conv2(hidden)))
    shortcut = x
    if block.stride != 1 or block.pad:
        shortcut = functional.pad(
            x[:, :, :: block.stride, :: block.stride], (0, 0, 0, 0, block.pad, block.pad)
        )
    return base + shortcut


def network_of(data: Path) -> ResNet20:
    """The trained ResNet-20, batch norm fixed, without gradients of weights."""
    from safetensors.torch import load_file

    network = resnet20()
    network.load_state_dict(load_file(data / "resnet20_cifar10.safetensors"))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def filter_game(data: Path, block: str, images: int) -> FilterGame:
    """The game of ``block`` on the first ``images`` of the training images at hand."""
    with np.load(data / "cifar10_train_10k.npz") as train:
        pixels, labels = train["images"][:images], train["labels"][:images]
    scaled = (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    inputs = torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))
    return FilterGame(network_of(data), block, inputs, torch.from_numpy(labels.astype(np.int64)))


def fingerprint(data: Path, block: str, images: int) -> str:
    """What decides the values: weights, images and the place of the mask."""
    digest = hashlib.sha256((data / "resnet20_cifar10.safetensors").read_bytes())
    digest.update(f"cifar10_train_10k {images} {block} conv1 cross-entropy".encode())
    return digest.hexdigest()[:32]


def journaled_means(data: Path, block: str, images: int, results: Path) -> tuple[JournaledGame, FilterGame]:
    """The mean game of ``block``, its values kept in ``results``, and the game by images itself."""
    game = filter_game(data, block, images)
    mean = CoalitionGame(game.num_players, lambda coalitions: game.values(coalitions).mean(axis=1))
    path = results / f"{block}-{images}.values"
    return JournaledGame(mean, path, fingerprint=fingerprint(data, block, images)), game


class WithGradients:
    """The mean values of a game as kept on file, and the gradients of the game by images."""

    shared_coalition = False

    def __init__(self, kept: JournaledGame, game: FilterGame) -> None:
        self._kept = kept
        self._game = game
        self.num_players = game.num_players
        self.num_images = game.num_images

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        """The mean (m, k), the same for every image, so that means over images are right."""
        return np.repeat(self._kept.values(coalitions), self.num_images, axis=1)

    def marginals(self, memberships: np.ndarray, images: np.ndarray) -> np.ndarray:
        """dv/dm (b, n), image by image."""
        return self._game.marginals(memberships, images)


def lenet_means(data: Path, scratch: Path, seed: int, images: int, results: Path) -> JournaledGame:
    """The mean game of the 12 filters of LeNet-1's second convolution, on the images the thesis values on."""
    network = trained(scratch, load_mnist(data, "train"), seed, LENET_EPOCHS)
    chosen = split_test_set(load_mnist(data, "test"), seed).shapley[slice(images)]
    with torch.no_grad():
        x = functional.avg_pool2d(torch.tanh(network.conv1(chosen.pixels)), 2)
        x = functional.avg_pool2d(torch.tanh(network.conv2(x)), 2)
    # All that follows the filters is linear: each one's part of the logits is computed once.
    parts = torch.einsum("kno,cno->knc", x.flatten(2), network.linear.weight.view(10, 12, -1))

    def means(coalitions: np.ndarray) -> np.ndarray:
        logits = torch.einsum("mn,knc->mkc", torch.from_numpy(coalitions.astype(np.float32)), parts)
        logits = (logits + network.linear.bias).flatten(0, 1)
        labels = chosen.labels.repeat(len(coalitions))
        loss = functional.cross_entropy(logits, labels, reduction="none")
        return -loss.double().numpy().reshape(len(coalitions), -1).mean(axis=1)

    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in network.state_dict().values()))
    digest.update(f"mnist_test split {seed}, {images} images".encode())
    path = results / f"lenet1-{seed}-{images}.values"
    return JournaledGame(CoalitionGame(12, means), path, fingerprint=digest.hexdigest()[:32])
