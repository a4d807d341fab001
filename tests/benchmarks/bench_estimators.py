"""How well estimators of Shapley values do for the passes they take, on games of single layers.

Run as ``python tests/benchmarks/bench_estimators.py --results FOLDER``; writes
``docs/benchmarks/shapley-estimators.md`` from all that lies in FOLDER. Coalition values and single results
are kept there, so that it goes on where it stopped. ``--only-report`` runs nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import commits, folder_or_scratch, keep, research_data, write_result
from estimator_games import WithGradients, journaled_means, lenet_means
from estimator_methods import Found, Method, methods
from estimator_report import OURS, PLAIN, Result, Truth, render

from edgeprune.errors import EdgepruneError
from edgeprune.shapley import (
    CoalitionTable,
    CountedGame,
    DifferentiableGame,
    JournaledGame,
    permutation,
)

MOST_FOR_TABLE = 16
MOST_PASSES_OF_GRADIENTS = 400
TRUTH_SEEDS = (1000, 1001)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One game: how many images, and orders of each half of the truth (none: a table of all coalitions)."""

    name: str
    players: int
    images: int
    orders: int = 0
    seed: int = 0
    methods: tuple[str, ...] = ()
    """All where none is named."""

    @property
    def block(self) -> str:
        """The residual block whose filters are the players."""
        return self.name.partition("@")[0]


FOR_A_FIFTIETH = (OURS, PLAIN, "permutation, antithetic")


SETTINGS = (
    *(Setting(name=f"lenet1-{seed}", players=12, images=1000, seed=seed) for seed in range(3)),
    Setting(name="layer3.2", players=64, images=256, orders=500),
    Setting(name="layer2.2", players=32, images=64, orders=250),
    Setting(name="layer1.2", players=16, images=32),
    Setting(name="layer1.1", players=16, images=8),
    Setting(name="layer1.0", players=16, images=8),
    # Gradients take another coalition for each image, so that their error falls with the images, too.
    Setting(name="layer2.2@256", players=32, images=256, orders=250, methods=FOR_A_FIFTIETH),
    Setting(name="layer1.2@256", players=16, images=256, orders=250, methods=FOR_A_FIFTIETH),
    Setting(name="layer2.2@1000", players=32, images=1000, orders=250, methods=FOR_A_FIFTIETH),
)


def main() -> None:
    """Measure what is asked for and not there yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="keeps values and results (default: a scratch folder)")
    parser.add_argument("--games", nargs="+", choices=[s.name for s in SETTINGS], help="default: all")
    parser.add_argument("--methods", nargs="+", choices=list(methods()), help="default: all")
    parser.add_argument("--players-limit", type=int, default=64, help="games of at most so many players")
    parser.add_argument("--seeds", type=int, help="default: 5 on LeNet-1, whose games are small, else 2")
    parser.add_argument("--lenet-scratch", type=Path, help="keeps trained LeNets (default: in --results)")
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-report", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = research_data()
    deadline = time.monotonic() + 60 * options.limit_minutes
    with folder_or_scratch(options.results) as options.results:
        for setting in SETTINGS:
            wanted = not options.games or setting.name in options.games
            if wanted and setting.players <= options.players_limit and not options.only_report:
                measure(setting, data, options, deadline)
        found = [load(options.results, setting) for setting in SETTINGS]
        missing = [s.name for s, f in zip(SETTINGS, found, strict=True) if f is None]
        page = render([f for f in found if f is not None], options.threads, missing, commits(options.results))
    write_result("shapley-estimators.md", page)


def measure(setting: Setting, data: Path, options: argparse.Namespace, deadline: float) -> None:
    """Truth and results of one game."""
    results: Path = options.results
    differentiable: DifferentiableGame | None = None
    small = setting.name.startswith("lenet1")
    seeds = options.seeds or (5 if small else 2)
    if small:
        scratch = options.lenet_scratch or results
        kept = lenet_means(data, scratch, setting.seed, setting.images, results)
    else:
        kept, by_images = journaled_means(data, setting.block, setting.images, results)
        differentiable = WithGradients(kept, by_images)
    with kept:
        truth = truth_of(setting, kept, results)
        for passes in budgets(setting.players):
            for name, method in methods().items():
                if name not in (options.methods or setting.methods or (name,)):
                    continue
                for seed in range(seeds):
                    if time.monotonic() > deadline:
                        return
                    run(setting, kept, differentiable, results, truth, (name, method), passes, seed)


def budgets(n: int) -> list[int]:
    """Forward passes to compare at."""
    several = [3 * n // 4, 2 * n, 5 * n, 12 * n]
    return [*several, 25 * n, 50 * n] if n <= MOST_FOR_TABLE else [*several, 40 * n]


def cuts(n: int) -> list[int]:
    """How many players to remove: 25, 50 and 75%."""
    return [n // 4, n // 2, 3 * n // 4]


def truth_of(setting: Setting, kept: JournaledGame, results: Path) -> Truth:
    """Exact values where there is a table; else means of antithetic orders, with those of both halves."""
    path = results / f"{setting.name}-{setting.images}.truth.json"
    if path.exists():
        return Truth(**json.loads(path.read_text()))
    n = setting.players
    facts: dict[str, Any] = {"name": setting.name, "players": n, "images": setting.images}
    ends = kept.values(np.repeat([[False], [True]], n, axis=1))[:, 0].tolist()
    facts.update(empty=ends[0], grand=ends[1])
    if not setting.orders:
        table = CoalitionTable.of(kept)
        oracles = table.oracle_sets()
        facts["values"] = table.shapley()[:, 0].tolist()
        facts["oracle_rank"] = table.oracle_rank().tolist()
        facts["oracle_losses"] = {
            str(k): -value_without(kept, sorted({*range(n)} - {*oracles[n - k].tolist()})) for k in cuts(n)
        }
    else:
        halves = [
            permutation(
                kept, max_evaluations=2 + setting.orders * (n - 1), rng=np.random.default_rng(seed)
            ).values.tolist()
            for seed in TRUTH_SEEDS
        ]
        facts.update(values=np.mean(halves, axis=0).tolist(), halves=halves, orders=2 * setting.orders)
    order = np.argsort(facts["values"], kind="stable")
    facts["losses"] = {str(k): -value_without(kept, order[:k].tolist()) for k in cuts(n)}
    keep(path, facts)
    return Truth(**facts)


def run(
    setting: Setting,
    kept: JournaledGame,
    differentiable: DifferentiableGame | None,
    results: Path,
    truth: Truth,
    method: tuple[str, Method],
    passes: int,
    seed: int,
) -> None:
    """One estimate, unless it is there."""
    name, estimate = method
    words = "".join(c if c.isalnum() else "-" for c in name)
    path = results / "runs" / f"{setting.name}-{setting.images}.{words}.{passes}.{seed}.json"
    gradients = name.startswith("gradients")
    if path.exists() or (gradients and (differentiable is None or passes > MOST_PASSES_OF_GRADIENTS)):
        return
    facts: dict[str, Any] = {"game": setting.name, "method": name, "asked": passes, "seed": seed}
    sizes = cuts(setting.players)
    try:
        counted = CountedGame(kept)
        found = estimate(counted, differentiable, passes, np.random.default_rng(seed), sizes)
        facts.update(passes=found.passes, **judged(found, kept, truth, sizes))
    except (EdgepruneError, ValueError, np.linalg.LinAlgError) as error:
        facts["error"] = str(error)
    path.parent.mkdir(parents=True, exist_ok=True)
    keep(path, facts)
    print(setting.name, name, passes, seed, facts.get("error", facts.get("overlap")), flush=True)


def judged(found: Found, kept: JournaledGame, truth: Truth, sizes: list[int]) -> dict[str, Any]:
    """Values, sets and losses of one estimate."""
    removed = found.removed
    facts: dict[str, Any] = {}
    if found.values is not None:
        facts["values"] = found.values.tolist()
        order = np.argsort(found.values, kind="stable")
        removed = {k: order[:k].tolist() for k in sizes}
    assert removed is not None
    true_order = np.argsort(truth.values, kind="stable")
    facts["overlap"] = float(np.mean([len({*removed[k]} & {*true_order[:k].tolist()}) / k for k in sizes]))
    facts["losses"] = {str(k): -value_without(kept, removed[k]) for k in sizes}
    return facts


def value_without(kept: JournaledGame, removed: list[int]) -> float:
    """v of everyone but ``removed``."""
    coalition = np.ones((1, kept.num_players), dtype=bool)
    coalition[0, removed] = False
    return float(kept.values(coalition)[0, 0])


def load(results: Path, setting: Setting) -> tuple[Truth, list[Result]] | None:
    """What is kept of one game."""
    path = results / f"{setting.name}-{setting.images}.truth.json"
    if not path.exists():
        return None
    files = sorted((results / "runs").glob(f"{setting.name}-{setting.images}.*.json"))
    runs = [json.loads(file.read_text()) for file in files]
    return Truth(**json.loads(path.read_text())), [Result(**r) for r in runs if "error" not in r]


if __name__ == "__main__":
    main()
