"""Results of finished stages on disk, so that an interrupted run resumes after them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
from torch.fx import GraphModule

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.artifacts.pruning import Ranking
from edgeprune.commands.run.state import Run
from edgeprune.errors import ModelLoadError, UsageError
from edgeprune.importance.journals import Journals
from edgeprune.loading.weights import put_weights
from edgeprune.storage.documents import UnreadableError
from edgeprune.storage.files import atomic_write_bytes
from edgeprune.storage.records import check_files, read_record, write_record

_log = logging.getLogger("edgeprune.commands")

_ARRAYS = ("values", "standard_errors", "removal_costs")

Report = TypeVar("Report")


@dataclass(frozen=True, kw_only=True)
class NoReport:
    """Report of a stage that returns only a network."""


def kept_ranking(
    run: Run, journals: Journals | None, ratio: float, players: int, make: Callable[[], Ranking]
) -> Ranking:
    """The ranking for a cut of ``ratio`` of the MACs and its notes: stored, or computed now and stored.

    ``players``: number of ranked players.

    Raises:
        UsageError: the file is damaged.
        OutputError: it cannot be written.
    """
    if journals is None:
        return make()
    path = journals.place(f"ranking-{ratio:g}.json", "the ranking")
    if path.exists():
        record = _read(path)
        _log.info("the ranking for a cut of %.0f%% is on file", 100 * ratio)
        try:
            ranking = ranking_of(record, players)
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(path) from error
        run.notes.extend(record["notes"])
        return ranking
    made, notes = noted(run, make)
    write_record(path, record_of(made, notes))
    return made


def record_of(ranking: Ranking, notes: list[str]) -> dict[str, Any]:
    """A ranking, and what its making added to the notes, as plain values."""
    return {"ranking": to_jsonable(ranking), "notes": notes}


def ranking_of(record: dict[str, Any], players: int) -> Ranking:
    """The ranking of a :func:`record_of`, equal in every bit.

    Raises:
        ValueError, TypeError, KeyError: it is none, or one of another number of players.
    """
    # Non-finite figures are strings in JSON.
    arrays = {n: np.array([float(v) for v in record["ranking"][n]]) for n in _ARRAYS}
    if any(len(array) != players for array in arrays.values()):
        raise ValueError("figures of another number of channels")
    return from_jsonable(Ranking, {**record["ranking"], **arrays})


def kept_network(
    run: Run,
    journals: Journals | None,
    name: str,
    bare: GraphModule,
    key: tuple[int, ...],
    kind: type[Report],
    make: Callable[[], tuple[GraphModule, Report]],
) -> tuple[GraphModule, Report]:
    """The network ``bare`` with the weights of a stage, and the stage's report: stored, or computed now.

    ``key``, the removed channels, and the options of the run determine the weights; a file with another key
    is overwritten.

    Raises:
        UsageError: a file is damaged.
        OutputError: one cannot be written.
    """
    if journals is None:
        return make()
    what = f"the {name} network"
    weights = journals.place(f"{name}.safetensors", what)
    record_path = weights.with_suffix(".json")
    if record_path.exists() and (record := _read(record_path)).get("removed") == list(key):
        _log.info("%s is on file", what)
        run.notes.extend(record["notes"])
        return _checked(bare, weights, record_path), _report(kind, record, record_path)
    record_path.unlink(missing_ok=True)
    (module, report), notes = noted(run, make)
    write_weights(module, weights)
    record = {"removed": list(key), "report": to_jsonable(report), "notes": notes}
    write_record(record_path, record, files=(weights,))
    return module, report


def noted(run: Run, make: Callable[[], Report]) -> tuple[Report, list[str]]:
    """The result of ``make``, and the notes that it added to the run."""
    before = len(run.notes)
    made = make()
    return made, run.notes[before:]


def write_weights(module: GraphModule, path: Path) -> None:
    """All tensors of a network, as :func:`with_weights` reads them.

    Raises:
        OutputError: the file cannot be written.
    """
    state = {k: v.detach().contiguous().clone() for k, v in module.state_dict().items()}
    atomic_write_bytes(path, safetensors.torch.save(state))


def with_weights(bare: GraphModule, path: Path) -> GraphModule:
    """A copy of the network with the weights of a file.

    Raises:
        ModelLoadError: they are not its own.
    """
    network = copy.deepcopy(bare)
    put_weights(network, path)
    return network


def _checked(bare: GraphModule, path: Path, record: Path) -> GraphModule:
    try:
        check_files(record)
        return with_weights(bare, path)
    except (ModelLoadError, UnreadableError) as error:
        raise _damaged(path) from error


def _report(kind: type[Report], record: dict[str, Any], path: Path) -> Report:
    try:
        return from_jsonable(kind, record["report"])
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = read_record(path)
    except UnreadableError as error:
        raise _damaged(path) from error
    notes = record.get("notes") if isinstance(record, dict) else None
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise _damaged(path)
    return record


def _damaged(path: Path) -> UsageError:
    return UsageError(
        f"{str(path)!r} is damaged, so the run cannot go on with it: delete it to make this stage anew"
    )
