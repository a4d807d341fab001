"""CPU time of two models in rounds of new sessions, until a limit on their ratio is decided or time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.gate.outcomes import Decision, Interval, RoundsRatio
from edgeprune.gate.sequential import SequentialRatio
from edgeprune.profiling.timing import open_runner, ratios_of_one_session
from edgeprune.system.progress import task

PAIRS = 6
"""Pairs in a round: sessions scatter more than pairs do, so that more rounds tell more than more pairs."""
_SLOW_PAIRS = 2
_SLOW_S = 5.0
"""Of a round, after which the next has fewer pairs."""
_WALL_RUNS = 9
_ROUNDS_SHOWN = 60

Run = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class RoundOptions:
    """How rounds are measured; ``time_limit_s`` ends them, the one that is running is finished."""

    threads: int
    time_limit_s: float
    timeout_s: float | None = None
    seed: int = 0


def measure_ratio(onnx_a: str | Path, onnx_b: str | Path, limit: float, options: RoundOptions) -> RoundsRatio:
    """CPU time of B over A on this host, held against ``limit`` after every round.

    A round is the median of some pairs in sessions of its own. Which model is loaded first and which runs
    first is drawn, so that a file against a copy of itself is above 1 as often as below.

    Raises:
        ProfileError: a file is missing, no ONNX or cannot run, or takes longer than ``timeout_s``.
        UsageError: ``threads`` is below 1.
    """
    rng = np.random.default_rng(options.seed)
    count, pairs = 0, PAIRS

    def one_round() -> float:
        nonlocal count, pairs
        start = time.monotonic()
        ratios = _round((Path(onnx_a), Path(onnx_b)), pairs, options, rng)
        pairs = _SLOW_PAIRS if time.monotonic() - start > _SLOW_S else PAIRS
        count += len(ratios)
        return float(np.median(ratios))

    began = time.monotonic()
    state = until_decided(one_round, limit, options.time_limit_s, Path(onnx_b).name)
    return RoundsRatio(
        ratio=float(np.median(state.ratios)),
        low=state.low,
        high=state.high,
        limit=state.limit,
        rounds=len(state.ratios),
        pairs=count,
        threads=options.threads,
        duration_s=time.monotonic() - began,
        decision=state.decision,
    )


def measure_latency(onnx_path: str | Path, limit_ms: float, options: RoundOptions) -> Interval:
    """Wall-clock milliseconds of one run on this host: median over rounds, ends as in :class:`RoundsRatio`.

    Raises:
        ProfileError: as :func:`measure_ratio`.
    """

    def one_round() -> float:
        run = open_runner(onnx_path, threads=options.threads, batch_size=None, timeout_s=options.timeout_s)
        spent = []
        for _ in range(_WALL_RUNS):
            start = time.perf_counter_ns()
            run()
            spent.append((time.perf_counter_ns() - start) / 1e6)
        return max(1e-6, float(np.median(spent)))

    state = until_decided(one_round, limit_ms, options.time_limit_s, Path(onnx_path).name)
    return Interval(value=float(np.median(state.ratios)), low=state.low, high=state.high)


def until_decided(
    one_round: Callable[[], float], limit: float, time_limit_s: float, name: str
) -> SequentialRatio:
    """Take rounds until the limit is decided or the time is up; at least one."""
    state = SequentialRatio(limit)
    end = time.monotonic() + time_limit_s
    with task(f"measuring {name} in rounds", _ROUNDS_SHOWN) as advance:
        while True:
            decision = state.add(one_round())
            if len(state.ratios) <= _ROUNDS_SHOWN:
                advance(1)
            if decision is not Decision.INCONCLUSIVE or time.monotonic() >= end:
                return state


def _round(
    paths: tuple[Path, Path], pairs: int, options: RoundOptions, rng: np.random.Generator
) -> list[float]:
    """CPU times of the second over the first, in one new session of each."""
    loaded_first, turned = (bool(coin) for coin in rng.integers(2, size=2))

    def open_both() -> list[Run]:
        runs: dict[int, Run] = {}
        for which in (0, 1) if loaded_first else (1, 0):
            runs[which] = open_runner(
                paths[which], threads=options.threads, batch_size=None, timeout_s=options.timeout_s
            )
        return [runs[1], runs[0]] if turned else [runs[0], runs[1]]

    ratios = ratios_of_one_session(open_both, pairs)
    return [1.0 / ratio for ratio in ratios] if turned else ratios
