"""Latency on this host with onnxruntime: one model, or one against another.

Times of one model are wall clock. A comparison uses CPU time of interleaved pairs in one process, which a
busy machine disturbs far less, and says how sure it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgeprune.artifacts.latency import LatencyMeasurement, LatencyRatio, Provenance
from edgeprune.errors import ProfileError, UsageError
from edgeprune.onnx_io.read import require_onnx
from edgeprune.onnx_io.session import in_a_sentence, open_session, run_session
from edgeprune.system.host import machine_description
from edgeprune.system.progress import task

_SLOW_S = 1.0
MIN_WARMUP = 3
MIN_PAIRS = 100
# CPU clocks may tick as coarsely as 1 ms or be read late; a sample must dwarf that.
MIN_SAMPLE_NS = 2_000_000
_MAX_INNER = 1000
_BOOTSTRAP_DRAWS = 2000
_ANGLES = 20_001
_ROUNDS = 5
"""Times that both models are loaded anew: on a busy machine a session can stay at twice the CPU time."""
_INPUT_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}

Feeds = dict[str, NDArray[Any]]


def measure(
    onnx_path: str | Path,
    *,
    threads: int,
    batch_size: int = 1,
    warmup: int = 5,
    repetitions: int = 50,
    seed: int = 0,
    timeout_s: float | None = None,
) -> LatencyMeasurement:
    """Wall-clock latency of one batch of random inputs on this host, in milliseconds.

    Percentiles are over single runs. ``repetitions`` samples are taken, each of enough runs to last
    2 ms; CPU time per run is the median over the samples, all threads together.

    Raises:
        ProfileError: the file is missing, no ONNX or cannot run, or a dimension other than the batch
            is dynamic.
        UsageError: ``threads``, ``batch_size`` or ``repetitions`` is below 1, or ``warmup`` below 3.
    """
    _check_at_least("repetitions", repetitions, 1)
    _check_at_least("warmup", warmup, MIN_WARMUP)
    run = open_runner(onnx_path, threads=threads, batch_size=batch_size, seed=seed, timeout_s=timeout_s)
    inner = warm_up(run, warmup)
    wall_ns: list[int] = []
    cpu_ns: list[float] = []
    with task(f"timing {Path(onnx_path).name}", repetitions) as advance:
        for _ in range(repetitions):
            cpu_start = time.process_time_ns()
            for _ in range(inner):
                start = time.perf_counter_ns()
                run()
                wall_ns.append(time.perf_counter_ns() - start)
            cpu_ns.append((time.process_time_ns() - cpu_start) / inner)
            advance(1)
    return LatencyMeasurement(
        provenance=Provenance.MEASURED_ON_HOST,
        latency_p50_ms=float(np.percentile(wall_ns, 50)) / 1e6,
        latency_p90_ms=float(np.percentile(wall_ns, 90)) / 1e6,
        cpu_time_p50_ms=float(np.median(cpu_ns)) / 1e6,
        repetitions=len(wall_ns),
        warmup=warmup,
        threads=threads,
        batch_size=batch_size,
        runtime=f"onnxruntime {ort.__version__}",
        machine=machine_description(),
    )


def compare(
    onnx_a: str | Path,
    onnx_b: str | Path,
    *,
    threads: int,
    batch_size: int | None = 1,
    pairs: int = MIN_PAIRS,
    warmup: int = 5,
    confidence: float = 0.95,
    seed: int = 0,
    timeout_s: float | None = None,
) -> LatencyRatio:
    """CPU time of B over A on this host: median of paired ratios, with a bootstrap interval.

    Both run in one process, in turns, the order alternating from pair to pair, in sessions that are opened
    five times: small networks on several threads cost one session twice what they cost another, by how the
    system wakes its threads. The interval takes sessions as drawn, too. Below 1 means that B is faster.
    ``batch_size``: where it is ``None``, that of the files, or 1 where it is dynamic.

    Raises:
        ProfileError: as :func:`measure`, for either file.
        UsageError: fewer than 100 pairs, or as :func:`measure`; ``confidence`` not in (0, 1).
    """
    _check_at_least("pairs", pairs, MIN_PAIRS)
    _check_at_least("warmup", warmup, MIN_WARMUP)
    each = -(-pairs // _ROUNDS)
    ratios = np.empty((_ROUNDS, each))
    with task(f"comparing {Path(onnx_a).name} and {Path(onnx_b).name}", ratios.size) as advance:
        for own in ratios:
            run_a, run_b = (
                open_runner(path, threads=threads, batch_size=batch_size, seed=seed, timeout_s=timeout_s)
                for path in (onnx_a, onnx_b)
            )
            inner_a, inner_b = warm_up(run_a, warmup), warm_up(run_b, warmup)
            for pair in range(each):
                if pair % 2 == 0:
                    a_ns = cpu_ns(run_a, inner_a)
                    b_ns = cpu_ns(run_b, inner_b)
                else:
                    b_ns = cpu_ns(run_b, inner_b)
                    a_ns = cpu_ns(run_a, inner_a)
                own[pair] = b_ns / a_ns
                advance(1)
    median, low, high = bootstrap_median(ratios, confidence=confidence, seed=seed)
    return LatencyRatio(
        ratio=median, low=low, high=high, confidence=confidence, pairs=ratios.size, threads=threads
    )


def quick_ratio(
    onnx_a: str | Path, onnx_b: str | Path, *, threads: int, pairs: int = 25, timeout_s: float | None = None
) -> float:
    """CPU time of B over A from a few pairs in one session each: to choose by, not to report.

    Raises:
        ProfileError: as :func:`measure`, for either file.
    """
    runs = [
        open_runner(path, threads=threads, batch_size=None, timeout_s=timeout_s) for path in (onnx_a, onnx_b)
    ]
    inner = [warm_up(run, MIN_WARMUP) for run in runs]
    ratios = []
    for pair in range(pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        spent = {which: cpu_ns(runs[which], inner[which]) for which in order}
        ratios.append(spent[1] / spent[0])
    return float(np.median(ratios))


def bootstrap_median(
    samples: NDArray[np.float64], *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Median of ratios (n,) and its percentile-bootstrap interval (2,000 draws), same for the same seed.

    Of ``samples`` (rounds, n) rounds are drawn, and then samples in each. A bootstrap of few rounds knows too
    little of how they scatter: its ends move (in logarithms) away from the median by what Student's t asks
    for beyond the normal distribution, sqrt(rounds / (rounds - 1)) t / z (Hesterberg 2015, section 4.1).

    Raises:
        UsageError: no samples, one that is not positive and finite, or ``confidence`` not in (0, 1).
    """
    if samples.size == 0 or not (np.isfinite(samples).all() and (samples > 0).all()):
        raise UsageError("a bootstrap interval needs at least one ratio and only positive, finite ones")
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    rng = np.random.default_rng(seed)
    rounds = np.atleast_2d(samples)
    count, each = rounds.shape
    drawn = rng.integers(0, count, size=(_BOOTSTRAP_DRAWS, count, 1))
    picks = rng.integers(0, each, size=(_BOOTSTRAP_DRAWS, count, each))
    medians = np.median(rounds[drawn, picks], axis=(1, 2))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(medians, [tail, 1.0 - tail])
    median, wider = float(np.median(samples)), _for_few_rounds(count, tail)
    return median, *(median * (float(end) / median) ** wider for end in (low, high))


def _for_few_rounds(rounds: int, tail: float) -> float:
    """How much wider an interval of a bootstrap over so many rounds has to be; 1 for a single one."""
    if rounds < 2:
        return 1.0
    quantile = student_quantile(1.0 - tail, rounds - 1) / NormalDist().inv_cdf(1.0 - tail)
    return math.sqrt(rounds / (rounds - 1)) * quantile


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t above the median, from its density summed up over angles.

    With t = sqrt(freedom) tan(angle) the density is a power of the cosine: smooth and bounded for
    whatever degrees of freedom.
    """
    angles = np.linspace(0.0, np.pi / 2, _ANGLES)
    density = np.cos(angles) ** (freedom - 1)
    upto = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2)))
    angle = np.interp(2 * probability - 1, upto / upto[-1], angles)
    return float(math.sqrt(freedom) * np.tan(angle))


def open_runner(
    onnx_path: str | Path,
    *,
    threads: int,
    batch_size: int | None = 1,
    seed: int = 0,
    timeout_s: float | None = None,
) -> Callable[[], object]:
    """A function that runs the model once on the CPU, on the same random inputs every time.

    ``batch_size``: where it is ``None``, that of the file, or 1 where it is dynamic.
    Spinning is off: idle threads must not burn the CPU time that is measured. Loading and the first run take
    ``timeout_s`` seconds at most, and so do the others where the first one was slow; the thread beside that
    this needs would count in short ones.

    Raises:
        ProfileError: the file is missing, no ONNX or cannot run, or a dimension other than the batch
            is dynamic.
        UsageError: ``threads`` or ``batch_size`` is below 1.
    """
    _check_at_least("threads", threads, 1)
    _check_at_least("batch_size", 1 if batch_size is None else batch_size, 1)
    path = Path(onnx_path)
    require_onnx(path, ProfileError)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")

    def failed(reason: str) -> str:
        return f"{path.name}: onnxruntime cannot load or run it ({reason}); give a valid ONNX file"

    with in_a_sentence(ProfileError, failed, name=path.name):
        session = open_session(path, options, timeout_s=timeout_s)
        feeds = random_feeds(session, path.name, batch_size, np.random.default_rng(seed))
        began = time.monotonic()
        run_session(session, None, feeds, timeout_s=timeout_s)
        slow = time.monotonic() - began > _SLOW_S
    if not slow or timeout_s is None:
        return lambda: session.run(None, feeds)

    def guarded() -> object:
        with in_a_sentence(ProfileError, failed, name=path.name):
            return run_session(session, None, feeds, timeout_s=timeout_s)

    return guarded


def random_feeds(session: Any, where: str, batch_size: int | None, rng: np.random.Generator) -> Feeds:
    """Random inputs for a session, the same for the same generator.

    Raises:
        ProfileError: an input is of no accepted type, or a dimension other than the batch is dynamic.
    """
    feeds: Feeds = {}
    for given in session.get_inputs():
        if given.type not in _INPUT_TYPES:
            raise ProfileError(
                f"{where}: input {given.name!r} is of type {given.type}; accepted are "
                f"{', '.join(sorted(_INPUT_TYPES))}"
            )
        shape = _shape(given.name, list(given.shape), where, batch_size)
        dtype = np.dtype(_INPUT_TYPES[given.type])
        if dtype.kind == "f":
            feeds[given.name] = rng.standard_normal(shape).astype(dtype)
        else:
            feeds[given.name] = rng.integers(0, 2, size=shape).astype(dtype)
    return feeds


def _shape(name: str, dims: list[Any], where: str, batch_size: int | None) -> tuple[int, ...]:
    dynamic = [i for i, dim in enumerate(dims) if not isinstance(dim, int) or dim <= 0]
    beyond = [i for i in dynamic if i > 0]
    if beyond:
        raise ProfileError(
            f"{where}: dimension {beyond[0]} of input {name!r} is dynamic ({dims[beyond[0]]}); "
            "only the batch may be: export it with a fixed size"
        )
    if not dynamic and dims and batch_size not in (None, dims[0]):
        raise ProfileError(
            f"{where}: input {name!r} has a fixed batch of {dims[0]}, not {batch_size}; "
            f"ask for --batch-size {dims[0]} or export with a dynamic batch"
        )
    return tuple(batch_size or 1 if i in dynamic else int(dim) for i, dim in enumerate(dims))


def warm_up(run: Callable[[], object], warmup: int) -> int:
    """Run ``warmup`` times; how many runs make a sample of at least 2 ms CPU time, from the fastest."""
    fastest_ns = min(cpu_ns(run, 1) for _ in range(warmup))
    return int(min(_MAX_INNER, max(1, -(-MIN_SAMPLE_NS // max(1, int(fastest_ns))))))


def cpu_ns(run: Callable[[], object], inner: int) -> float:
    """CPU time of one run, all threads together: the mean of ``inner`` runs, at least 1 ns."""
    start = time.process_time_ns()
    for _ in range(inner):
        run()
    return max(1.0, (time.process_time_ns() - start) / inner)


def least_cpu_ms(
    onnx_path: str | Path, *, threads: int, batch_size: int = 1, samples: int = 5, sessions: int = 3
) -> float:
    """CPU milliseconds of one run: the least median of some sessions, since what disturbs one only adds.

    Raises:
        ProfileError: as :func:`measure`.
        UsageError: ``threads`` or ``batch_size`` is below 1.
    """
    medians = []
    for _ in range(sessions):
        run = open_runner(onnx_path, threads=threads, batch_size=batch_size)
        inner = warm_up(run, MIN_WARMUP)
        medians.append(float(np.median([cpu_ns(run, inner) for _ in range(samples)])))
    return min(medians) / 1e6


def _check_at_least(name: str, given: int, least: int) -> None:
    if given < least:
        raise UsageError(f"{name} is {given}; give at least {least}")
