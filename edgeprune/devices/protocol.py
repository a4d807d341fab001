"""Stand-in."""

from __future__ import annotations
import json
from dataclasses import asdict, dataclass, field
from typing import Any
from pydantic import TypeAdapter


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    name: str
    file: str


@dataclass(frozen=True, kw_only=True)
class MeasurementJob:
    threads: int
    batch_size: int | None = None
    seed: int = 0
    models: tuple[ModelJob, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    least_pairs: int = 100
    warmup_limit_s: float = 10
    time_limit_s: float | None = None
    per_operator: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    platform: str
    python: str
    numpy: str
    onnxruntime: str
    cpu_name: str | None = None
    cores_usable: int | None = None
    memory_bytes: int | None = None
    governor: str | None = None
    clock_khz_before: int | None = None
    clock_khz_after: int | None = None
    temperature_c_before: float | None = None
    temperature_c_after: float | None = None
    throttled_flags: str | None = None
    load_average: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelTimes:
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    cpu_time_p50_ms: float
    first_run_ms: float
    load_ms: float
    peak_memory_bytes: int | None
    repetitions: int
    warmup: int
    operators: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PairTimes:
    a: str
    b: str
    cpu_ratios: tuple[tuple[float, ...], ...]
    wall_ratios: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class MeasurementError:
    kind: str
    model: str | None
    message: str


@dataclass(frozen=True, kw_only=True)
class MeasurementResult:
    machine: Machine
    models: dict[str, ModelTimes]
    pairs: tuple[PairTimes, ...]
    cautions: tuple[str, ...] = ()
