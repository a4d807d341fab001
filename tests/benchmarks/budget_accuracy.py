"""ResNet-20 at two cuts: our plan and others behind the same recovery, Torch-Pruning's with and without."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import torch
from budget_peers import torch_pruning_plan
from trained_network import TrainedNetwork, split

from edgeprune.commands.run.iterative_pruning import MOST_AT_ONCE
from edgeprune.recovery.distillation.training import DistillationOptions, distill

Row = dict[str, Any]

RATIOS = (0.25, 0.5)
OURS = "edgeprune"
CRITERIA = {OURS: "hybrid", "L1": "l1", "activation x weight norm": "activation-weight"}
PEERS = {
    "Torch-Pruning magnitude, each layer alike": ("magnitude", False),
    "Torch-Pruning magnitude, global": ("magnitude", True),
    "Torch-Pruning Taylor, each layer alike": ("taylor", False),
    "Torch-Pruning Taylor, global": ("taylor", True),
}
STEPS = 1_200
"""Of distillation: about a minute on two cores."""
TRAINED = f"{OURS} + distillation"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One pruned network of the table."""

    method: str
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        """Of its result."""
        return f"accuracy {self.method} {self.ratio:g} {self.seed}"


def cells(seeds: int) -> list[Cell]:
    """In the order of work: ours of all seeds first, then those of a seed together."""
    methods = [*CRITERIA, TRAINED, *PEERS]
    found = [Cell(method=m, ratio=r, seed=s) for s in range(seeds) for r in RATIOS for m in methods]
    return sorted(found, key=lambda c: c.method not in (OURS, TRAINED))


def measure(bench: TrainedNetwork, cell: Cell) -> Row:
    """Plan, prune, recover, train where asked, and judge on the whole test set."""
    images = bench.context(cell.seed, cell.ratio).images.images
    if cell.method in PEERS:
        importance, everywhere = PEERS[cell.method]
        removed = torch_pruning_plan(
            bench.module, bench.coupling, images,
            importance=importance, global_pruning=everywhere, ratio=cell.ratio,
        )  # fmt: skip
    elif cell.ratio > MOST_AT_ONCE and CRITERIA.get(cell.method, CRITERIA[OURS]) == CRITERIA[OURS]:
        removed, _ = bench.plan_in_rounds(cell.ratio, cell.seed)
    else:
        removed = bench.plan(CRITERIA.get(cell.method, CRITERIA[OURS]), cell.ratio, cell.seed)
    trained = cell.method == TRAINED
    held = split(images, cell.seed)
    again = torch.Generator().manual_seed(cell.seed)
    found = bench.recover(removed, held.without_deciding(again) if trained else held, cell.seed)
    row: Row = {
        **asdict(cell),
        "macs_removed": bench.macs_removed(removed),
        "pruned": float(bench.hits(bench.outputs(found.bare)).mean()),
        "recovered": float(bench.hits(bench.outputs(found.recovered)).mean()),
        "recovery_cpu_s": found.recovery_cpu_s,
    }
    if trained:
        options, started = DistillationOptions(steps=STEPS), time.process_time()
        pupil, report = distill(
            bench.captured.graph_module, found.recovered, bench.coupling, removed,
            held,
            generator=torch.Generator().manual_seed(cell.seed), options=options,
        )  # fmt: skip
        row["trained"] = float(bench.hits(bench.outputs(pupil)).mean())
        row["training_s"], row["steps"] = report.duration_s, options.steps
        row["training_cpu_s"] = time.process_time() - started
    return row


def render(rows: list[Row], base: float) -> str:
    """The table, one line a cut and method, best first."""
    text = (
        "1,000 unlabelled training images (another draw a seed), whole test set of 10,000 images; the\n"
        f"original has {base:.2%}. Mean over seeds ± half of their range. *pruned*: nothing else done;\n"
        "*recovered*: after our closed-form recovery, the same for all. Distillation: the same images,\n"
        "without labels; 100 of the 1,000 are kept back to say when to stop, 100 others decide in recovery.\n"
        "Torch-Pruning's own graph breaks the network at its zero-padded shortcuts, so the layers of the\n"
        "residual stream are ignored there; *global* ranks over the network.\n\n"
        "| cut | method | seeds | MACs removed | pruned | recovered | after distillation |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    by_method: dict[tuple[float, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_method[(row["ratio"], row["method"])].append(row)
    for ratio in sorted({r["ratio"] for r in rows}):
        own = [(m, found) for (r, m), found in by_method.items() if r == ratio]
        for method, found in sorted(own, key=lambda item: -_mean(item[1])):
            removed = statistics.mean(r["macs_removed"] for r in found)
            trained = _spread([r["trained"] for r in found]) if "trained" in found[0] else ""
            text += (
                f"| {ratio:.0%} | {method} | {len(found)} | {removed:.1%} "
                f"| {_spread([r['pruned'] for r in found])} | {_spread([r['recovered'] for r in found])} "
                f"| {trained} |\n"
            )
    taught = [r for r in rows if "trained" in r]
    if taught:
        wall, cpu = (statistics.median(r[k] for r in taught) for k in ("training_s", "training_cpu_s"))
        text += (
            f"\nDistillation: {taught[0]['steps']} steps, {wall:.0f} s, {cpu:.0f} s of CPU time (medians).\n"
        )
    return text


def _mean(rows: list[Row]) -> float:
    return statistics.mean(r.get("trained", r["recovered"]) for r in rows)


def _spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.2f} ± {50 * (max(values) - min(values)):.2f}"
