"""Times of units and of what surrounds them, measured; and what follows for many workers, simulated."""

from __future__ import annotations

import heapq
import itertools
import json
import pickle
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Jobs
from torch import nn

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.capture.capture import capture
from edgeprune.commands.run.scoring import context_of_network, original_outputs
from edgeprune.coupling.coupling import couple
from edgeprune.executors.local import LocalExecutor
from edgeprune.executors.resources import Room
from edgeprune.executors.units import Outcome, Session, Unit, Watcher
from edgeprune.games.masked_game import MaskedGame
from edgeprune.games.spread_game import SpreadGame
from edgeprune.importance.ranking import RankingOptions, cost_passes, rank, total_passes

Row = dict[str, Any]

WORKERS = (1, 2, 10, 100, 1000)
GRID = (30, 10, 10)
"""Models, targets and budgets of the simulated sweep."""
_AHEAD = 4
_RATIO = 0.5


def jobs(_folder: Path, *, tiny: bool) -> Jobs:
    """The measurement; what is simulated is computed when the page is written."""
    return {"times of units": lambda _work: _measured(tiny)}


def _network(width: int) -> nn.Module:
    torch.manual_seed(0)
    widths, parts = (3, width, 2 * width, 4 * width), []
    for inputs, outputs in itertools.pairwise(widths):
        for first in (inputs, outputs):
            parts += [nn.Conv2d(first, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)).eval()


class _Timed(Watcher):
    """A session that keeps the time of every unit, and of all that waiting for units takes together."""

    def __init__(self, session: Session) -> None:
        self._session, self.most_units = session, session.most_units
        self.seconds: list[float] = []
        self.waited_s = 0.0

    def run(self, units: Sequence[Unit], _watcher: Watcher | None = None) -> tuple[Outcome, ...]:
        began = time.perf_counter()
        found = self._session.run(units, self)
        self.waited_s += time.perf_counter() - began
        return found

    def ended(self, outcome: Outcome) -> None:
        self.seconds.append(outcome.duration_s)


def _measured(tiny: bool) -> Row:
    """A chain of six convolutions on random images, one thread: in this process, and by one worker."""
    torch.set_num_threads(1)
    width, size, count = (8, 16, 32) if tiny else (48, 64, 256)
    images = ImageBatch(images=torch.randn(count, 3, size, size), labels=None)
    captured = capture(_network(width), ((3, size, size),))
    coupling = couple(captured)
    began = time.perf_counter()
    reference = original_outputs(captured, images)
    context = context_of_network(captured, coupling, images, reference, ratio=_RATIO)
    statistics_s = time.perf_counter() - began
    game = context.recovery_game
    few, many = (RankingOptions(samples=n * 2 * count, cost_samples=n * count, batch=16) for n in (1, 2))

    def timed(of: Any, options: RankingOptions) -> tuple[float, Any]:
        start = time.perf_counter()
        ranking = rank(of, coupling.groups, rng=np.random.default_rng(0), options=options)
        return time.perf_counter() - start, ranking

    timed(game, few)  # the first one also allocates
    alone_s, alone = timed(game, many)
    start = time.perf_counter()
    with LocalExecutor(Room(most_units=1, cores=1, memory_bytes=None)).session(_Shared(game)) as session:
        watched = _Timed(session)
        one = SpreadGame(game, watched, 1)
        one.all_marginals([(np.ones((16, game.num_players)), np.arange(16))])
        started_s = time.perf_counter() - start
        here: list[float] = []  # of the starting process, besides waiting for units
        for options in (few, many):
            watched.seconds, watched.waited_s = [], 0.0
            spread_s, found = timed(one, options)
            here.append(spread_s - watched.waited_s)
    batches, costs = total_passes(game, many), cost_passes(many)
    each_s = max(0.0, (here[1] - here[0]) / (batches - total_passes(game, few)))
    return {
        "players": game.num_players,
        "images": count,
        "shared_bytes": len(pickle.dumps(game)),
        "same": bool(
            (alone.values == found.values).all() and (alone.removal_costs == found.removal_costs).all()
        ),
        "statistics_s": statistics_s,
        "alone_s": alone_s,
        "spread_s": spread_s,
        "start_s": started_s,
        "gradients_s": watched.seconds[: batches - costs],
        "moments_s": watched.seconds[batches - costs :],
        "rest_s": max(0.0, here[1] - each_s * batches),
        "between_s": each_s + max(0.0, watched.waited_s - sum(watched.seconds)) / batches,
    }


@dataclass(frozen=True)
class _Shared:
    """What the worker has, as of :mod:`edgeprune.games.spread_game`."""

    game: MaskedGame

    def ready(self) -> MaskedGame:
        torch.set_num_threads(1)
        return self.game


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Seconds of a simulated run, and how many times faster than one worker."""

    workers: int
    seconds: float
    faster: float


def simulated_ranking(row: Row, batches: int) -> list[Simulated]:
    """Rankings of so many batches: windows of four a worker, one process that hands out and takes."""

    def seconds(workers: int) -> float:
        rng = np.random.default_rng(0)
        times = rng.choice(row["gradients_s"] + row["moments_s"], batches)
        # Each worker starts by itself; what is shared goes to one after the other.
        sent_s = row["shared_bytes"] / 1e9
        ready = [row["start_s"] + number * sent_s for number in range(workers)]
        heapq.heapify(ready)
        clock, window = 0.0, _AHEAD * workers
        for start in range(0, batches, window):
            ends = []
            for took in times[start : start + window]:
                clock += row["between_s"] / 2
                begin = max(heapq.heappop(ready), clock)
                ends.append(begin + took)
                heapq.heappush(ready, ends[-1])
            for end in sorted(ends):
                clock = max(clock, end) + row["between_s"] / 2
        return clock + row["statistics_s"] + row["rest_s"]

    return _series(seconds)


def simulated_sweep(cell_s: float, ranking_s: float) -> list[Simulated]:
    """A sweep of ``GRID``: a ranking for each model and budget; cells wait for it, and workers with them."""
    models, targets, budgets = GRID
    in_turn = [(m, b) for _ in range(targets) for b in range(budgets) for m in range(models)]

    def seconds(workers: int) -> float:
        free = [0.0] * workers
        known: dict[tuple[int, int], float] = {}
        for place in in_turn:
            begin = heapq.heappop(free)
            if place not in known:
                known[place] = begin + ranking_s
            heapq.heappush(free, max(begin, known[place]) + cell_s)
        return max(free)

    return _series(seconds)


def _series(seconds: Any) -> list[Simulated]:
    one = seconds(1)
    return [Simulated(workers=n, seconds=(s := seconds(n)), faster=one / s) for n in WORKERS]


def render(row: Row, sweep: Row | None) -> str:
    """What was measured, and both simulations."""
    gradients, moments = (statistics.median(row[what]) for what in ("gradients_s", "moments_s"))
    text = (
        "\n## Times of units\n\nA chain of six convolutions on random images, one thread a process.\n\n"
        "| what | measured |\n|---|---|\n"
        f"| players, images | {row['players']}, {row['images']} |\n"
        "| one batch of gradients, of second moments (medians) "
        f"| {gradients * 1e3:.1f} ms, {moments * 1e3:.1f} ms |\n"
        f"| start of a worker with its first unit | {row['start_s']:.1f} s |\n"
        f"| what is sent to each worker once | {row['shared_bytes'] / 1e6:.1f} MB |\n"
        f"| between batches, in the starting process | {row['between_s'] * 1e3:.2f} ms |\n"
        "| statistics before, eliminations and exact groups "
        f"| {row['statistics_s']:.1f} s, {row['rest_s']:.1f} s |\n"
        f"| ranking in one process, by one worker | {row['alone_s']:.1f} s, {row['spread_s']:.1f} s |\n\n"
        f"Both rankings are {'the same' if row['same'] else 'NOT THE SAME'} in every bit.\n\n"
        "## Many workers (a simulation)\n\n**Simulated, not measured**, from the times above: a queue of\n"
        "units, a starting process that hands out and takes one at a time, 1 GB/s to send what is shared.\n"
        "Nothing is assumed to be lost, and nodes to be equal.\n"
    )
    for batches in (512, 8192):
        text += _table(f"One ranking of {batches:,} batches", simulated_ranking(row, batches))
    text += (
        "\nIt stops scaling where a window of batches takes less than what the starting process does for\n"
        "it, and where all of them take less than the start of the workers. What is not spread bounds the\n"
        "rest.\n"
    )
    if sweep is not None:
        cells, shared = list(sweep["cells"].values()), {s["stage"]: s for s in sweep["shared"]}
        computed = shared["ranking"]
        ranking_s = computed["computed_s"] / max(1, computed["computed"])
        cell_s = max(0.0, (sum(cells) - computed["computed_s"]) / len(cells))
        told = " x ".join(map(str, GRID))
        text += _table(
            f"A sweep of {told} (cells of {cell_s:.1f} s besides rankings of {ranking_s:.1f} s)",
            simulated_sweep(cell_s, ranking_s),
        )
        text += (
            f"\nBeyond {GRID[0] * GRID[2]} workers, one for each model and budget, others wait for rankings, "
            "and no\ncell can be sooner than its ranking and itself.\n"
        )
    return text


def _table(title: str, found: list[Simulated]) -> str:
    text = f"\n{title}:\n\n| workers | time | times faster than one | of linear |\n|---|---|---|---|\n"
    for each in found:
        text += f"| {each.workers:,} | {each.seconds:,.1f} s | {each.faster:.1f} "
        text += f"| {each.faster / each.workers:.0%} |\n"
    return text


def shown(rows: list[Row]) -> str:
    """The measured row and the first sweep of a page's rows."""
    row = next((each for each in rows if "between_s" in each), None)
    sweep = next((each for each in rows if each.get("at_once") == 1), None)
    return "" if row is None else render(json.loads(json.dumps(row)), sweep)
