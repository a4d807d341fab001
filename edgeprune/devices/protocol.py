"""A measuring job and its result, as JSON between this machine and ``script/measure.py`` on a device."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from edgeprune.artifacts.latency import OperatorShare
from edgeprune.showing import in_short
from edgeprune.system.imports import first_line

SCHEMA = 1
PROCESSES = 5
"""Of a model alone, whose time is reported; the script ends earlier where they take long."""
_REASON_LENGTH = 200
_MOST = 10**12


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """A model by the name that the result has it under, and its file beside the job.

    ``sha256``: of the file, which the script then checks.
    """

    name: str
    file: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class MeasurementJob:
    """What to measure. Models in ``pairs`` are run in turns, ``least_pairs`` times; all others alone.

    ``batch_size``: of inputs whose batch is open; 1 where ``None``. ``warmup_limit_s``: longest wait for
    stable times. ``fresh_process``: ``processes`` for every model, or one for all that are alone.
    ``per_operator``: shares of the time by kind of operator, with ``per_node`` by node, too.
    ``pairs_alone``: models in pairs are timed alone, too. ``noise_check``: the first model is compared with
    itself, so that it is known how far to trust the rest. ``samples``: of a model alone, 2 ms each or more.
    """

    threads: int
    models: tuple[ModelJob, ...]
    batch_size: int | None = None
    seed: int = 0
    pairs: tuple[tuple[str, str], ...] = ()
    least_pairs: int = 100
    warmup_limit_s: float = 10.0
    time_limit_s: float | None = None
    per_operator: bool = False
    per_node: bool = False
    fresh_process: bool = True
    processes: int = 1
    pairs_alone: bool = False
    noise_check: bool = False
    samples: int = 50

    def to_json(self) -> bytes:
        """As the script reads it."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}).encode()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A device and its state; ``None`` where its system does not tell."""

    platform: str
    python: str
    numpy: str
    onnxruntime: str
    cpu_name: str | None
    cores_usable: int | None
    memory_bytes: int | None
    governor: str | None
    clock_khz_before: int | None
    clock_khz_after: int | None
    temperature_c_before: float | None
    temperature_c_after: float | None
    throttled_flags: str | None
    load_average: float | None


@dataclass(frozen=True, kw_only=True)
class ModelTimes:
    """One model alone, of all runs in its processes; CPU time is of all threads together.

    ``nodes``: shares of the time by the names of nodes of the optimized graph, where asked for.
    """

    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    cpu_time_p50_ms: float
    first_run_ms: float
    load_ms: float
    peak_memory_bytes: int | None
    repetitions: int
    warmup: int
    operators: tuple[OperatorShare, ...]
    nodes: dict[str, float] | None = None
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class PairTimes:
    """Ratios of ``b`` over ``a``, of runs in turns: one row for every round of sessions."""

    a: str
    b: str
    cpu_ratios: tuple[tuple[float, ...], ...]
    wall_ratios: tuple[tuple[float, ...], ...]


class FailureKind(Enum):
    """What a measurement failed at."""

    LOAD = "load"
    RUN = "run"
    MEMORY = "memory"
    TIME = "time"
    VERSION = "version"


@dataclass(frozen=True, kw_only=True)
class MeasurementFailure:
    """Why there are no times; ``model`` is a name of the job."""

    kind: FailureKind
    model: str | None
    message: str


@dataclass(frozen=True, kw_only=True)
class MeasurementResult:
    """What a device has measured; ``cautions`` say why its figures may be less than they seem.

    ``files``: SHA-256 of every model by its name. ``noise``: a model in turns with itself.
    """

    machine: Machine
    threads: int
    batch_size: int
    files: dict[str, str]
    models: dict[str, ModelTimes]
    pairs: tuple[PairTimes, ...]
    noise: PairTimes | None
    cautions: tuple[str, ...]


def from_json(text: bytes) -> MeasurementResult | MeasurementFailure:
    """What the script wrote.

    Raises:
        ValueError: it is no result of this schema; says what is wrong.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        told: Any = json.loads(text)
    except ValueError as fault:
        raise ValueError(f"it is no whole JSON ({first_line(fault, _REASON_LENGTH)})") from fault
    if not isinstance(told, dict) or "schema" not in told:
        raise ValueError("it is no result of a measurement: it has no 'schema'")
    schema = told.pop("schema")
    if schema != SCHEMA:
        raise ValueError(f"it is of schema {str(schema)[:20]!r}, and {SCHEMA} is read")
    try:
        if "error" in told:
            return TypeAdapter(MeasurementFailure).validate_python(told["error"])
        result = TypeAdapter(MeasurementResult).validate_python(told)
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(str(step) for step in first["loc"]) or "the whole"
        raise ValueError(f"{place}: {first['msg'][:_REASON_LENGTH]}") from fault
    _check_figures(result)
    return result


def _check_figures(result: MeasurementResult) -> None:
    """Check that times are possible ones.

    Raises:
        ValueError: says which is not.
    """
    counts = {"threads": result.threads, "batch_size": result.batch_size}
    times: dict[str, float] = {}
    for name, model in result.models.items():
        for field in ("repetitions", "processes"):
            counts[f"models.{name}.{field}"] = getattr(model, field)
        for field in ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "cpu_time_p50_ms"):
            times[f"models.{name}.{field}"] = getattr(model, field)
        shares = [each.share for each in model.operators] + list((model.nodes or {}).values())
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"models.{name}: a share of its time is none between 0 and 1")
    for place, count in counts.items():
        if not 1 <= count < _MOST:
            raise ValueError(f"{place}: {in_short(count)} is no count of 1 or more")
    for place, time_ms in times.items():
        if not (math.isfinite(time_ms) and time_ms > 0):
            raise ValueError(f"{place}: {time_ms} is no time above 0")
    for pair in (*result.pairs, *(() if result.noise is None else (result.noise,))):
        for rows in (pair.cpu_ratios, pair.wall_ratios):
            if not (rows and all(rows) and all(math.isfinite(r) and r > 0 for row in rows for r in row)):
                raise ValueError(f"the ratios of {pair.b} over {pair.a} are none, or not all above 0")
