"""How the grid is measured: on this host, or by whatever times a list of ONNX files on a device."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgeprune.profiling.timing import least_cpu_ms, measure
from edgeprune.storage.files import scratch_folder
from edgeprune.system import progress

_KERNEL = "_kernel_time"
_PROFILED_RUNS = 25
_SAMPLES, _ROUNDS = 5, 4
_REPETITIONS = 20


@dataclass(frozen=True, kw_only=True)
class NetworkTime:
    """Milliseconds of one run: CPU time with one thread, wall time with more.

    ``shares`` of the time by the names of nodes of the optimized graph, or by types of operators.
    """

    time_ms: float
    shares: Mapping[str, float]


MeasureFiles = Callable[[Sequence[Path], int], Sequence[NetworkTime | None]]
"""Times of ONNX files with so many threads; ``None`` for one that could not be run there."""


def measure_here(files: Sequence[Path], threads: int) -> Sequence[NetworkTime | None]:
    """On this host, in several rounds: what disturbs a network in one of them is over in another.

    Raises:
        ProfileError: a file cannot be run.
    """
    if threads > 1:
        return [NetworkTime(time_ms=wall, shares={}) for wall in _wall_times(files, threads)]
    least = [math.inf] * len(files)
    shares: list[dict[str, float]] = [{} for _ in files]
    with progress.task(f"measuring {len(files)} small networks", _ROUNDS * len(files)) as advance:
        for turn in range(_ROUNDS):
            for place, path in enumerate(files):
                least[place] = min(least[place], least_cpu_ms(path, threads=1, samples=_SAMPLES, sessions=1))
                if turn == 0:
                    shares[place] = node_shares(path)
                advance(1)
    return [NetworkTime(time_ms=t, shares=s) for t, s in zip(least, shares, strict=True)]


def _wall_times(files: Sequence[Path], threads: int) -> list[float]:
    with progress.task(f"measuring {len(files)} of them with {threads} threads", len(files)) as advance:
        found = []
        for path in files:
            found.append(measure(path, threads=threads, repetitions=_REPETITIONS).latency_p50_ms)
            advance(1)
    return found


def node_shares(path: Path) -> dict[str, float]:
    """Share of every node of the optimized graph in the time, by its name.

    By onnxruntime's profiler, which disturbs the times themselves; the least of some runs.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    with scratch_folder() as scratch:
        options.profile_file_prefix = str(scratch / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        feeds = {x.name: rng.normal(size=x.shape).astype(np.float32) for x in session.get_inputs()}
        for _ in range(_PROFILED_RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    least: dict[str, float] = {}
    for event in events:
        name = str(event["name"])
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            node = name.removesuffix(_KERNEL)
            least[node] = min(least.get(node, math.inf), float(event["dur"]))
    total = sum(least.values())
    return {node: spent / total for node, spent in least.items()} if total else {}
