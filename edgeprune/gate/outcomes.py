"""What ``compare`` and ``check`` produce: models side by side, and limits that hold, fail or stay open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from edgeprune.artifacts.latency import Provenance

PASS_STATUS, FAIL_STATUS, INCONCLUSIVE_STATUS = 0, 1, 3
"""Exit statuses of ``check``; 2 is an error."""


class Metric(Enum):
    """What is compared and checked."""

    SIZE = "size"
    PARAMETERS = "parameters"
    MACS = "MACs"
    LATENCY = "latency"
    MEMORY = "memory"
    QUALITY = "quality"
    AGREEMENT = "agreement"


class Unit(Enum):
    """Unit of a value and of its limit."""

    BYTES = "bytes"
    COUNT = "count"
    MILLISECONDS = "ms"
    RATIO = "ratio"
    POINTS = "points"
    SHARE = "share"
    MEASURE = "measure"


class Decision(Enum):
    """Outcome of one check or of all."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


class OnInconclusive(Enum):
    """What an open question means for the exit status."""

    PASS = "pass"
    FAIL = "fail"
    REPORT = "report"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its ends, both ``value`` where it is exact; the unit is that of what it belongs to."""

    value: float
    low: float
    high: float

    @staticmethod
    def exact(value: float) -> Interval:
        """A value without uncertainty, such as a size."""
        return Interval.of(value, value, value)

    @staticmethod
    def of(middle: float, least: float, most: float) -> Interval:
        """A value and its ends."""
        return Interval(value=middle, low=least, high=most)

    @property
    def is_exact(self) -> bool:
        """Whether both ends are the value."""
        return self.low == self.value == self.high


@dataclass(frozen=True, kw_only=True)
class RoundsRatio:
    """CPU time of B over A, one value a round, each in new sessions.

    ``low`` holds with 99% and ``high`` with 95% confidence, each by itself and at any number of rounds
    (``edgeprune/gate/sequential.py``); ``high`` is infinite before there is one. ``decision`` is against
    ``limit``.
    """

    ratio: float
    low: float
    high: float
    limit: float
    rounds: int
    pairs: int
    threads: int
    duration_s: float
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class QualityFacts:
    """Accuracy or task measure of a model on held-out images; ``measure`` is its name in a report.

    ``lost`` are the percentage points lost against the original network, paired by image where answers were
    counted.
    """

    measure: str
    is_share: bool
    is_error: bool
    figure: Interval
    images: int
    lost: Interval | None
    paired: bool


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of one model that is compared: a folder, a report or an ONNX file.

    ``latency_ms`` has the error band of a prediction as its ends. ``agreement`` is the share of the
    original's answers that it still gives: of the right ones where labels are known.
    """

    name: str
    size_bytes: int
    parameters: int
    macs: int
    memory_bytes: int | None
    latency_ms: Interval | None
    latency_of: str
    provenance: Provenance | None
    quality: QualityFacts | None
    agreement: Interval | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of a model against the first: a ratio, or percentage points; ``basis`` says from what."""

    metric: Metric
    unit: Unit
    change: Interval
    basis: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Models side by side; ``differences`` of the second and all later ones are against the first.

    Of sweeps it has ``cells`` alone.
    """

    models: tuple[ModelFacts, ...]
    differences: tuple[tuple[Difference, ...], ...]
    notes: tuple[str, ...] = ()
    cells: tuple[CellComparison, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CellComparison:
    """A cell of a later ``sweep`` beside the cell of this name in the first; ``missing``: why not."""

    sweep: str
    name: str
    comparison: Comparison | None
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit and what was found: ``most`` if the value must not be above the limit, else not below.

    ``rounds`` are what was measured for it now, if anything was.
    """

    key: str
    metric: Metric
    unit: Unit
    found: Interval
    limit: float
    most: bool
    decision: Decision
    basis: str
    rounds: RoundsRatio | None = None


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Every check of a model, and what they come to; of a sweep it has the results of its ``cells``."""

    subject: str
    baseline: str | None
    checks: tuple[Check, ...]
    on_inconclusive: OnInconclusive
    notes: tuple[str, ...] = ()
    cells: tuple[CellGate, ...] = ()

    @property
    def decision(self) -> Decision:
        """Failed if any check or cell failed, passed if all passed, else inconclusive."""
        decisions = {check.decision for check in self.checks} | {cell.decision for cell in self.cells}
        worst = (Decision.FAILED, Decision.INCONCLUSIVE)
        return next((decision for decision in worst if decision in decisions), Decision.PASSED)

    @property
    def exit_status(self) -> int:
        """0 pass, 1 fail, 3 inconclusive, or what ``on_inconclusive`` makes of that."""
        if self.decision is Decision.PASSED:
            return PASS_STATUS
        if self.decision is Decision.FAILED:
            return FAIL_STATUS
        return {
            OnInconclusive.PASS: PASS_STATUS,
            OnInconclusive.FAIL: FAIL_STATUS,
            OnInconclusive.REPORT: INCONCLUSIVE_STATUS,
        }[self.on_inconclusive]

    def of(self, decision: Decision) -> tuple[Check, ...]:
        """The checks of one outcome, those of cells among them."""
        every = (*self.checks, *(check for cell in self.cells for check in cell.checks))
        return tuple(check for check in every if check.decision is decision)


@dataclass(frozen=True, kw_only=True)
class CellGate:
    """One cell of a sweep in the gate; one that is ``missing``, with the reason, has failed."""

    name: str
    result: GateResult | None
    missing: str = ""

    @property
    def decision(self) -> Decision:
        """That of its checks."""
        return Decision.FAILED if self.result is None else self.result.decision

    @property
    def checks(self) -> tuple[Check, ...]:
        """Its checks; none where it is missing."""
        return () if self.result is None else self.result.checks


@dataclass(frozen=True, kw_only=True)
class GateLimits:
    """Limits of ``check``; ``None`` leaves one out.

    Ratios and ``max_drop_points`` are against the baseline, or without one against the original network of
    the report.
    """

    max_size_bytes: int | None = None
    max_size_ratio: float | None = None
    max_latency_ms: float | None = None
    max_latency_ratio: float | None = None
    max_memory_bytes: int | None = None
    max_memory_ratio: float | None = None
    max_drop_points: float | None = None
    max_error: float | None = None
    min_measure: float | None = None
    min_agreement: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return self == GateLimits()


@dataclass(frozen=True, kw_only=True)
class LimitKind:
    """What a field of :class:`GateLimits` limits; ``most`` as in :class:`Check`."""

    metric: Metric
    unit: Unit
    most: bool = True


LIMIT_KINDS: Mapping[str, LimitKind] = MappingProxyType(
    {
        "max_size_bytes": LimitKind(metric=Metric.SIZE, unit=Unit.BYTES),
        "max_size_ratio": LimitKind(metric=Metric.SIZE, unit=Unit.RATIO),
        "max_latency_ms": LimitKind(metric=Metric.LATENCY, unit=Unit.MILLISECONDS),
        "max_latency_ratio": LimitKind(metric=Metric.LATENCY, unit=Unit.RATIO),
        "max_memory_bytes": LimitKind(metric=Metric.MEMORY, unit=Unit.BYTES),
        "max_memory_ratio": LimitKind(metric=Metric.MEMORY, unit=Unit.RATIO),
        "max_drop_points": LimitKind(metric=Metric.QUALITY, unit=Unit.POINTS),
        "max_error": LimitKind(metric=Metric.QUALITY, unit=Unit.MEASURE),
        "min_measure": LimitKind(metric=Metric.QUALITY, unit=Unit.MEASURE, most=False),
        "min_agreement": LimitKind(metric=Metric.AGREEMENT, unit=Unit.SHARE, most=False),
    }
)

BASELINE_LIMITS = GateLimits(
    max_size_ratio=1.02, max_latency_ratio=1.05, max_memory_ratio=1.10, max_drop_points=1.0
)
"""Limits where a baseline is given and no budget."""
