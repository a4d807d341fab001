"""What is known of a sweep: its cells, what they share, fronts and best cells (``docs/sweep.md``)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edgeprune.artifacts.latency import LatencyMeasurement, Provenance
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.quantization import Precision
from edgeprune.artifacts.report import Grade

SWEEP_SCHEMA_VERSION = "1.2"
READ_VERSIONS = ("1.0", "1.1", SWEEP_SCHEMA_VERSION)
"""1.0 is from before devices."""


class CellState(Enum):
    """How a cell ended."""

    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class StageUse:
    """A shared result that a cell needed: computed by it, or taken from the cache.

    ``duration_s`` is what computing it took: now, without other shared results, or then, with them;
    ``damaged``: an entry was there, and was made anew.
    """

    stage: str
    digest: str
    computed: bool
    duration_s: float
    damaged: bool = False


@dataclass(frozen=True, kw_only=True)
class CellFigures:
    """Figures of what a cell delivered, and of its original; ``None``: not measured.

    Qualities are of ``quality_kind`` on ``images`` held-out images, shares in [0, 1]; ``loss`` is the share
    of the original's answers that is lost, as in ``usability`` of ``report.json``. ``latency_ms`` is of one
    image on the target, of the origin that ``provenance`` says.
    """

    grade: Grade
    headline: str
    quality_kind: AccuracyKind
    quality_before: float | None
    quality: float | None
    quality_low: float | None
    quality_high: float | None
    images: int
    loss: float | None
    macs_before: int
    macs: int
    size_bytes_before: int
    size_bytes: int
    latency_ms_before: float | None
    latency_ms: float | None
    provenance: Provenance | None


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What one cell gave, with the shared results that it needed; ``duration_s`` is wall-clock time."""

    figures: CellFigures
    uses: tuple[StageUse, ...]
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class CellReport:
    """One cell: what was asked, how it ended, and its figures, or why it has none.

    ``key`` identifies what it delivers, by inputs, options and versions. ``folder`` is relative to that of
    the sweep; ``attempts`` is 0 where the result is that of an earlier session. ``on_front``: no other cell
    of the same target and kind of quality is better in quality, latency or size and not worse in another.
    """

    name: str
    key: str
    model: str
    target: str
    budget: str
    precision: Precision
    state: CellState
    attempts: int
    duration_s: float
    failure: str | None = None
    exit_status: int = 0
    folder: str | None = None
    on_front: bool = False
    figures: CellFigures | None = None


@dataclass(frozen=True, kw_only=True)
class CellOnDevice:
    """What a cell delivered, measured on a device of the sweep file, or why it was not."""

    cell: str
    device: str
    latency: LatencyMeasurement | None = None
    peak_memory_bytes: int | None = None
    failure: str | None = None
    exit_status: int = 0


@dataclass(frozen=True, kw_only=True)
class BestCell:
    """The cell of a target and a budget that keeps most quality; of equals the fastest, then the smallest."""

    target: str
    budget: str
    quality_kind: AccuracyKind
    cell: str


@dataclass(frozen=True, kw_only=True)
class SharedStage:
    """How often a stage was computed and how often taken from the cache; ``saved_s`` is what taking saved."""

    stage: str
    computed: int
    taken: int
    damaged: int
    computed_s: float
    saved_s: float


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """All cells in the order of the file, and what follows from them together.

    ``duration_s`` is the wall-clock time of the session that ended it.
    """

    schema_version: str
    created_utc: str
    source: str
    source_sha256: str
    command: str
    cells: tuple[CellReport, ...]
    best: tuple[BestCell, ...]
    shared: tuple[SharedStage, ...]
    seed: int
    threads: int
    executor: str
    max_parallel: int | None
    duration_s: float
    machine: str
    versions: dict[str, str]
    notes: tuple[str, ...]
    on_devices: tuple[CellOnDevice, ...] = ()

    @property
    def failed(self) -> tuple[CellReport, ...]:
        """Cells without a result."""
        return tuple(cell for cell in self.cells if cell.state is CellState.FAILED)

    @property
    def unmeasured(self) -> tuple[CellOnDevice, ...]:
        """Cells that a device was to measure and did not."""
        return tuple(found for found in self.on_devices if found.failure is not None)
