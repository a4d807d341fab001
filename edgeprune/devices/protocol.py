"""A measuring job and its result, as JSON between this machine and ``script/measure.py`` on a device."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """A model by the name that the result has it under, and its file beside the job."""

    name: str
    file: str


@dataclass(frozen=True, kw_only=True)
class MeasurementJob:
    """What to measure. Models in ``pairs`` are run in turns, ``least_pairs`` times; all others alone.

    ``batch_size``: of inputs whose batch is open; 1 where ``None``. ``warmup_limit_s``: longest wait for
    stable times. ``fresh_process``: one process for every model, or one for all that are alone.
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
    fresh_process: bool = True

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
class OperatorShare:
    """Share of a model's time that one kind of operator takes, in [0, 1]."""

    op_type: str
    share: float


@dataclass(frozen=True, kw_only=True)
class ModelTimes:
    """One model alone; CPU time is of all threads together."""

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
    """What a device has measured; ``cautions`` say why its figures may be less than they seem."""

    machine: Machine
    models: dict[str, ModelTimes]
    pairs: tuple[PairTimes, ...]
    cautions: tuple[str, ...]


def from_json(text: bytes) -> MeasurementResult | MeasurementFailure:
    """What the script wrote.

    Raises:
        ValueError: it is no result of this schema.
    """
    from pydantic import TypeAdapter

    told: Any = json.loads(text)
    if not isinstance(told, dict) or told.pop("schema", None) != SCHEMA:
        raise ValueError(f"no result of schema {SCHEMA}")
    if "error" in told:
        return TypeAdapter(MeasurementFailure).validate_python(told["error"])
    return TypeAdapter(MeasurementResult).validate_python(told)
