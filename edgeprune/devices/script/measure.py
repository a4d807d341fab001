"""Measures ONNX models where it runs: ``python measure.py JOB.json RESULT.json``; Python 3.9 on.

Needs numpy, onnxruntime and the files ``sampling.py`` and ``device_state.py`` beside it alone, so that it
can be copied to a device. ``docs/devices.md`` has the fields of both files. Every model, and every pair, has
fresh processes. Exit status 3: the result says what went wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import device_state  # type: ignore[import-not-found] # the files beside this one
import sampling  # type: ignore[import-not-found]

SCHEMA = 1
FAILED_STATUS = 3
_SAMPLES = 50
_GRACE_S = 5.0
_MORE_PROCESSES_S = 10.0  # then a model is given no further one: what differs between them is short
_PART, _TIMES = "--part", "--times"  # of a fresh process: the whole, or without shares by operator
_MEMORY_SIGNS = ("MemoryError", "bad_alloc", "BFCArena", "Failed to allocate", "Cannot allocate memory")


class MeasureError(Exception):
    """What went wrong, for the result; ``kind`` is one of load, run, memory, time, version."""

    def __init__(self, kind: str, message: str, model: str | None = None) -> None:
        super().__init__(message)
        self.told = {"kind": kind, "model": model, "message": message}


def main(arguments: list[str]) -> int:
    """Measure a job, or in a fresh process one part of it."""
    if arguments[1] in (_PART, _TIMES):
        end_with_parent(int(arguments[2]))
        job = json.loads(Path(arguments[0]).read_text("utf-8"))
        job["per_operator"] = job.get("per_operator") and arguments[1] == _PART
        return print_part(job, arguments[3], arguments[4:])
    if parent := os.environ.get("EDGEPRUNE_STARTED_BY"):
        end_with_parent(int(parent))
    result = Path(arguments[1])
    try:
        job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        answer, status = {"schema": SCHEMA, **measured(job, arguments[0])}, 0
        for caution in answer["cautions"]:
            say(f"caution: {caution}")
    except Exception as fault:
        reason = f"the job cannot be run ({type(fault).__name__}: {str(fault)[:200]}); use one of edgeprune"
        error = fault if isinstance(fault, MeasureError) else MeasureError("run", reason)
        say(f"error: {error.told['model'] or 'the job'}: {error}")
        answer, status = {"schema": SCHEMA, "error": error.told}, FAILED_STATUS
    temporary = result.with_name(result.name + ".part")
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    temporary.replace(result)
    return status


def measured(job: dict[str, Any], job_path: str) -> dict[str, Any]:
    """Machine, times of all models and pairs, and cautions."""
    if job.get("schema") != SCHEMA:
        raise MeasureError("version", f"the job is of schema {job.get('schema')}, this script of {SCHEMA}")
    check_packages()
    files = checked_files(job)
    limit_s = job.get("time_limit_s")
    ends_at = None if limit_s is None else time.monotonic() + limit_s
    before = device_state.state()
    in_pairs = set() if job.get("pairs_alone") else {name for pair in job["pairs"] for name in pair}
    alone = [model["name"] for model in job["models"] if model["name"] not in in_pairs]
    models: dict[str, Any] = {}
    for number, name in enumerate(alone, 1):
        models[name] = by_itself(job, job_path, name, ends_at)
        say(f"measured {number} of {len(alone)} models")
    pairs = []
    for number, (first, second) in enumerate(job["pairs"], 1):
        pairs.append({"a": first, "b": second, **part(job, job_path, [first, second], ends_at)})
        say(f"compared {number} of {len(job['pairs'])} pairs")
    noise, told = None, []
    if job.get("noise_check"):
        name = job["models"][0]["name"]
        try:
            noise = {"a": name, "b": name, **part(job, job_path, [name, name], ends_at)}
            say("compared the first model with itself")
        except MeasureError as error:
            if error.told["kind"] != "time":
                raise
            told.append("no time was left to find out how busy the device was")
    after, asked = device_state.state(), int(job.get("least_pairs", 100))
    for pair in pairs:
        done = sum(map(len, pair["cpu_ratios"]))
        if done < asked:
            told.append(f"the time limit of {limit_s:g} s ended the comparison at {done} of {asked} pairs")
    return {
        "machine": device_state.machine(before, after),
        "threads": int(job["threads"]),
        "batch_size": int(job.get("batch_size") or 1),
        "files": files,
        "models": models,
        "pairs": pairs,
        "noise": noise,
        "cautions": [*device_state.cautions(before, after, models), *told],
    }


def check_packages() -> None:
    """Refuse a Python that lacks what this needs."""
    for name in ("numpy", "onnxruntime"):
        try:
            __import__(name)
        except Exception as error:
            reason = f"{sys.executable} cannot import {name} ({str(error).strip()[:200]}); install it there"
            raise MeasureError("version", reason) from error


def checked_files(job: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of every model, which has to be the one that the job tells, if it does."""
    sums = {}
    for model in job["models"]:
        name, digest = model["name"], hashlib.sha256()
        try:
            with open(model["file"], "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise MeasureError("load", f"{model['file']} cannot be read ({error.strerror})", name) from error
        if model.get("sha256") not in (None, digest.hexdigest()):
            reason = f"{model['file']} is not the file that the job was made for (its SHA-256 is another)"
            raise MeasureError("load", f"{reason}; copy it again", name)
        sums[name] = digest.hexdigest()
    return sums


def by_itself(job: dict[str, Any], job_path: str, name: str, ends_at: float | None) -> dict[str, Any]:
    """Times of one model, of all runs in ``processes`` fresh processes, or in this one.

    By where its memory happens to lie, a process can be a quarter slower than the next throughout.
    """
    if not job.get("fresh_process", True):
        return dict(sampling.pooled([timed(job, name)]))
    begun = time.monotonic()
    runs: list[dict[str, Any]] = []
    most = max(1, int(job.get("processes", 1)))
    while len(runs) < most and not (runs and time.monotonic() - begun > _MORE_PROCESSES_S):
        try:
            runs.append(part(job, job_path, [name], ends_at, _TIMES if runs else _PART))
        except MeasureError as error:
            if not runs or error.told["kind"] != "time":
                raise
            break
    return dict(sampling.pooled(runs))


def part(
    job: dict[str, Any], job_path: str, names: list[str], ends_at: float | None, what: str = _PART
) -> dict[str, Any]:
    """One model or pair, in a fresh process, which ends a comparison itself when the time is over."""
    left_s = None if ends_at is None else ends_at - time.monotonic()
    name, late = names[-1], f"took longer than {job['time_limit_s']:g} s" if ends_at is not None else ""
    if left_s is not None and left_s <= 0:
        raise MeasureError("time", late, name)
    script = str(Path(__file__).resolve())
    left = "-" if left_s is None else str(left_s)
    command = [sys.executable, script, job_path, what, str(os.getpid()), left, *names]
    kill_after_s = None if left_s is None else left_s + _GRACE_S
    try:
        done = subprocess.run(command, capture_output=True, timeout=kill_after_s, check=False)
    except subprocess.TimeoutExpired:
        raise MeasureError("time", late, name) from None
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode in (0, FAILED_STATUS):
        try:
            answer: dict[str, Any] = json.loads(done.stdout.decode("utf-8").strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise MeasureError("run", "its process ended without a result", name) from None
        if done.returncode:
            raise MeasureError(answer["kind"], answer["message"], answer["model"])
        return answer
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "no message")
    if done.returncode == -9 or is_of_memory(said):
        raise MeasureError("memory", "was killed or refused memory: it does not fit into what is free", name)
    raise MeasureError("run", f"its process ended with status {done.returncode} ({last[:200]})", name)


def end_with_parent(parent: int) -> None:
    """On Linux, be killed once the process that started this one has ended, or end if it has already."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(FAILED_STATUS)


def is_of_memory(text: str) -> bool:
    """Whether a message is about memory that was refused."""
    return any(sign in text for sign in _MEMORY_SIGNS)


def print_part(job: dict[str, Any], left: str, names: list[str]) -> int:
    """Measure one model or pair and print it as the last line."""
    ends_at = None if left == "-" else time.monotonic() + float(left)
    try:
        answer = timed(job, names[0]) if len(names) == 1 else compared(job, names, ends_at)
    except MeasureError as error:
        print(json.dumps(error.told))
        return FAILED_STATUS
    print(json.dumps(answer))
    return 0


def timed(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Runs of one model on the same random inputs, and its peak memory above an idle onnxruntime."""
    idle = reset_peak()
    run, load_ms, first_run_ms = opened(job, name)
    inner, warmup = sampling.warmed_up(run, float(job.get("warmup_limit_s", 10)))
    wall_ns, cpu_ns = sampling.timed_alone(run, inner, int(job.get("samples", _SAMPLES)))
    return {
        "wall_ns": wall_ns,
        "cpu_ns": cpu_ns,
        "first_run_ms": first_run_ms,
        "load_ms": load_ms,
        "peak_memory_bytes": None if idle is None else max(0, peak_bytes() - idle),
        "warmup": warmup,
        **(shares(job, name) if job.get("per_operator") else {"operators": [], "nodes": None}),
    }


def compared(job: dict[str, Any], names: list[str], ends_at: float | None) -> dict[str, Any]:
    """Ratios, second over first; where the time is over, the pairs so far."""
    cpu_ratios, wall_ratios = sampling.interleaved(
        lambda: [opened(job, name)[0] for name in names],
        pairs=int(job.get("least_pairs", 100)),
        warmup_limit_s=float(job.get("warmup_limit_s", 10)) / sampling.ROUNDS,
        ends_at=ends_at,
    )
    if not cpu_ratios:
        late = f"the time limit of {job['time_limit_s']:g} s was over before the first pair was done"
        raise MeasureError("time", late, names[-1])
    return {"cpu_ratios": cpu_ratios, "wall_ratios": wall_ratios}


def opened(job: dict[str, Any], name: str) -> tuple[Any, float, float]:
    """A function that runs a model once; milliseconds of loading and of the first run."""
    session, feeds, load_ms, first_ms = loaded(job, name, sampling.session_options(int(job["threads"])))
    return lambda: session.run(None, feeds), load_ms, first_ms


def loaded(job: dict[str, Any], name: str, options: Any) -> tuple[Any, dict[str, Any], float, float]:
    """A session that has run once, its inputs, and milliseconds of loading and of that run."""
    import onnxruntime as ort

    files = {model["name"]: model["file"] for model in job["models"]}
    kind, start = "load", time.perf_counter()
    try:
        session = ort.InferenceSession(files[name], options, providers=["CPUExecutionProvider"])
        ready = time.perf_counter()
        feeds = sampling.random_inputs(session, job.get("batch_size"), int(job.get("seed", 0)))
        kind, begun = "run", time.perf_counter()
        session.run(None, feeds)
        first_ms = (time.perf_counter() - begun) * 1e3
    except sampling.InputError as error:
        raise MeasureError("run", str(error), name) from error
    except Exception as error:
        reason = f"onnxruntime {ort.__version__} cannot {kind} it ({str(error).strip()[:200]})"
        raise MeasureError("memory" if is_of_memory(repr(error)) else kind, reason, name) from error
    return session, feeds, (ready - start) * 1e3, first_ms


def shares(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Shares of the time by kind of operator and by node; onnxruntime's profile makes times longer."""
    options = sampling.session_options(int(job["threads"]))
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session, feeds, _, _ = loaded(job, name, options)
        nodes, kinds = sampling.node_times_us(lambda: session.run(None, feeds), session.end_profiling)
    total = sum(nodes.values()) or 1.0
    spent: dict[str, float] = {}
    for node, time_us in nodes.items():
        spent[kinds[node]] = spent.get(kinds[node], 0.0) + time_us / total
    return {
        "operators": [
            {"op_type": kind, "share": share}
            for kind, share in sorted(spent.items(), key=lambda item: -item[1])
        ],
        "nodes": {node: time_us / total for node, time_us in nodes.items()} if job.get("per_node") else None,
    }


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


def say(line: str) -> None:
    """Progress, for whoever watches."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
