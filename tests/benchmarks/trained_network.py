"""The trained ResNet-20 for benchmarks: plans by any criterion, recovery, judgement on the whole test set."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import research_data
from resnet20 import resnet20
from rounds_ranking import ranked_in_rounds
from safetensors.torch import load_file
from torch.fx import GraphModule

from edgeprune import parity
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.pruning import Ranking
from edgeprune.capture.capture import capture
from edgeprune.commands.run.scoring import context_of_network
from edgeprune.coupling.coupling import couple
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.registry import criterion
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.recovery.splitting import SplitImages, split_images
from edgeprune.selection import select

IMAGES = 1_000
FOLLOWS_RATIO = frozenset({"hybrid"})
"""Criteria whose scores depend on the share that is to go."""
LIMITED = frozenset({"leave-one-out", "greedy-leave-one-out"})
MOST_PASSES = 2_000
"""Of those, which would take an hour else."""
_BATCH = 100
"""Test images at once: 500 do not fit a core's cache and take 1.8 times as long (to the same bits)."""


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """A network pruned, and recovered."""

    bare: GraphModule
    recovered: GraphModule
    recovery_cpu_s: float


class TrainedNetwork:
    """The network, the test set, and the context of the seed in work."""

    def __init__(self) -> None:
        data = research_data()
        self._test, self.labels = read_images(data / "cifar10_test.npz")
        self._train, self._train_labels = read_images(data / "cifar10_train_10k.npz")
        self.module = network = resnet20()
        network.load_state_dict(load_file(data / "resnet20_cifar10.safetensors"))
        self.captured = capture(network.eval(), (3, 32, 32))
        self.coupling = couple(self.captured)
        self._original: torch.Tensor | None = None
        self._kept: dict[tuple[object, ...], ScoringContext] = {}
        self._scores: dict[tuple[object, ...], Ranking] = {}

    def plan(self, name: str, ratio: float, seed: int, *, uniform: bool = False) -> tuple[int, ...]:
        """What a criterion removes: chosen over the network, or the same share of every group."""
        costs = self.scores(name, ratio, seed).removal_costs
        if uniform:
            return self._uniform(costs, ratio)
        return select(costs, self.coupling, ratio=ratio).removed

    def plan_in_rounds(self, ratio: float, seed: int) -> tuple[tuple[int, ...], Ranking]:
        """What ``compress`` removes at a cut that it ranks for in rounds, and its ranking."""
        images = self.context(seed, ratio).images
        ranking = ranked_in_rounds(self.module, self.captured, self.coupling, images, ratio=ratio, seed=seed)
        return select(ranking.removal_costs, self.coupling, ratio=ratio).removed, ranking

    def recover(self, removed: tuple[int, ...], images: torch.Tensor | SplitImages, seed: int) -> Recovered:
        """Prune, and recover on ``images``, some of which decide."""
        images = images if isinstance(images, SplitImages) else split(images, seed)
        bare = prune(self.captured, self.coupling, removed)
        started = time.process_time()
        recovered, _ = reconstruct(
            self.captured.graph_module, bare, self.coupling, removed, images,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        return Recovered(bare=bare, recovered=recovered, recovery_cpu_s=time.process_time() - started)

    def macs_removed(self, removed: tuple[int, ...]) -> float:
        """Share of the MACs that a plan saves."""
        return 1 - self.coupling.total_macs(self.coupling.removed_mask(removed)) / self.coupling.total_macs()

    def scores(self, name: str, ratio: float, seed: int) -> Ranking:
        """Of every player, by a criterion."""
        key = (name, seed, ratio if name in FOLLOWS_RATIO else None)
        if key not in self._scores:
            context, rng = self.context(seed, ratio), np.random.default_rng([seed, 1])
            if name in LIMITED:
                context = replace(context, max_evaluations=MOST_PASSES)
            self._scores[key] = criterion(name).score(context, rng=rng, advance=lambda _units: None)
        return self._scores[key]

    def context(self, seed: int, ratio: float) -> ScoringContext:
        """1,000 unlabelled images and the games on them; another draw for every seed."""
        key = ("context", seed, ratio)
        if key not in self._kept:
            self._kept.clear()
            images = ImageBatch(images=self._train[torch.from_numpy(self._drawn(seed))], labels=None)
            reference = [self._answers(self.captured.graph_module, images.images)]
            self._kept[key] = context_of_network(self.captured, self.coupling, images, reference, ratio=ratio)
        return self._kept[key]

    def pixels(self, seed: int) -> np.ndarray:
        """The same images (n, 32, 32, 3) as they are on file."""
        with np.load(research_data() / "cifar10_train_10k.npz") as train:
            return np.asarray(train["images"][self._drawn(seed)])

    def _drawn(self, seed: int) -> np.ndarray:
        return np.random.default_rng([seed, 2]).permutation(len(self._train))[:IMAGES]

    def _uniform(self, costs: np.ndarray, ratio: float) -> tuple[int, ...]:
        """The least share of every group, cheapest players first, that removes at least the ratio."""
        orders = [
            np.array(g.players)[np.argsort(costs[list(g.players)], kind="stable")]
            for g in self.coupling.groups
        ]
        total = self.coupling.total_macs()
        for share in np.linspace(0.0, 1.0, 401):
            removed = np.concatenate([o[: min(round(share * len(o)), len(o) - 1)] for o in orders])
            gone = self.coupling.removed_mask(tuple(removed.tolist()))
            if self.coupling.total_macs(gone) <= (1 - ratio) * total:
                return tuple(np.sort(removed).tolist())
        raise ValueError(f"no share of every group removes {ratio:.0%} of the MACs")

    def judged(self, outputs: torch.Tensor) -> dict[str, object]:
        """Accuracy, the images told rightly (for paired errors), and the divergence from the original."""
        hits = self.hits(outputs)
        own, original = outputs.log_softmax(1), self.original_outputs().log_softmax(1)
        return {
            "recovered": float(hits.mean()),
            "divergence": float((original.exp() * (original - own)).sum(1).mean()),
            "hits": packed(hits),
        }

    def hits(self, outputs: torch.Tensor) -> np.ndarray:
        """Which test images (n,) are told rightly."""
        return (outputs.argmax(1) == self.labels).numpy()

    def outputs(self, network: torch.nn.Module) -> torch.Tensor:
        """Answers (n, 10) on the test images."""
        return self._answers(network, self._test)

    def hits_in_training(self, network: torch.nn.Module) -> np.ndarray:
        """Which of all 10,000 training images are told rightly."""
        return (self._answers(network, self._train).argmax(1) == self._train_labels).numpy()

    def unused(self, seed: int) -> np.ndarray:
        """Which of all training images the seed has not drawn."""
        found = np.ones(len(self._train), dtype=bool)
        found[self._drawn(seed)] = False
        return found

    @torch.no_grad()
    def _answers(self, network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([network(part) for part in torch.split(images, _BATCH)])

    def onnx_outputs(self, path: Path) -> np.ndarray:
        """Answers (n, 10) of an ONNX file on the test images."""
        return parity.run_onnx(path, self._test, threads=torch.get_num_threads(), batch=500)[0]

    def original_outputs(self) -> torch.Tensor:
        """Answers (n, 10) of the network before pruning on the test images."""
        if self._original is None:
            self._original = self.outputs(self.captured.graph_module)
        return self._original

    def base_accuracy(self) -> float:
        """Of the network before pruning."""
        return float(self.hits(self.original_outputs()).mean())


def split(images: torch.Tensor, seed: int) -> SplitImages:
    """As ``compress`` splits them."""
    return split_images(images, torch.Generator().manual_seed(seed))


def packed(flags: np.ndarray) -> str:
    """Flags (n,) as text for a result file; a multiple of eight."""
    return base64.b64encode(np.packbits(flags)).decode()


def unpacked(text: str) -> np.ndarray:
    """The flags (n,) of ``packed``."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8)).astype(bool)


def read_images(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Preprocessed images (n, 3, 32, 32) and labels (n,)."""
    with np.load(path) as found:
        images, labels = found["images"], found["labels"]
    mean = np.array([0.485, 0.456, 0.406], dtype=np.float32)
    std = np.array([0.229, 0.224, 0.225], dtype=np.float32)
    scaled = (images.astype(np.float32) / 255 - mean) / std
    ready = torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))
    return ready, torch.from_numpy(labels.astype(np.int64))
