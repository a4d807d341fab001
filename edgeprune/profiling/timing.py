"""Latency on this host with onnxruntime: one model, or one against another.

Times of one model are wall clock. A comparison uses CPU time of interleaved pairs in one process, which a
busy machine disturbs far less, and says how sure it is. Warm-up, samples and pairs are those of
``devices/script/sampling.py``, as on a device; here models are loaded within time limits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgeprune.artifacts.latency import LatencyMeasurement, LatencyRatio, Provenance
from edgeprune.devices.script.sampling import (
    InputError,
    Run,
    interleaved,
    random_inputs,
    sample,
    session_options,
    timed_alone,
    warmed_up,
)
from edgeprune.errors import ProfileError, UsageError
from edgeprune.onnx_io.read import require_onnx
from edgeprune.onnx_io.session import in_a_sentence, open_session, run_session
from edgeprune.system.host import machine_description
from edgeprune.system.progress import task

_SLOW_S = 1.0
_WARMUP_LIMIT_S = 0.25
"""Of a session; a search times many. Stable times take 20 ms in small networks."""
MIN_PAIRS = 100
_BOOTSTRAP_DRAWS = 2000
_ANGLES = 20_001


def measure(
    onnx_path: str | Path,
    *,
    threads: int,
    batch_size: int = 1,
    repetitions: int = 50,
    seed: int = 0,
    timeout_s: float | None = None,
) -> LatencyMeasurement:
    """Wall-clock latency of one batch of random inputs on this host, in milliseconds.

    Percentiles are over single runs. ``repetitions`` samples are taken once times no longer fall,
    each of enough runs to last 2 ms; CPU time per run is the median over the samples, all threads together.

    Raises:
        ProfileError: the file is missing, no ONNX or cannot run, or a dimension other than the batch
            is dynamic.
        UsageError: ``threads``, ``batch_size`` or ``repetitions`` is below 1.
    """
    _check_at_least("repetitions", repetitions, 1)
    run = open_runner(onnx_path, threads, batch_size, seed, timeout_s)
    inner, warmup = warmed_up(run, _WARMUP_LIMIT_S)
    with task(f"timing {Path(onnx_path).name}", repetitions) as advance:
        wall_ns, cpu_ns = timed_alone(run, inner, repetitions, advance)
    return LatencyMeasurement(
        provenance=Provenance.MEASURED_ON_HOST,
        latency_p50_ms=float(np.percentile(wall_ns, 50)) / 1e6,
        latency_p90_ms=float(np.percentile(wall_ns, 90)) / 1e6,
        latency_p99_ms=float(np.percentile(wall_ns, 99)) / 1e6,
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

    def open_both() -> list[Run]:
        return [open_runner(path, threads, batch_size, seed, timeout_s) for path in (onnx_a, onnx_b)]

    with task(f"comparing {Path(onnx_a).name} and {Path(onnx_b).name}", pairs) as advance:
        ratios = np.array(
            interleaved(open_both, pairs=pairs, warmup_limit_s=_WARMUP_LIMIT_S, advance=advance)[0]
        )
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

    def open_both() -> list[Run]:
        return [open_runner(path, threads, None, 0, timeout_s) for path in (onnx_a, onnx_b)]

    ratios, _ = interleaved(open_both, pairs=pairs, warmup_limit_s=_WARMUP_LIMIT_S, rounds=1)
    return float(np.median(ratios))


def ratios_of_one_session(open_both: Callable[[], list[Run]], pairs: int) -> list[float]:
    """CPU time of the second over the first in turns, in the sessions that ``open_both`` gives."""
    return interleaved(open_both, pairs=pairs, rounds=1, warmup_limit_s=0.0)[0][0]


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
    options = session_options(threads)

    def failed(reason: str) -> str:
        return f"{path.name}: onnxruntime cannot load or run it ({reason}); give a valid ONNX file"

    with in_a_sentence(ProfileError, failed, name=path.name):
        session = open_session(path, options, timeout_s=timeout_s)
        feeds = random_feeds(session, path.name, batch_size, seed)
        began = time.monotonic()
        run_session(session, None, feeds, timeout_s=timeout_s)
        slow = time.monotonic() - began > _SLOW_S
    if not slow or timeout_s is None:
        return lambda: session.run(None, feeds)

    def guarded() -> object:
        with in_a_sentence(ProfileError, failed, name=path.name):
            return run_session(session, None, feeds, timeout_s=timeout_s)

    return guarded


def random_feeds(session: Any, where: str, batch_size: int | None, seed: int) -> dict[str, Any]:
    """Random inputs for a session, the same for the same seed.

    Raises:
        ProfileError: an input is of no accepted type, or a dimension other than the batch is dynamic.
    """
    try:
        return random_inputs(session, batch_size, seed)
    except InputError as error:
        raise ProfileError(f"{where}: {error}") from error


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
        run = open_runner(onnx_path, threads, batch_size)
        inner, _ = warmed_up(run, 0.0)
        medians.append(float(np.median([sample(run, inner)[0] for _ in range(samples)])))
    return min(medians) / 1e6


def _check_at_least(name: str, given: int, least: int) -> None:
    if given < least:
        raise UsageError(f"{name} is {given}; give at least {least}")
