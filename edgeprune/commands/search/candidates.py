"""Candidates of a budget search on disk, written atomically, to resume the search or pick from it later."""

from __future__ import annotations

import copy
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
from torch.fx import GraphModule

from edgeprune.artifacts.codec import to_jsonable
from edgeprune.commands.run.state import Pruned
from edgeprune.commands.search.candidate_records import (
    CANDIDATES_FOLDER,
    FINETUNED_NAME,
    ONLY_TO_RESUME,
    RECORD_NAME,
    RECOVERED_NAME,
    Baseline,
    StoredCandidate,
    damaged,
    read_baseline,
    read_record,
)
from edgeprune.errors import ModelLoadError, UsageError
from edgeprune.loading.weights import put_weights
from edgeprune.storage import records
from edgeprune.storage.documents import UnreadableError
from edgeprune.storage.files import atomic_write_bytes

_BASELINE_NAME = "original.json"


class CandidateStore:
    """One folder per candidate below ``folder``, from ``candidate-1`` on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def baseline(self) -> Baseline | None:
        """Measurements of the original by an earlier run, if any.

        Raises:
            UsageError: the record is damaged.
        """
        path = self.folder / _BASELINE_NAME
        return read_baseline(path) if path.exists() else None

    def keep_baseline(self, baseline: Baseline) -> None:
        """Store the baseline."""
        self.folder.mkdir(parents=True, exist_ok=True)
        records.write_record(self.folder / _BASELINE_NAME, to_jsonable(baseline), indent=1)

    def find(self, number: int) -> StoredCandidate | None:
        """The stored candidate of that number, if any.

        Raises:
            UsageError: its record or another of its files is damaged.
        """
        path = self._place(number) / RECORD_NAME
        if not path.exists():
            return None
        candidate = read_record(path)
        try:
            records.check_files(path)
        except UnreadableError as error:
            raise damaged(path, error) from error
        return candidate

    @contextmanager
    def building(self, number: int) -> Iterator[Path]:
        """A hidden folder to fill; renamed to the candidate's folder when the block succeeds."""
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

    def restored(self, number: int, bare: GraphModule, stored: StoredCandidate) -> Pruned:
        """The candidate's networks: the pruned graph before recovery, with the stored weights."""

        def with_weights(name: str) -> GraphModule:
            network = copy.deepcopy(bare)
            try:
                put_weights(network, self._place(number) / name)
            except ModelLoadError as error:
                raise UsageError(f"{error}; delete its folder to begin anew") from error
            return network

        trained = (self._place(number) / FINETUNED_NAME).exists()
        return Pruned(
            bare=bare,
            recovered=with_weights(RECOVERED_NAME),
            recovery=stored.recovery,
            parity=stored.parity,
            finetuned=with_weights(FINETUNED_NAME) if trained else None,
            distillation=stored.distillation,
            notes=stored.notes,
        )

    def deliver(self, folder: Path) -> None:
        """Copy every candidate below ``folder``, without the files needed only to resume."""
        for place in sorted(self.folder.glob("candidate-*")):
            left_out = shutil.ignore_patterns(*ONLY_TO_RESUME)
            shutil.copytree(place, folder / CANDIDATES_FOLDER / place.name, ignore=left_out)

    def place_of(self, name: str) -> Path:
        """Folder of the candidate with this name."""
        return self.folder / name.replace(" ", "-")

    def _place(self, number: int) -> Path:
        return self.place_of(candidate_name(number))


def candidate_name(number: int) -> str:
    """Name of the candidate of that number."""
    return f"candidate {number}"


def write_record(candidate: StoredCandidate, pruned: Pruned, folder: Path) -> None:
    """Write a candidate's weights before and after training, and the record of all files in ``folder``."""
    for name, module in ((RECOVERED_NAME, pruned.recovered), (FINETUNED_NAME, pruned.finetuned)):
        if module is not None:
            state = {k: v.detach().contiguous().clone() for k, v in module.state_dict().items()}
            atomic_write_bytes(folder / name, safetensors.torch.save(state))
    files = tuple(sorted(path for path in folder.iterdir() if path.is_file()))
    records.write_record(folder / RECORD_NAME, to_jsonable(candidate), files=files, indent=1)
