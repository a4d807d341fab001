"""What removal curves tell of recovered networks: the same removals masked, reconstructed, and recovered.

Run as ``python tests/benchmarks/bench_curves.py --results FOLDER``; writes ``docs/benchmarks/curves-*.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import REPOSITORY, Jobs, Part, research_data, run_parts
from network_report import table_row
from torch.nn import functional

import edgeprune
from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.commands.rank.removal_curves import cost_per_mac, removal_order
from edgeprune.commands.run import stages
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.fx import tensor_leaves
from edgeprune.options.cards import load_card
from edgeprune.options.runs import CompressOptions
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.reporting.ranking.facts import RankingReport

CRITERIA = ("hybrid", "fpgm", "l1", "taylor-squared", "random")
CUTS = {"digits": (0.25, 0.5, 0.6, 0.7, 0.8, 0.9), "resnet20": (0.25, 0.5, 0.7)}
TREATMENTS = ("masked", "reconstructed", "recovered")
IMAGES = 2_000
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A network with its images, as users name them."""

    model: str
    arch: str
    calibration: Path
    preprocessing: Preprocessing | None = None
    held_out: float = 0.25


def digits(_work: Path) -> Example:
    """The bundled example: 300 labelled images to rank and fit with, 100 to judge."""
    folder = REPOSITORY / "examples" / "digits"
    return Example(
        model=str(folder / "digits_net.safetensors"),
        arch=f"{folder / 'model.py'}:digits_net",
        calibration=REPOSITORY / "calibration" / "digits.npz",
    )


def resnet20(work: Path) -> Example:
    """ResNet-20 with 2,000 unlabelled CIFAR-10 training images, half of them to judge."""
    data = research_data()
    path = work / "unlabelled.npz"
    with np.load(data / "cifar10_train_10k.npz") as train:
        np.savez(path, images=train["images"][:IMAGES])
    return Example(
        model=str(data / "resnet20_cifar10.safetensors"),
        arch=f"{Path(__file__).parent / 'resnet20.py'}:resnet20",
        calibration=path,
        preprocessing=load_card("cifar10"),
        held_out=0.5,
    )


def measure(example: Example, cuts: tuple[float, ...], seed: int, threads: int) -> Row:
    """Quality and loss of every criterion's order at the points of its curves next above the cuts."""
    report = edgeprune.rank(
        example.model,
        calibration=example.calibration,
        arch=example.arch,
        preprocessing=example.preprocessing,
        held_out=example.held_out,
        criteria=CRITERIA,
        seed=seed,
        threads=threads,
    )
    options = CompressOptions(
        model=example.model,
        calibration=example.calibration,
        arch=example.arch,
        preprocessing=example.preprocessing,
        held_out=example.held_out,
        seed=seed,
        threads=threads,
    )
    prepared = stages.prepare(Run(options=options))
    points = {name: _points(report, prepared, place, cuts, seed) for place, name in enumerate(CRITERIA)}
    areas = {
        c.criterion: {"reconstructed": [c.quality_auc, c.loss_auc], "masked": [m.quality_auc, m.loss_auc]}
        for c, m in zip(report.removal.reconstructed, report.removal.masked, strict=True)
    }
    return {"quality": report.removal.quality_kind.value, "seed": seed, "points": points, "areas": areas}


def _points(
    report: RankingReport, prepared: Prepared, place: int, cuts: tuple[float, ...], seed: int
) -> dict[str, Row]:
    coupling = prepared.coupling
    costs = np.zeros(coupling.num_players)
    for group, found in zip(coupling.groups, report.criteria[place].groups, strict=True):
        costs[list(group.players)] = found.removal_costs
    order = removal_order(cost_per_mac(costs, coupling, coupling.groups), coupling.groups)
    curve, masked = report.removal.reconstructed[place], report.removal.masked[place]
    rows = {}
    for cut in cuts:
        at = next(i for i, p in enumerate(curve.points) if p.macs_removed_share >= cut)
        removed = tuple(sorted(order[: curve.points[at].removed].tolist()))
        rows[f"{cut:.0%}"] = {
            "share": curve.points[at].macs_removed_share,
            "masked": [masked.points[at].quality, masked.points[at].loss],
            "reconstructed": [curve.points[at].quality, curve.points[at].loss],
            "recovered": _recovered(prepared, removed, seed),
        }
    return rows


def _recovered(prepared: Prepared, removed: tuple[int, ...], seed: int) -> list[float]:
    """Quality and loss on held-out images of the network that ``compress`` would make of these removals."""
    original, coupling = prepared.captured, prepared.coupling
    held = prepared.calibration.held_out
    network, _ = reconstruct(
        original.graph_module,
        prune(original, coupling, removed),
        coupling,
        removed,
        prepared.calibration.fitting.images,
        generator=torch.Generator().manual_seed(seed),
    )
    with torch.no_grad():
        (scores,) = tensor_leaves(network(held.images))
        classes = tensor_leaves(original.graph_module(held.images))[0].argmax(1)
    if held.labels is not None:
        classes = held.labels
    quality = float((scores.argmax(1) == classes).double().mean())
    return [quality, float(functional.cross_entropy(scores, classes))]


def jobs(name: str) -> Any:
    """One job a seed."""
    example = {"digits": digits, "resnet20": resnet20}[name]

    def build(_results: Path, seeds: int, threads: int) -> Jobs:
        return {
            f"{name} {seed}": lambda work, seed=seed: measure(example(work), CUTS[name], seed, threads)
            for seed in range(seeds)
        }

    return build


def render(rows: list[Row]) -> str:
    """Means over seeds: areas, then quality and loss at every cut, and how the treatments order criteria."""
    text = (
        "Filters go in the order of each criterion's removal costs per MAC, as `edgeprune rank` lets them; "
        f"{rows[0]['quality']} and cross-entropy\non images that neither ranking nor recovery saw, means "
        "over seeds. *Masked*: absent channels are zero. *Reconstructed*: their best linear\nestimate from "
        "the present ones. *Recovered*: removed, and every layer solved anew, as `compress` does.\n\n"
        "Areas under the curves of `edgeprune rank` (quality / loss):\n\n"
    )
    text += table_row(["criterion", "reconstructed", "masked"]) + table_row(["---"] * 3)
    for name in CRITERIA:
        cells = [
            " / ".join(f"{x:.3f}" for x in np.mean([r["areas"][name][t] for r in rows], axis=0))
            for t in ("reconstructed", "masked")
        ]
        text += table_row([name, *cells])
    text += "\nAt the curves' first point beyond a cut (quality / loss):\n\n"
    text += table_row(["cut", "criterion", *TREATMENTS]) + table_row(["---"] * 5)
    for cut in rows[0]["points"][CRITERIA[0]]:
        for name in CRITERIA:
            cells = [
                "{:.1%} / {:.3f}".format(*np.mean([r["points"][name][cut][t] for r in rows], axis=0))
                for t in TREATMENTS
            ]
            text += table_row([cut, name, *cells])
    return text + _orders(rows)


def _orders(rows: list[Row]) -> str:
    """Share of pairs of criteria that a treatment orders by loss as recovery does, over cuts and seeds."""
    agreed: dict[str, list[bool]] = {"masked": [], "reconstructed": []}
    better = []
    for row in rows:
        for cut in row["points"][CRITERIA[0]]:
            found = [row["points"][name][cut] for name in CRITERIA]
            better += [f["recovered"][1] < f["reconstructed"][1] for f in found]
            for i, a in enumerate(found):
                for b in found[:i]:
                    for treatment, hits in agreed.items():
                        told = a[treatment][1] < b[treatment][1]
                        hits.append(told == (a["recovered"][1] < b["recovered"][1]))
    return (
        f"\nThe loss after recovery is below that of the reconstruction in {sum(better)} of {len(better)} "
        "networks. Of two criteria at the same cut, the one whose\nnetwork has the lower loss after recovery "
        "has it, too, "
        + ", ".join(f"{treatment} in {sum(h)} of {len(h)} pairs" for treatment, h in reversed(agreed.items()))
        + ".\n"
    )


PARTS = {
    "digits": Part(
        title="Removal curves and recovery: digits", jobs=jobs("digits"), render=render, seeded=True
    ),
    "resnet20": Part(
        title="Removal curves and recovery: ResNet-20 on CIFAR-10", jobs=jobs("resnet20"), render=render,
        seeded=True,
    ),
}  # fmt: skip

if __name__ == "__main__":
    run_parts("curves", __doc__, PARTS, threads=1)
