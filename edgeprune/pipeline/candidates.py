"""Candidates of a budget search on disk: whole or not there, to resume a search and to pick from it later."""

from __future__ import annotations

import copy
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import safetensors.torch
from torch.fx import GraphModule

from edgeprune.artifacts.budget import Candidate
from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.artifacts.pruning import PruningPlan, RecoveryReport
from edgeprune.artifacts.report import ParityFigure
from edgeprune.errors import UsageError
from edgeprune.files import atomic_write_text

CANDIDATES_FOLDER = "candidates"
RECORD_NAME = "candidate.json"
_STATE_NAME = "recovered.safetensors"
_BASELINE_NAME = "original.json"

_Record = TypeVar("_Record", "StoredCandidate", "Baseline")


@dataclass(frozen=True, kw_only=True)
class StoredCandidate:
    """All that is known of a candidate but its weights; ``level``: the cut that its ranking was made for."""

    aim: float
    level: float
    figures: Candidate
    plan: PruningPlan
    recovery: RecoveryReport
    parity: tuple[ParityFigure, ...]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What was measured before the first candidate: a search that goes on must reckon with the same."""

    original: Candidate
    cpu_ms: float
    layer_tables: dict[str, tuple[tuple[float, ...], ...]]


class CandidateStore:
    """One folder a candidate, ``candidate-1`` and on, below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def baseline(self) -> Baseline | None:
        """What an earlier run measured of the original.

        Raises:
            UsageError: the record is damaged.
        """
        path = self.folder / _BASELINE_NAME
        return _read(Baseline, path) if path.exists() else None

    def keep_baseline(self, found: Baseline) -> None:
        """Write it down."""
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(self.folder / _BASELINE_NAME, json.dumps(to_jsonable(found), indent=1) + "\n")

    def find(self, number: int, aim: float) -> StoredCandidate | None:
        """The candidate of that number, if it is there and was built for that aim.

        Raises:
            UsageError: its record is damaged.
        """
        path = self._place(number) / RECORD_NAME
        if not path.exists():
            return None
        found = read_record(path)
        return found if found.aim == aim else None

    @contextmanager
    def building(self, number: int) -> Iterator[Path]:
        """A hidden folder to fill; it becomes the candidate's when the block succeeds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        staging = self.folder / f".{secrets.token_hex(6)}.tmp"
        staging.mkdir()
        try:
            yield staging
            place = self._place(number)
            if place.exists():
                shutil.rmtree(place)
            staging.rename(place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def state_into(self, number: int, bare: GraphModule) -> GraphModule:
        """A copy of the pruned graph with the candidate's recovered weights."""
        recovered = copy.deepcopy(bare)
        recovered.load_state_dict(safetensors.torch.load_file(self._place(number) / _STATE_NAME))
        return recovered

    def deliver(self, folder: Path) -> None:
        """Copy every candidate below ``folder``, without what only resuming needs."""
        for place in sorted(self.folder.glob("candidate-*")):
            shutil.copytree(
                place, folder / CANDIDATES_FOLDER / place.name, ignore=shutil.ignore_patterns(_STATE_NAME)
            )

    def _place(self, number: int) -> Path:
        return self.folder / f"candidate-{number}"


def write_record(found: StoredCandidate, recovered: GraphModule, folder: Path) -> None:
    """The record and the recovered weights of one candidate."""
    state = {k: v.detach().contiguous().clone() for k, v in recovered.state_dict().items()}
    safetensors.torch.save_file(state, folder / _STATE_NAME)
    atomic_write_text(folder / RECORD_NAME, json.dumps(to_jsonable(found), indent=1) + "\n")


def read_record(path: Path) -> StoredCandidate:
    """What :func:`write_record` wrote.

    Raises:
        UsageError: it is no record, or a damaged one.
    """
    return _read(StoredCandidate, path)


def _read(kind: type[_Record], path: Path) -> _Record:
    try:
        return from_jsonable(kind, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{str(path)!r} is no record of a search, or damaged ({error}); delete its folder to begin anew"
        ) from error
