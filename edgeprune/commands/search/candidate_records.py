"""Stored records of candidates; readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgeprune.artifacts.budget import Candidate
from edgeprune.artifacts.codec import from_jsonable
from edgeprune.artifacts.pruning import DistillationReport, PruningPlan, RecoveryReport
from edgeprune.artifacts.report import ParityFigure, QuantizationSection
from edgeprune.errors import UsageError
from edgeprune.storage import records
from edgeprune.storage.documents import UnreadableError

CANDIDATES_FOLDER = "candidates"
RECORD_NAME = "candidate.json"
RECOVERED_NAME = "recovered.safetensors"
FINETUNED_NAME = "finetuned.safetensors"
ONLY_TO_RESUME = frozenset({RECOVERED_NAME, FINETUNED_NAME})
"""Files of a candidate that are not delivered."""

_Record = TypeVar("_Record", "StoredCandidate", "Baseline")


@dataclass(frozen=True, kw_only=True)
class StoredCandidate:
    """Everything stored about a candidate except its weights."""

    figures: Candidate
    plan: PruningPlan
    recovery: RecoveryReport
    parity: tuple[ParityFigure, ...]
    distillation: DistillationReport | None = None
    dropped: tuple[str, ...] = ()
    quantization: QuantizationSection | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Measurements made before the first candidate; a resumed search must use the same ones.

    ``stored`` is the original in the requested precision; ``None`` for 32 bits.
    """

    original: Candidate
    stored: Candidate | None
    cpu_ms: float
    layer_tables: dict[str, tuple[tuple[float, ...], ...]]


def read_record(path: Path) -> StoredCandidate:
    """Read the record of a candidate.

    Raises:
        UsageError: it is no record, or a damaged one.
    """
    return _read(StoredCandidate, path)


def read_baseline(path: Path) -> Baseline:
    """Read the measurements of the original.

    Raises:
        UsageError: it is no record, or a damaged one.
    """
    return _read(Baseline, path)


def _read(kind: type[_Record], path: Path) -> _Record:
    try:
        return from_jsonable(kind, records.read_record(path))
    except (UnreadableError, ValueError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UsageError:
    """The error for a file that is no valid record."""
    return UsageError(
        f"{str(path)!r} is no record of a search, or damaged ({error}); delete its folder to begin anew"
    )
