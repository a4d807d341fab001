"""How the grid is measured: on this host, or by whatever times a list of ONNX files on a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

from edgeprune.devices.script.sampling import (
    FIRST_RUNS,
    MIN_SAMPLE_NS,
    Run,
    node_times_us,
    sample,
    session_options,
    warmed_up,
)
from edgeprune.profiling.timing import measure, open_runner
from edgeprune.storage.files import scratch_folder
from edgeprune.system import progress

_PAIRS, _ROUNDS = 5, 3
_SETTLING_NS = 5_000_000
_REPETITIONS = 20


@dataclass(frozen=True, kw_only=True)
class NetworkTime:
    """Milliseconds of one run: CPU time with one thread, wall time with more.

    ``shares`` of the time by the names of nodes of the optimized graph.
    """

    time_ms: float
    shares: Mapping[str, float]


MeasureFiles = Callable[[Sequence[Path], int], Sequence[NetworkTime | None]]
"""Times of ONNX files with so many threads; ``None`` for one that could not be run there."""


def measure_here(files: Sequence[Path], threads: int) -> Sequence[NetworkTime | None]:
    """On this host, each file in turns with one of them: a processor whose speed changes changes both.

    Raises:
        ProfileError: a file cannot be run.
    """
    if threads > 1:
        return [NetworkTime(time_ms=wall, shares={}) for wall in _wall_times(files, threads)]
    if not files:
        return []
    yardstick = open_runner(_yardstick(files), threads=1)
    warmed_up(yardstick, 0.0)
    ratios, yards_ms, shares = [], [], []
    with progress.task(f"measuring {len(files)} small networks", _ROUNDS * len(files)) as advance:
        for path in files:
            rounds = []
            for _ in range(_ROUNDS):
                rounds.append((*ratio_to(yardstick, path), node_shares(path)))
                advance(1)
            ratios.append(median(ratio for ratio, _, _ in rounds))
            yards_ms += [yard_ms for _, yard_ms, _ in rounds]
            shares.append(_middle([own for _, _, own in rounds]))
    yard_ms = median(yards_ms)
    return [NetworkTime(time_ms=r * yard_ms, shares=s) for r, s in zip(ratios, shares, strict=True)]


def _yardstick(files: Sequence[Path]) -> Path:
    """The quickest of the files that take long enough for a sample."""
    spent = []
    for path in files:
        run = open_runner(path, threads=1)
        spent.append((min(sample(run, 1)[0] for _ in range(FIRST_RUNS)), path))
    long = [each for each in spent if each[0] >= MIN_SAMPLE_NS]
    return min(long)[1] if long else max(spent)[1]


def ratio_to(yardstick: Run, path: Path) -> tuple[float, float]:
    """CPU time of a file over that of the yardstick, and the yardstick's own milliseconds.

    In turns, each behind runs of its own that are not timed: one model drives the other out of the caches.

    Raises:
        ProfileError: the file cannot be run.
    """
    run = open_runner(path, threads=1)
    inner, _ = warmed_up(run, 0.0)
    yards, ratios = [_settled(yardstick, 1)], []
    for _ in range(_PAIRS):
        spent = _settled(run, inner)
        yards.append(_settled(yardstick, 1))
        ratios.append(2.0 * spent / (yards[-2] + yards[-1]))
    return median(ratios), median(yards) / 1e6


def _settled(run: Run, inner: int) -> float:
    """CPU nanoseconds of a run once it has run for some milliseconds."""
    ends_at = time.monotonic_ns() + _SETTLING_NS
    run()
    while time.monotonic_ns() < ends_at:
        run()
    return sample(run, inner)[0]


def _wall_times(files: Sequence[Path], threads: int) -> list[float]:
    with progress.task(f"measuring {len(files)} of them with {threads} threads", len(files)) as advance:
        found = []
        for path in files:
            found.append(measure(path, threads=threads, repetitions=_REPETITIONS).latency_p50_ms)
            advance(1)
    return found


def node_shares(path: Path) -> dict[str, float]:
    """Share of every node of the optimized graph in the time, by its name."""
    options = session_options(1)
    options.enable_profiling = True
    with scratch_folder() as scratch:
        options.profile_file_prefix = str(scratch / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        feeds = {x.name: rng.normal(size=x.shape).astype(np.float32) for x in session.get_inputs()}
        spent_us, _ = node_times_us(lambda: session.run(None, feeds), session.end_profiling)
    return _of_one(spent_us)


def _middle(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return _of_one({node: median(each[node] for each in rounds) for node in rounds[0]})


def _of_one(spent: Mapping[str, float]) -> dict[str, float]:
    total = sum(spent.values())
    return {node: each / total for node, each in spent.items()}
