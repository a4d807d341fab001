"""The thesis' table: LeNet-1 on MNIST, the second convolution's 12 filters removed one by one, no training.

Run as ``GOMP_SPINCOUNT=1000 python tests/benchmarks/bench_lenet.py --scratch FOLDER`` (trained networks are
kept there); writes ``docs/benchmarks/shapley-lenet.md``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import folder_or_scratch, header, research_data, write_result
from lenet import (
    FILTERS,
    STEPS,
    Curve,
    Images,
    JudgeTable,
    LeNet1,
    Split,
    codes_of_order,
    codes_of_sets,
    load_mnist,
    mean_curve,
    split_test_set,
    trained,
)

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.fx import tensor_leaves
from edgeprune.games.layer_game import LayerGame
from edgeprune.games.masked_game import MaskedGame
from edgeprune.pruning.masking import mask_module
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.shapley.estimators.refine import beam_removal
from edgeprune.shapley.estimators.thesis import thesis_hybrid
from edgeprune.shapley.game import CoalitionGame, CountedGame, all_coalitions
from edgeprune.shapley.subgame import SubGame

RANDOM_ORDERS = 200
REPEATS = 5
BEAM = 8
COALITIONS_AT_ONCE = 512
GOAL = (0.860, 0.450)
PROTOTYPE = {
    "random": ".759 / .709",
    "L1": ".770",
    "MC-100": ".831 / .522",
    "thesis hybrid": ".832 / .516",
    "greedy leave-one-out": ".842 / .488",
    "oracle, best sets": ".864 / .444",
}
OURS, OURS_CHAIN = "ours, best sets", "ours, best order"
OURS_BOTH = "ours, best order by both"
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Weights of accuracy beside minus the loss, among which the validation images choose for all networks."""


@dataclass(frozen=True)
class Outcome:
    """Everything measured on one network."""

    accuracy: float
    curves: dict[str, Curve]
    validation: np.ndarray
    by_weight: tuple[Curve, ...]
    seconds: dict[str, tuple[float, float]]
    whole_network_s: float


def main() -> None:
    """Train or load every network, run every row on it, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, help="keeps trained networks (default: a scratch folder)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    data = research_data()
    train_set, test_set = load_mnist(data, "train"), load_mnist(data, "test")
    outcomes = []
    with folder_or_scratch(options.scratch) as folder:
        for seed in range(options.seeds):
            network = trained(folder, train_set, seed, options.epochs)
            outcomes.append(measure(network, split_test_set(test_set, seed), seed, options.threads))
            ours = outcomes[-1].curves[OURS]
            print(f"seed {seed}: ours {ours.accuracy.mean():.3f} / {ours.loss.mean():.3f}", flush=True)
    weight = take_chosen_orders(outcomes)
    write_result("shapley-lenet.md", render(outcomes, weight, options.epochs, options.threads))


def measure(network: LeNet1, split: Split, seed: int, threads: int) -> Outcome:
    """All rows of the table on one network; ``threads`` serve what is timed."""
    torch.set_num_threads(threads)
    seconds: dict[str, tuple[float, float]] = {}
    with timed(seconds, "capture and coupling"):
        captured = capture(network, (1, 28, 28))
        coupling = couple(captured)
    with timed(seconds, "game and table"):
        game = game_of(captured, coupling, split.shapley)
        table = CoalitionTable.of(game, coalitions_at_once=COALITIONS_AT_ONCE)
    with timed(seconds, "sets and orders"):
        means = CoalitionTable(values=table.means()[:, None])
        sets, order = means.oracle_sets(), means.best_trajectory().removed
    whole_network_s = whole_network_seconds(captured, coupling, split.shapley, table)
    torch.set_num_threads(1)
    judge = JudgeTable(game_of(captured, coupling, split.test), split.test.labels)
    validation, by_weight = weighted_orders(game, captured, coupling, split, judge)
    curves = {
        "random": random_orders(judge, seed),
        "L1": judge.curve(codes_of_order(by_l1(network))),
        **published_rows(judge, means, seed),
        OURS_CHAIN: judge.curve(codes_of_order(order), 2**FILTERS),
        OURS: judge.curve(codes_of_sets(sets), 2**FILTERS),
        **oracles(judge),
    }
    return Outcome(
        accuracy=float(judge.accuracy[-1]),
        curves=curves,
        validation=validation,
        by_weight=by_weight,
        seconds=seconds,
        whole_network_s=whole_network_s,
    )


class timed:  # noqa: N801
    """Wall and CPU seconds of a block, put under ``name``."""

    def __init__(self, into: dict[str, tuple[float, float]], name: str) -> None:
        self._into, self._name = into, name

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._start
        self._into[self._name] = (time.perf_counter() - wall, time.process_time() - cpu)


def filters_of(coupling: CouplingGraph) -> tuple[int, ...]:
    """The players that are the second convolution's filters."""
    return next(g.players for g in coupling.groups if g.layers == ("conv2",))


def game_of(captured: CapturedModel, coupling: CouplingGraph, images: Images) -> LayerGame:
    """Minus the cross-entropy on ``images`` with some of the 12 filters present."""
    batch = ImageBatch(images=images.pixels, labels=images.labels)
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(images.pixels))
    return LayerGame(captured, coupling, filters_of(coupling), batch, reference)


def weighted_orders(
    game: LayerGame, captured: CapturedModel, coupling: CouplingGraph, split: Split, judge: JudgeTable
) -> tuple[np.ndarray, tuple[Curve, ...]]:
    """The best order on the Shapley images for every weight: worth on the validation images, and curve."""
    known = JudgeTable(game, split.shapley.labels)
    chooser = JudgeTable(game_of(captured, coupling, split.validation), split.validation.labels)
    worth, curves = [], []
    for weight in WEIGHTS:
        table = CoalitionTable(values=(weight * known.accuracy - known.loss)[:, None])
        codes = codes_of_order(table.best_trajectory().removed)
        worth.append(float((chooser.accuracy - chooser.loss)[codes].mean()))
        curves.append(judge.curve(codes, 2**FILTERS))
    return np.array(worth), tuple(curves)


def take_chosen_orders(outcomes: list[Outcome]) -> float:
    """Put the orders of the weight that does best on the validation images among the rows."""
    place = int(np.mean([o.validation for o in outcomes], axis=0).argmax())
    for outcome in outcomes:
        rows = list(outcome.curves.items())
        at = [name for name, _ in rows].index(OURS)
        rows.insert(at, (OURS_BOTH, outcome.by_weight[place]))
        outcome.curves.clear()
        outcome.curves.update(rows)
    return WEIGHTS[place]


def random_orders(judge: JudgeTable, seed: int) -> Curve:
    """The mean over drawn orders."""
    rng = np.random.default_rng([seed, 1])
    curves = [judge.curve(codes_of_order(rng.permutation(FILTERS))) for _ in range(RANDOM_ORDERS)]
    return mean_curve(curves)


def by_l1(network: LeNet1) -> np.ndarray:
    """Filters by the sum of their absolute weights, the smallest first."""
    return np.argsort(network.conv2.weight.abs().sum((1, 2, 3)).numpy(), kind="stable")


def published_rows(judge: JudgeTable, means: CoalitionTable, seed: int) -> dict[str, Curve]:
    """Monte Carlo and hybrid of the thesis, greedy leave-one-out, and a beam; values read off the table."""
    bits = 1 << np.arange(FILTERS)

    def asked() -> CountedGame:
        return CountedGame(CoalitionGame(FILTERS, lambda rows: means.values[rows @ bits, 0]))

    def thesis(row: int, **settings: float) -> Curve:
        runs = []
        for repeat in range(REPEATS):
            run = thesis_hybrid(asked(), rng=np.random.default_rng([seed, row, repeat]), **settings)
            codes = codes_of_order(run.removed)
            runs.append(judge.curve(codes, run.evaluations, run.published_evaluations))
        return mean_curve(runs)

    def beam(width: int) -> Curve:
        run = beam_removal(
            asked(), remove=FILTERS - 1, scores=np.zeros(FILTERS), max_evaluations=2**FILTERS, beam=width
        )
        codes = np.array([(1 << np.array(kept)).sum() for kept in run.kept])
        return judge.curve(codes, run.evaluations, run.evaluations)

    return {
        "MC-100": thesis(2, amelioration=1.0, exact_from=0),
        "thesis hybrid": thesis(3),
        "greedy leave-one-out": beam(1),
        f"ours, beam of {BEAM}": beam(BEAM),
    }


def oracles(judge: JudgeTable) -> dict[str, Curve]:
    """What cannot be beaten: chosen on the test images, accuracy and loss each for themselves."""
    result = {}
    by_accuracy, by_loss = (CoalitionTable(values=v[:, None]) for v in (judge.accuracy, -judge.loss))
    readings: dict[str, Callable[[CoalitionTable], np.ndarray]] = {
        "oracle, best order": lambda t: codes_of_order(t.best_trajectory().removed),
        "oracle, best sets": lambda t: codes_of_sets(t.oracle_sets()),
    }
    for name, read in readings.items():
        result[name] = Curve(judge.accuracy[read(by_accuracy)], judge.loss[read(by_loss)])
    return result


def whole_network_seconds(
    captured: CapturedModel, coupling: CouplingGraph, images: Images, table: CoalitionTable
) -> float:
    """CPU seconds that all coalitions would take through the whole masked network, from every 512th.

    Their values must agree with the table.
    """
    batch = ImageBatch(images=images.pixels, labels=images.labels)
    masked = MaskedGame(mask_module(captured, coupling), coupling.num_players, batch, [torch.zeros(1, 10)])
    few = slice(None, None, 512)
    started = time.process_time()
    found = SubGame(masked, np.array(filters_of(coupling))).values(all_coalitions(FILTERS)[few])
    elapsed = time.process_time() - started
    np.testing.assert_allclose(found, table.values[few], atol=1e-3)
    return elapsed * 2**FILTERS / len(found)


def render(outcomes: list[Outcome], weight: float, epochs: int, threads: int) -> str:
    """The result file."""
    base = [o.accuracy for o in outcomes]
    text = header(
        "The thesis' table: LeNet-1's second convolution, filter by filter",
        "GOMP_SPINCOUNT=1000 python tests/benchmarks/bench_lenet.py --scratch FOLDER",
        ", ".join(str(seed) for seed in range(len(outcomes))),
        threads,
    )
    text += (
        f"LeNet-1 (1-4-12 filters of 5x5, tanh, average pooling, linear 192-10), {len(outcomes)} networks\n"
        f"trained on MNIST's 60,000 training images, {epochs} epochs of Adam (1e-3, batches of 64):\n"
        f"{np.mean(base):.2%} on the test images ({min(base):.2%} to {max(base):.2%}). The test set is\n"
        "split anew for every network: 1,000 Shapley images, on which every row chooses, 1,000 validation\n"
        "images, which one row needs, and 8,000 test images, which only judge. v(S) is minus the mean\n"
        "cross-entropy. One of conv2's 12 filters goes at a time, until one is left; nothing is trained in\n"
        "between. AUC is the mean over the 12 points with 0, 1, ..., 11 filters removed (of the readings\n"
        "that the published text leaves open, the one that the prototype's figures fit).\n\n"
    )
    text += auc_table(outcomes)
    text += explanation(weight)
    text += verdict(outcomes) + timing(outcomes, threads)
    for name, part in (("Accuracy", "accuracy"), ("Loss", "loss")):
        text += curve_table(outcomes, name, part)
    return text + by_network(outcomes)


def explanation(weight: float) -> str:
    """What the rows are."""
    weights = ", ".join(f"{w:g}" for w in WEIGHTS)
    return (
        "\nMean over networks, and standard deviation between them. *Evaluations*: distinct coalitions\n"
        "asked of 1,000 images; *as published*: passes of 1,000 images that the procedure takes when\n"
        "nothing is kept. Rows that draw (MC-100, thesis hybrid) are means of "
        f"{REPEATS} runs a network, random of {RANDOM_ORDERS} orders.\n\n"
        "- *MC-100*, *thesis hybrid*: `shapley.thesis`, re-ranked after each removal. *Greedy*: the filter\n"
        "  whose removal costs least, one after the other.\n"
        "- *ours, best sets*: from the table of all 4,096 coalitions on the Shapley images, the set of the\n"
        "  least loss of each size; sets of neighbouring sizes need not be nested. *ours, best order*: one\n"
        "  filter after the other, in the order with the greatest sum of v on the way. Both take v as is.\n"
        f"- *ours, best order by both*: the same with {weight:g} x accuracy added to v; of the weights\n"
        f"  {weights} the one, for all networks together, whose orders have the greatest\n"
        "  accuracy AUC minus loss AUC on the validation images. This row was added after the plain order\n"
        "  was seen to miss the goal for accuracy on the test images; they had no part in the weight.\n"
        f"- *ours, beam of {BEAM}*: the best set of each size that `shapley.refine.beam_removal` meets, for\n"
        "  layers whose table would not fit.\n"
        "- *oracle*: chosen on the test images, in each column for itself; no method can pass the best\n"
        "  sets, and none that removes one filter after the other can pass the best order.\n\n"
    )


def auc(outcome: Outcome, row: str) -> tuple[float, float]:
    """Accuracy and loss AUC."""
    curve = outcome.curves[row]
    return float(curve.accuracy.mean()), float(curve.loss.mean())


def auc_table(outcomes: list[Outcome]) -> str:
    """One row a method."""
    text = (
        "| order or sets | accuracy AUC | loss AUC | evaluations | as published | prototype |\n"
        "|---|---|---|---|---|---|\n"
    )
    for row in outcomes[0].curves:
        found = np.array([auc(o, row) for o in outcomes])
        mean, spread = found.mean(axis=0), found.std(axis=0, ddof=1)
        asked = np.mean([o.curves[row].evaluations for o in outcomes])
        published = np.mean([o.curves[row].published for o in outcomes])
        name = f"**{row}**" if row == OURS else row
        text += (
            f"| {name} | {mean[0]:.3f} ± {spread[0]:.3f} | {mean[1]:.3f} ± {spread[1]:.3f} "
            f"| {asked:,.0f} | {f'{published:,.0f}' if published else '-'} | {PROTOTYPE.get(row, '')} |\n"
        )
    return text


def verdict(outcomes: list[Outcome]) -> str:
    """Goal and result, in words."""
    lines = []
    for row in (OURS, OURS_CHAIN, OURS_BOTH):
        accuracy, loss = np.mean([auc(o, row) for o in outcomes], axis=0)
        hit = ["reached" if ok else "missed" for ok in (accuracy >= GOAL[0], loss <= GOAL[1])]
        lines.append(
            f"{row}: accuracy at least {GOAL[0]:.3f} {hit[0]} ({accuracy:.4f}), loss at most {GOAL[1]:.3f} "
            f"{hit[1]} ({loss:.4f})"
        )
    return "Goal:\n\n- " + "\n- ".join(lines) + "\n\n"


def timing(outcomes: list[Outcome], threads: int) -> str:
    """What ours takes."""
    text = (
        f"Time of ours a network on {threads} threads, the first network (which warms up) left out:\n\n"
        "| step | wall, median | wall, longest | CPU, median |\n|---|---|---|---|\n"
    )
    warm = outcomes[1:] or outcomes
    steps = {name: np.array([o.seconds[name] for o in warm]) for name in outcomes[0].seconds}
    steps["all"] = np.sum(list(steps.values()), axis=0)
    for name, found in steps.items():
        wall, cpu = np.median(found, axis=0)
        text += f"| {name} | {wall:.2f} s | {found[:, 0].max():.2f} s | {cpu:.2f} s |\n"
    whole, load = np.median([o.whole_network_s for o in warm]), os.getloadavg()[2]
    return text + (
        f"\nOther work ran beside it: load average {load:.0f} over 15 minutes. The variable in the\n"
        "command is what `edgeprune` sets, so that waiting threads do not spin. The same 4,096 coalitions\n"
        f"through the whole masked network take {whole:.0f} s of CPU (from 8 of them); the thesis' notebook\n"
        "needs 105 s an iteration on a GPU.\n\n"
    )


def curve_table(outcomes: list[Outcome], name: str, part: str) -> str:
    """Means over networks by the number of removed filters."""
    text = f"{name} by the number of filters removed:\n\n| | " + " | ".join(map(str, range(STEPS))) + " |\n"
    text += "|---" * (STEPS + 1) + "|\n"
    for row in outcomes[0].curves:
        mean = np.mean([getattr(o.curves[row], part) for o in outcomes], axis=0)
        text += f"| {row} | " + " | ".join(f"{m:.3f}" for m in mean) + " |\n"
    return text + "\n"


def by_network(outcomes: list[Outcome]) -> str:
    """AUC of some rows by seed."""
    published, oracle = ("thesis hybrid", "greedy leave-one-out"), ("oracle, best order", "oracle, best sets")
    rows = (*published, OURS_CHAIN, OURS, *oracle)
    text = "AUC by network (accuracy / loss):\n\n| seed | unpruned | " + " | ".join(rows) + " |\n"
    text += "|---" * (len(rows) + 2) + "|\n"
    for seed, outcome in enumerate(outcomes):
        found = [auc(outcome, row) for row in rows]
        text += f"| {seed} | {outcome.accuracy:.2%} | " + " | ".join(f"{a:.3f} / {x:.3f}" for a, x in found)
        text += " |\n"
    return text


if __name__ == "__main__":
    main()
