"""Measures ONNX models where it runs: ``python measure.py JOB.json RESULT.json``; Python 3.9 on.

Needs numpy and onnxruntime alone, so that it can be copied to a device. ``docs/devices.md`` has the fields of
both files. Every model, and every pair, has a fresh process; threads do not spin; nothing is timed before the
times have become stable. Exit status 3: the result says what went wrong.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCHEMA = 1
FAILED_STATUS = 3
ROUNDS = 5
MIN_SAMPLE_NS = 2_000_000
_MAX_INNER = 1000
_SAMPLES = 50
_BLOCK = 5
_STABLE = 0.02
_NOISY = 1.5
_SLOWED = 0.9
_THROTTLED_NOW = 0xF
_CPU = Path("/sys/devices/system/cpu")
_MEMORY_SIGNS = ("MemoryError", "bad_alloc", "BFCArena", "Failed to allocate", "Cannot allocate memory")
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class MeasureError(Exception):
    """What went wrong, for the result; ``kind`` is one of load, run, memory, time, version."""

    def __init__(self, kind: str, message: str, model: str | None = None) -> None:
        super().__init__(message)
        self.told = {"kind": kind, "model": model, "message": message}


def main(arguments: list[str]) -> int:
    """Measure a job, or in a fresh process one part of it."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    if arguments[1] == "--part":
        return print_part(job, arguments[2:])
    result = Path(arguments[1])
    try:
        answer = {"schema": SCHEMA, **measured(job, arguments[0])}
        status = 0
    except MeasureError as error:
        answer, status = {"schema": SCHEMA, "error": error.told}, FAILED_STATUS
    temporary = result.with_name(result.name + ".part")
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    temporary.replace(result)
    return status


def measured(job: dict[str, Any], job_path: str) -> dict[str, Any]:
    """Machine, times of all models and pairs, and cautions."""
    if job.get("schema") != SCHEMA:
        raise MeasureError("version", f"the job is of schema {job.get('schema')}, this script of {SCHEMA}")
    limit_s = job.get("time_limit_s")
    ends_at = None if limit_s is None else time.monotonic() + limit_s
    before = state()
    in_pairs = {name for pair in job["pairs"] for name in pair}
    alone = [model["name"] for model in job["models"] if model["name"] not in in_pairs]
    fresh = job.get("fresh_process", True)
    models: dict[str, Any] = {}
    for number, name in enumerate(alone, 1):
        models[name] = part(job, job_path, [name], ends_at) if fresh else timed(job, name)
        say(f"measured {number} of {len(alone)} models")
    pairs = []
    for number, (first, second) in enumerate(job["pairs"], 1):
        pairs.append({"a": first, "b": second, **part(job, job_path, [first, second], ends_at)})
        say(f"compared {number} of {len(job['pairs'])} pairs")
    after = state()
    return {
        "machine": machine(before, after),
        "models": models,
        "pairs": pairs,
        "cautions": cautions(before, after, models),
    }


def part(job: dict[str, Any], job_path: str, names: list[str], ends_at: float | None) -> dict[str, Any]:
    """One model or pair, in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), job_path, "--part", *names]
    left_s = None if ends_at is None else max(0.1, ends_at - time.monotonic())
    name = names[-1]
    try:
        done = subprocess.run(command, capture_output=True, timeout=left_s, check=False)
    except subprocess.TimeoutExpired:
        raise MeasureError("time", f"took longer than {job['time_limit_s']:g} s", name) from None
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout.decode("utf-8").strip().splitlines()[-1])
        return answer
    if done.returncode == FAILED_STATUS:
        raise as_error(json.loads(done.stdout.decode("utf-8").strip().splitlines()[-1]))
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "no message")
    if done.returncode == -9 or is_of_memory(said):
        raise MeasureError("memory", "was killed or refused memory: it does not fit into what is free", name)
    raise MeasureError("run", f"its process ended with status {done.returncode} ({last[:200]})", name)


def as_error(told: dict[str, Any]) -> MeasureError:
    """What a fresh process has said."""
    return MeasureError(told["kind"], told["message"], told["model"])


def is_of_memory(text: str) -> bool:
    """Whether a message is about memory that was refused."""
    return any(sign in text for sign in _MEMORY_SIGNS)


def print_part(job: dict[str, Any], names: list[str]) -> int:
    """Measure one model or pair and print it as the last line."""
    try:
        answer = timed(job, names[0]) if len(names) == 1 else compared(job, names[0], names[1])
    except MeasureError as error:
        print(json.dumps(error.told))
        return FAILED_STATUS
    print(json.dumps(answer))
    return 0


def timed(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Times of one model on the same random inputs, and its peak memory above an idle onnxruntime."""
    import numpy as np

    idle = reset_peak()
    run, load_ms, first_run_ms = opened(job, name)
    inner, warmup = warmed_up(run, float(job.get("warmup_limit_s", 10)))
    wall_ns: list[float] = []
    cpu_ns: list[float] = []
    for _ in range(_SAMPLES):
        cpu_start = time.process_time_ns()
        for _ in range(inner):
            start = time.perf_counter_ns()
            run()
            wall_ns.append(time.perf_counter_ns() - start)
        cpu_ns.append((time.process_time_ns() - cpu_start) / inner)
    p50, p90, p99 = (float(np.percentile(wall_ns, share)) / 1e6 for share in (50, 90, 99))
    return {
        "latency_p50_ms": p50,
        "latency_p90_ms": p90,
        "latency_p99_ms": p99,
        "cpu_time_p50_ms": float(np.median(cpu_ns)) / 1e6,
        "first_run_ms": first_run_ms,
        "load_ms": load_ms,
        "peak_memory_bytes": None if idle is None else max(0, peak_bytes() - idle),
        "repetitions": len(wall_ns),
        "warmup": warmup,
        "operators": shares(job, name) if job.get("per_operator") else [],
    }


def compared(job: dict[str, Any], first: str, second: str) -> dict[str, Any]:
    """Ratios, second over first, of runs in turns; both are loaded anew for every round."""
    each = -(-int(job.get("least_pairs", 100)) // ROUNDS)
    cpu_ratios: list[list[float]] = []
    wall_ratios: list[list[float]] = []
    for _ in range(ROUNDS):
        runs = [opened(job, name)[0] for name in (first, second)]
        inner = [warmed_up(run, float(job.get("warmup_limit_s", 10)) / ROUNDS)[0] for run in runs]
        cpu_ratios.append([])
        wall_ratios.append([])
        for pair in range(each):
            spent = [(1.0, 1.0), (1.0, 1.0)]
            for which in (0, 1) if pair % 2 == 0 else (1, 0):
                spent[which] = sample(runs[which], inner[which])
            cpu_ratios[-1].append(spent[1][0] / spent[0][0])
            wall_ratios[-1].append(spent[1][1] / spent[0][1])
    return {"cpu_ratios": cpu_ratios, "wall_ratios": wall_ratios}


def opened(
    job: dict[str, Any], name: str, profile: str | None = None
) -> tuple[Callable[[], Any], float, float]:
    """A function that runs a model once; milliseconds of loading and of the first run."""
    import onnxruntime as ort

    files = {model["name"]: model["file"] for model in job["models"]}
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(job["threads"])
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    kind, start = "load", time.perf_counter()
    try:
        session = ort.InferenceSession(files[name], options, providers=["CPUExecutionProvider"])
        loaded = time.perf_counter()
        feeds = inputs(session, job, name)
        kind, begun = "run", time.perf_counter()
        session.run(None, feeds)
    except MeasureError:
        raise
    except Exception as error:
        reason = f"onnxruntime {ort.__version__} cannot {kind} it ({str(error).strip()[:200]})"
        raise MeasureError("memory" if is_of_memory(repr(error)) else kind, reason, name) from error
    first_ms = (time.perf_counter() - begun) * 1e3
    if profile is not None:
        return session.end_profiling, (loaded - start) * 1e3, first_ms
    return lambda: session.run(None, feeds), (loaded - start) * 1e3, first_ms


def inputs(session: Any, job: dict[str, Any], name: str) -> dict[str, Any]:
    """Random inputs; a batch that is not fixed is the job's, or 1."""
    import numpy as np

    rng, feeds = np.random.default_rng(int(job.get("seed", 0))), {}
    for given in session.get_inputs():
        sizes = [size if isinstance(size, int) and size > 0 else None for size in given.shape]
        if None in sizes[1:] or given.type not in _DTYPES:
            raise MeasureError("run", f"its input {given.name!r} has an open size or is {given.type}", name)
        asked = job.get("batch_size")
        if sizes and None not in (sizes[0], asked) and sizes[0] != asked:
            raise MeasureError(
                "run", f"its input {given.name!r} has a fixed batch of {sizes[0]}, not {asked}", name
            )
        shape = [int(job.get("batch_size") or 1) if size is None else size for size in sizes]
        dtype = np.dtype(_DTYPES[given.type])
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, size=shape)
        feeds[given.name] = values.astype(dtype)
    return feeds


def warmed_up(run: Callable[[], Any], limit_s: float) -> tuple[int, int]:
    """Run until the times are stable, for ``limit_s`` at most: runs of a sample, and runs that it took."""
    ends_at, count = time.monotonic() + limit_s, 3
    fastest = min(sample(run, 1)[0] for _ in range(count))
    inner = int(min(_MAX_INNER, max(1, -(-MIN_SAMPLE_NS // max(1, int(fastest))))))
    before = 0.0
    while time.monotonic() < ends_at:
        middle = sorted(sample(run, inner)[0] for _ in range(_BLOCK))[_BLOCK // 2]
        count += _BLOCK * inner
        if before and abs(middle / before - 1.0) < _STABLE:
            break
        before = middle
    return inner, count


def sample(run: Callable[[], Any], inner: int) -> tuple[float, float]:
    """CPU and wall-clock nanoseconds of a run, the mean of ``inner``."""
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    for _ in range(inner):
        run()
    return (
        max(1.0, (time.process_time_ns() - cpu) / inner),
        max(1.0, (time.perf_counter_ns() - wall) / inner),
    )


def shares(job: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Shares of the time by kind of operator; onnxruntime's profile makes times longer, so shares alone."""
    with tempfile.TemporaryDirectory() as folder:
        end_profiling = opened(job, name, str(Path(folder) / "profile"))[0]
        events = json.loads(Path(end_profiling()).read_text(encoding="utf-8"))
    spent: dict[str, float] = {}
    for event in events:
        kind = event.get("args", {}).get("op_name")
        if event.get("cat") == "Node" and kind and str(event.get("name", "")).endswith("_kernel_time"):
            spent[kind] = spent.get(kind, 0.0) + float(event["dur"])
    total = sum(spent.values()) or 1.0
    return [
        {"op_type": kind, "share": duration / total}
        for kind, duration in sorted(spent.items(), key=lambda item: -item[1])
    ]


def reset_peak() -> int | None:
    """Resident bytes now, where the peak is counted from here on; nothing where that cannot be."""
    import onnxruntime  # noqa: F401 - idle memory is that with it

    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return status_bytes("VmRSS")
    except (OSError, StopIteration):
        return None


def peak_bytes() -> int:
    """Peak of resident bytes."""
    return status_bytes("VmHWM")


def status_bytes(field: str) -> int:
    """A figure of the kernel about this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def state() -> dict[str, Any]:
    """What changes while a device works."""
    clocks = [read(path) for path in _CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    warm = read(Path("/sys/class/thermal/thermal_zone0/temp"))
    return {
        "clock_khz": max((int(text) for text in clocks if text and text.isdigit()), default=None),
        "temperature_c": int(warm) / 1000 if warm and warm.lstrip("-").isdigit() else None,
        "throttled": throttled_flags(),
    }


def throttled_flags() -> str | None:
    """``vcgencmd get_throttled`` of a Raspberry Pi, such as ``0x50005``."""
    try:
        done = subprocess.run(["vcgencmd", "get_throttled"], stdout=subprocess.PIPE, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("ascii", "replace").strip().partition("=")[2] or None


def machine(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What decides how fast a device is; what its system does not tell is null."""
    import numpy as np
    import onnxruntime as ort

    board = read(Path("/proc/device-tree/model"))
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "cpu_name": board.strip("\0") if board else cpu_name(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "governor": read(_CPU / "cpu0/cpufreq/scaling_governor"),
        "clock_khz_before": before["clock_khz"],
        "clock_khz_after": after["clock_khz"],
        "temperature_c_before": before["temperature_c"],
        "temperature_c_after": after["temperature_c"],
        "throttled_flags": after["throttled"],
        "load_average": os.getloadavg()[0],
    }


def cpu_name() -> str | None:
    """Of the first processor."""
    for line in (read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware", "model") and not value.strip().isdigit():
            return value.strip()
    return platform.machine() or None


def cautions(before: dict[str, Any], after: dict[str, Any], models: dict[str, Any]) -> list[str]:
    """Why the figures may be less than they seem."""
    told = []
    if after["throttled"] and int(after["throttled"], 16) & _THROTTLED_NOW:
        told.append(f"the device was throttled during the measurement (flags {after['throttled']})")
    clocks = before["clock_khz"], after["clock_khz"]
    if None not in clocks and clocks[1] < _SLOWED * clocks[0]:
        told.append(f"the clock fell from {clocks[0] // 1000} to {clocks[1] // 1000} MHz")
    worst = max((m["latency_p90_ms"] / m["latency_p50_ms"] for m in models.values()), default=1.0)
    if worst > _NOISY:
        told.append(f"noisy: one time in ten was {worst:.1f} times the median or more, so it was kept busy")
    return told


def read(path: Path) -> str | None:
    """Text of a file of the system, if there is one."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def say(line: str) -> None:
    """Progress, for whoever watches."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
