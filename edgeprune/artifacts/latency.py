"""Data types that profiling produces; every time has its provenance."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum


class Provenance(Enum):
    """How a figure was obtained; printed beside every millisecond."""

    MEASURED_ON_HOST = "measured on this host"
    MEASURED_ON_TARGET = "measured on target"
    PREDICTED = "predicted"


@dataclass(frozen=True, kw_only=True)
class OperatorShare:
    """Share of a model's time that one kind of operator takes, in [0, 1]."""

    op_type: str
    share: float


@dataclass(frozen=True, kw_only=True)
class LatencyMeasurement:
    """Wall-clock latency of one batch with onnxruntime; ``None`` is what was not measured.

    Runs are of ``processes`` fresh ones together. ``trusted``: nothing speaks against these times; where it
    is false, ``caution`` says what does.
    """

    provenance: Provenance
    latency_p50_ms: float
    latency_p90_ms: float
    cpu_time_p50_ms: float
    repetitions: int
    warmup: int
    threads: int
    batch_size: int
    runtime: str
    machine: str
    latency_p99_ms: float | None = None
    first_run_ms: float | None = None
    load_ms: float | None = None
    operators: tuple[OperatorShare, ...] = ()
    processes: int = 1
    trusted: bool = True
    caution: str | None = None


@dataclass(frozen=True, kw_only=True)
class LatencyRatio:
    """CPU time of B over A from interleaved pairs in one process: median and bootstrap interval.

    ``trusted`` and ``caution`` as of a :class:`LatencyMeasurement`.
    """

    ratio: float
    low: float
    high: float
    confidence: float
    pairs: int
    threads: int
    provenance: Provenance = Provenance.MEASURED_ON_HOST
    trusted: bool = True
    caution: str | None = None


@dataclass(frozen=True, kw_only=True)
class PredictedKind:
    """Predicted time of all nodes of one kind in one precision."""

    kind: str
    nodes: int
    in_8_bits: bool
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class LatencyPrediction:
    """Prediction for a device: ``low_ms`` and ``high_ms`` are the stated error band.

    ``coverage``: share of models that the band is to hold; ``None`` where it was not measured. ``kinds``: the
    longest first. ``memory_bytes``: weights and the most that calculated values take at once, without the
    runtime itself; ``fits`` says whether that is less than the device has. ``energy_mj``: an estimate, the
    board's power with all cores busy times the latency. What is not known is ``None``.
    """

    provenance: Provenance
    target: str
    latency_ms: float
    low_ms: float
    high_ms: float
    compute_bound_share: float
    basis: str
    coverage: float | None = None
    kinds: tuple[PredictedKind, ...] = ()
    memory_bytes: int | None = None
    fits: bool | None = None
    energy_mj: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """Size, work and measured latency of one ONNX file on this host."""

    size_bytes: int
    parameters: int
    macs: int
    peak_memory_bytes: int | None
    latency: LatencyMeasurement | None


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """Wall-clock time that all nodes of one operator take in one run, measured on this host."""

    operator: str
    nodes: int
    time_ms: float


@dataclass(frozen=True, kw_only=True)
class OperatorTimes:
    """Time by operator of the original and of the delivered file, the longest first; medians over ``runs``.

    Timing single nodes takes time itself, so the sum is more than the latency.
    """

    original: tuple[OperatorTime, ...]
    compressed: tuple[OperatorTime, ...]
    runs: int
    threads: int
    provenance: Provenance = Provenance.MEASURED_ON_HOST


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """Wall-clock time of one stage."""

    stage: str
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class InstructionCounts:
    """Instructions that an aarch64 core retired, by class.

    ``float_multiply_add``: FMLA, FMADD; ``dot_product``: SDOT, UDOT, SMMLA; ``widening_multiply``: SMLAL,
    SMULL; ``other_vector``: all else of the vector and floating-point unit.
    """

    float_multiply_add: int
    dot_product: int
    widening_multiply: int
    other_vector: int
    load_store: int
    branch: int
    integer: int

    @property
    def total(self) -> int:
        """Of all classes."""
        return sum(getattr(self, name) for name in self.names())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(field.name for field in fields(cls))
