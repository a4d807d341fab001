"""The protocol of timing ONNX models: warm-up, samples, and pairs in turns. Python 3.9 on.

Needs numpy and onnxruntime alone: ``measure.py`` uses it on devices, ``edgeprune.profiling`` on this machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 5
"""Times that both models of a pair are loaded anew: a session can stay at twice the CPU time of another."""
MIN_SAMPLE_NS = 2_000_000
"""CPU clocks may tick as coarsely as 1 ms or be read late; a sample must dwarf that."""
FIRST_RUNS = 3
UNTIMED_RUNS, PROFILED_RUNS = 3, 9
_KERNEL = "_kernel_time"
_HALF_US = 0.5
_MAX_INNER = 1000
_BLOCK = 5
_STABLE = 0.02
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
Run = Callable[[], Any]


class InputError(ValueError):
    """No inputs can be made for a model; says why."""


def session_options(threads: int) -> Any:
    """Idle threads do not spin: that would burn the CPU time that is measured."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def random_inputs(session: Any, batch_size: int | None, seed: int) -> dict[str, Any]:
    """Inputs of a session by name; a batch that is not fixed is ``batch_size``, or 1.

    Raises:
        InputError: a size beyond the batch is open, or the batch or a type is another.
    """
    import numpy as np

    rng, feeds = np.random.default_rng(seed), {}
    for given in session.get_inputs():
        if given.type not in DTYPES:
            accepted = ", ".join(sorted(DTYPES))
            raise InputError(f"input {given.name!r} is of type {given.type}; accepted are {accepted}")
        sizes = [size if isinstance(size, int) and size > 0 else None for size in given.shape]
        if None in sizes[1:]:
            place = sizes.index(None, 1)
            reason = f"dimension {place} of input {given.name!r} is dynamic ({given.shape[place]}); only the"
            raise InputError(f"{reason} batch may be: export it with a fixed size")
        if sizes and None not in (sizes[0], batch_size) and sizes[0] != batch_size:
            reason = f"input {given.name!r} has a fixed batch of {sizes[0]}, not {batch_size}"
            raise InputError(
                f"{reason}; ask for --batch-size {sizes[0]}, or export the model with a dynamic batch"
            )
        shape = [batch_size or 1 if size is None else size for size in sizes]
        dtype = np.dtype(DTYPES[given.type])
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, size=shape)
        feeds[given.name] = values.astype(dtype)
    return feeds


def warmed_up(run: Run, limit_s: float) -> tuple[int, int]:
    """Run until the times no longer fall, for ``limit_s`` at most: runs of a sample, runs in all."""
    ends_at, count = time.monotonic() + limit_s, FIRST_RUNS
    fastest = min(sample(run, 1)[0] for _ in range(count))
    inner = int(min(_MAX_INNER, max(1, -(-MIN_SAMPLE_NS // max(1, int(fastest))))))
    before = 0.0
    while time.monotonic() < ends_at:
        middle = sorted(sample(run, inner)[0] for _ in range(_BLOCK))[_BLOCK // 2]
        count += _BLOCK * inner
        if before and middle > (1.0 - _STABLE) * before:
            break
        before = middle
    return inner, count


def sample(run: Run, inner: int) -> tuple[float, float]:
    """CPU and wall-clock nanoseconds of a run, the mean of ``inner``, at least 1 ns each."""
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    for _ in range(inner):
        run()
    return (
        max(1.0, (time.process_time_ns() - cpu) / inner),
        max(1.0, (time.perf_counter_ns() - wall) / inner),
    )


def timed_alone(
    run: Run, inner: int, samples: int, advance: Callable[[int], Any] | None = None
) -> tuple[list[int], list[float]]:
    """Wall-clock nanoseconds of every run, and CPU nanoseconds of a run for every sample of ``inner``."""
    wall_ns: list[int] = []
    cpu_ns: list[float] = []
    for _ in range(samples):
        cpu_start = time.process_time_ns()
        for _ in range(inner):
            start = time.perf_counter_ns()
            run()
            wall_ns.append(time.perf_counter_ns() - start)
        cpu_ns.append((time.process_time_ns() - cpu_start) / inner)
        if advance is not None:
            advance(1)
    return wall_ns, cpu_ns


def node_times_us(profiled: Run, end_profiling: Callable[[], str]) -> tuple[dict[str, float], dict[str, str]]:
    """Microseconds and operator of every node of the optimized graph, by its name.

    By the medians of onnxruntime's profiler, which counts whole microseconds, downwards, and makes every node
    longer by its own work: by what the quickest node takes, which does next to nothing.
    """
    for _ in range(UNTIMED_RUNS + PROFILED_RUNS):
        profiled()
    spent: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    with open(end_profiling(), encoding="utf-8") as stream:
        events = json.load(stream)
    for event in events:
        name, kind = str(event.get("name", "")), event.get("args", {}).get("op_name")
        if event.get("cat") == "Node" and kind and name.endswith(_KERNEL):
            node = name[: -len(_KERNEL)]
            spent.setdefault(node, []).append(float(event["dur"]))
            kinds[node] = str(kind)
    middle = {node: _median(times[-PROFILED_RUNS:]) for node, times in spent.items()}
    least = min(middle.values(), default=0.0)
    return {node: time_us - least + _HALF_US for node, time_us in middle.items()}, kinds


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def pooled(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of one model from its processes."""
    import numpy as np

    def all_of(key: str) -> list[Any]:
        return [run[key] for run in runs if run[key] is not None]

    wall_ns = np.concatenate(all_of("wall_ns"))
    p50, p90, p99 = (float(np.percentile(wall_ns, share)) / 1e6 for share in (50, 90, 99))
    return {
        "latency_p50_ms": p50,
        "latency_p90_ms": p90,
        "latency_p99_ms": p99,
        "cpu_time_p50_ms": float(np.median(np.concatenate(all_of("cpu_ns")))) / 1e6,
        "first_run_ms": float(np.median(all_of("first_run_ms"))),
        "load_ms": float(np.median(all_of("load_ms"))),
        "peak_memory_bytes": max(all_of("peak_memory_bytes"), default=None),
        "repetitions": len(wall_ns),
        "warmup": sum(all_of("warmup")),
        "processes": len(runs),
        "operators": runs[0]["operators"],
        "nodes": runs[0].get("nodes"),
    }


def interleaved(
    open_both: Callable[[], list[Run]],
    *,
    pairs: int,
    warmup_limit_s: float,
    rounds: int = ROUNDS,
    ends_at: float | None = None,
    advance: Callable[[int], Any] | None = None,
) -> tuple[list[list[float]], list[list[float]]]:
    """CPU and wall-clock ratios, second over first, of runs in turns whose order alternates: a row a round.

    Both are opened anew for every round. Behind ``ends_at`` (``time.monotonic``) a row that was begun counts
    only where it is the first, so that all rows are as long.
    """
    each = -(-pairs // rounds)
    cpu_ratios: list[list[float]] = []
    wall_ratios: list[list[float]] = []
    for _ in range(rounds):
        runs = open_both()
        inner = [warmed_up(run, warmup_limit_s)[0] for run in runs]
        cpu: list[float] = []
        wall: list[float] = []
        while len(cpu) < each and not (ends_at is not None and time.monotonic() > ends_at):
            spent = [(1.0, 1.0), (1.0, 1.0)]
            for which in (0, 1) if len(cpu) % 2 == 0 else (1, 0):
                spent[which] = sample(runs[which], inner[which])
            cpu.append(spent[1][0] / spent[0][0])
            wall.append(spent[1][1] / spent[0][1])
            if advance is not None:
                advance(1)
        if cpu and (len(cpu) == each or not cpu_ratios):
            cpu_ratios.append(cpu)
            wall_ratios.append(wall)
        if len(cpu) < each:
            break
    return cpu_ratios, wall_ratios
