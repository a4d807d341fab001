"""Every criterion on ResNet-20: four cuts, one share for all groups or chosen over the network, no training.

Run as ``python tests/benchmarks/bench_network.py --results FOLDER``; writes
``docs/benchmarks/shapley-network.md`` from all that lies in FOLDER and goes on where it stopped.
``--limit-minutes 0`` only writes the table anew.
"""

from __future__ import annotations

import argparse
import base64
import json
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from common import header, research_data, write_result
from network_report import render
from resnet20 import resnet20
from safetensors.torch import load_file

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.scores import Scores
from edgeprune.criteria.base import Evidence
from edgeprune.criteria.registry import criterion, criterion_names
from edgeprune.graph.capture import capture
from edgeprune.graph.coupling import couple
from edgeprune.graph.masking import mask_module
from edgeprune.graph.replay import MaskedGame
from edgeprune.graph.statistics import channel_statistics
from edgeprune.graph.surgery import prune
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.selection import select

IMAGES = 1_000
RATIOS = (0.25, 0.4, 0.5, 0.65)
MODES = ("global", "uniform")
LEADING = ("hybrid", "fpgm", "l2", "l1", "taylor-squared", "activation-weight")
"""Criteria that are run first, and with every seed."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One pruned network of the table."""

    criterion: str
    ratio: float
    mode: str
    seed: int

    @property
    def file_name(self) -> str:
        """Where its result is kept."""
        return f"{self.criterion}-{self.ratio:g}-{self.mode}-{self.seed}.json"


class Bench:
    """The network, the test set, and the evidence of the seed in work."""

    def __init__(self) -> None:
        data = research_data()
        self._test, self._labels = read_images(data / "cifar10_test.npz")
        self._train, _ = read_images(data / "cifar10_train_10k.npz")
        network = resnet20()
        network.load_state_dict(load_file(data / "resnet20_cifar10.safetensors"))
        self._captured = capture(network.eval(), (3, 32, 32))
        self._coupling = couple(self._captured)
        self._original: torch.Tensor | None = None
        self._kept: dict[tuple[object, ...], Evidence | Scores] = {}

    def measure(self, cell: Cell) -> dict[str, object]:
        """Score, select, prune, recover and judge."""
        evidence = self._evidence(cell.seed, cell.ratio)
        scores = self._scores(cell, evidence)
        costs = scores.removal_costs
        removed = (
            select(costs, self._coupling, ratio=cell.ratio).removed
            if cell.mode == "global"
            else self._uniform(costs, cell.ratio)
        )
        bare = prune(self._captured, self._coupling, removed)
        started = time.process_time()
        recovered, _ = reconstruct(
            self._captured.graph_module, bare, self._coupling, removed, evidence.images.images,
            generator=torch.Generator().manual_seed(cell.seed),
        )  # fmt: skip
        recovery_s = time.process_time() - started
        gone = self._coupling.removed_mask(removed)
        return {
            **asdict(cell),
            "macs_removed": 1 - self._coupling.total_macs(gone) / self._coupling.total_macs(),
            "pruned": float(self._hits(self._outputs(bare)).mean()),
            **self._judged(self._outputs(recovered)),
            "evaluations": scores.evaluations,
            "score_s": scores.duration_s,
            "recovery_cpu_s": recovery_s,
            "choice": scores.choice,
        }

    def _evidence(self, seed: int, ratio: float) -> Evidence:
        key = ("evidence", seed, ratio)
        if key not in self._kept:
            self._kept.clear()
            order = np.random.default_rng([seed, 2]).permutation(len(self._train))[:IMAGES]
            images = ImageBatch(images=self._train[torch.from_numpy(order)], labels=None)
            with torch.no_grad():
                parts = [self._captured.graph_module(x) for x in torch.split(images.images, 250)]
            reference = [torch.cat(parts)]
            statistics = channel_statistics(self._captured, self._coupling, images.images)
            plain, rebuilt = (
                MaskedGame(
                    mask_module(self._captured, self._coupling, found), self._coupling.num_players,
                    images, reference,
                )
                for found in (None, statistics)
            )  # fmt: skip
            self._kept[key] = Evidence(
                captured=self._captured,
                coupling=self._coupling,
                images=images,
                game=plain,
                recovery_game=rebuilt,
                ratio=ratio,
            )
        found = self._kept[key]
        assert isinstance(found, Evidence)
        return found

    def _scores(self, cell: Cell, evidence: Evidence) -> Scores:
        key = ("scores", cell.criterion, cell.seed, cell.ratio)
        if key not in self._kept:
            rng = np.random.default_rng([cell.seed, 1])
            self._kept[key] = criterion(cell.criterion).score(evidence, rng=rng, advance=lambda _units: None)
        found = self._kept[key]
        assert isinstance(found, Scores)
        return found

    def _uniform(self, costs: np.ndarray, ratio: float) -> tuple[int, ...]:
        """The least share of every group, cheapest players first, that removes at least the ratio."""
        orders = [
            np.array(g.players)[np.argsort(costs[list(g.players)], kind="stable")]
            for g in self._coupling.groups
        ]
        total = self._coupling.total_macs()
        for share in np.linspace(0.0, 1.0, 401):
            removed = np.concatenate([o[: min(round(share * len(o)), len(o) - 1)] for o in orders])
            gone = self._coupling.removed_mask(tuple(removed.tolist()))
            if self._coupling.total_macs(gone) <= (1 - ratio) * total:
                return tuple(np.sort(removed).tolist())
        raise ValueError(f"no share of every group removes {ratio:.0%} of the MACs")

    def _judged(self, outputs: torch.Tensor) -> dict[str, object]:
        """Accuracy, the images told rightly (for paired errors), and the divergence from the original."""
        hits = self._hits(outputs)
        own, original = outputs.log_softmax(1), self._originally().log_softmax(1)
        return {
            "recovered": float(hits.mean()),
            "divergence": float((original.exp() * (original - own)).sum(1).mean()),
            "hits": base64.b64encode(np.packbits(hits)).decode(),
        }

    def _hits(self, outputs: torch.Tensor) -> np.ndarray:
        return (outputs.argmax(1) == self._labels).numpy()

    @torch.no_grad()
    def _outputs(self, network: torch.nn.Module) -> torch.Tensor:
        return torch.cat([network(images) for images in torch.split(self._test, 500)])

    def _originally(self) -> torch.Tensor:
        if self._original is None:
            self._original = self._outputs(self._captured.graph_module)
        return self._original

    def base_accuracy(self) -> float:
        """Of the network before pruning."""
        return float(self._hits(self._originally()).mean())


def read_images(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Preprocessed images (n, 3, 32, 32) and labels (n,)."""
    with np.load(path) as found:
        images, labels = found["images"], found["labels"]
    mean = np.array([0.485, 0.456, 0.406], dtype=np.float32)
    std = np.array([0.229, 0.224, 0.225], dtype=np.float32)
    scaled = (images.astype(np.float32) / 255 - mean) / std
    ready = torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))
    return ready, torch.from_numpy(labels.astype(np.int64))


def cells(seeds: int) -> list[Cell]:
    """In the order of work: the leading criteria with every seed, then the others with the first."""
    names = [*LEADING, *(n for n in criterion_names() if n not in LEADING)]
    found = []
    for seed in range(seeds):
        for ratio in RATIOS:
            for name in LEADING if seed else names:
                found += [Cell(criterion=name, ratio=ratio, mode=m, seed=seed) for m in MODES]
    return sorted(found, key=lambda c: (c.criterion not in LEADING, c.seed, c.ratio))


def main() -> None:
    """Measure what is not there yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="keeps one JSON a network (default: a scratch folder)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="CRITERION", help="others are not run now")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    deadline = time.monotonic() + 60 * options.limit_minutes
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.results or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench()
        for cell in cells(options.seeds):
            path = folder / cell.file_name
            left_out = (options.only and cell.criterion not in options.only) or cell.mode not in options.modes
            if path.exists() or left_out or time.monotonic() > deadline:
                continue
            found = bench.measure(cell)
            path.write_text(json.dumps(found, indent=1))
            print(f"{path.stem}: {found['pruned']:.4f} {found['recovered']:.4f}", flush=True)
        base = folder / "base.json"
        if not base.exists():
            base.write_text(json.dumps({"accuracy": bench.base_accuracy()}))
        rows = [json.loads(p.read_text()) for p in sorted(folder.glob("*-*.json"))]
        text = header(
            "Criteria side by side on ResNet-20, without training",
            "python tests/benchmarks/bench_network.py --results FOLDER",
            ", ".join(str(s) for s in range(options.seeds)),
            options.threads,
        )
        planned = cells(options.seeds)
        absent = Counter(f"{c.criterion} {c.mode}" for c in planned if not (folder / c.file_name).exists())
        text += render(rows, json.loads(base.read_text())["accuracy"], IMAGES, dict(absent))
    write_result("shapley-network.md", text)


if __name__ == "__main__":
    main()
