"""The cells of a sweep: which there are, the options of each, and what identifies its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from edgeprune.artifacts.choices import HOST
from edgeprune.artifacts.quantization import Precision
from edgeprune.caching.keys import surroundings
from edgeprune.commands.run.checks import read_by
from edgeprune.errors import TargetError, UsageError
from edgeprune.options.runs import CompressOptions
from edgeprune.options.sweep.sweep_file import SweepBudget, SweepModel, SweepPlan
from edgeprune.showing import first_few
from edgeprune.storage.files import sha256_file
from edgeprune.targets import load_target

_NOT_DECIDING = frozenset(
    {"output", "overwrite", "resume", "command", "cache", "workers", "executor", "ray_address"}
)
"""Options that do not change what a cell delivers."""
_NAMES_TOLD = 8


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One compression of a sweep; ``key`` identifies its result, by inputs, options and versions."""

    name: str
    model: str
    target: str
    budget: str
    precision: Precision
    options: CompressOptions
    key: str

    @property
    def measures(self) -> bool:
        """Whether times that are measured here decide, so that nothing may run beside it."""
        return self.target == HOST


def cells_of(plan: SweepPlan, command: str) -> tuple[Cell, ...]:
    """All cells, models outermost, in the order of the file.

    Raises:
        TargetError: a target is unknown or malformed.
        UsageError: options of ``compress`` contradict each other.
    """
    names = {given: _target_name(plan, given) for given in plan.targets}
    hashes = _Hashes()
    made = []
    for model, target, budget, precision in product(plan.models, plan.targets, plan.budgets, plan.precisions):
        asked = _options(plan, model, budget, target, precision, command)
        made.append(
            Cell(
                name=f"{model.name}_{names[target]}_{budget.name}_{precision.value}",
                model=model.name,
                target=names[target],
                budget=budget.name,
                precision=asked.stored_in,
                options=asked,
                key=_key(asked, hashes),
            )
        )
    return tuple(made)


def _target_name(plan: SweepPlan, given: str) -> str:
    try:
        return load_target(given).name
    except TargetError as error:
        raise TargetError(f"the sweep file {str(plan.source)!r} has 'targets': {error}") from error


def only(cells: tuple[Cell, ...], pattern: str | None) -> tuple[Cell, ...]:
    """The cells whose names a pattern such as ``*_rpi4_*`` fits; all without one.

    Raises:
        UsageError: it fits none.
    """
    if pattern is None:
        return cells
    found = tuple(cell for cell in cells if fnmatchcase(cell.name, pattern))
    if not found:
        names = first_few([cell.name for cell in cells], _NAMES_TOLD)
        raise UsageError(
            f"no cell is called {pattern!r} (--only); accepted is a pattern such as '*_rpi4_*', and there "
            f"are {names}"
        )
    return found


def in_turn(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """The cells with those of different models taking turns.

    Cells of one model wait for each other's ranking, those of different ones do not.
    """
    by_model: dict[str, list[Cell]] = {}
    for cell in cells:
        by_model.setdefault(cell.model, []).append(cell)
    longest = max(map(len, by_model.values()), default=0)
    rounds = ([own[i] for own in by_model.values() if i < len(own)] for i in range(longest))
    return tuple(cell for each in rounds for cell in each)


def _options(
    plan: SweepPlan,
    model: SweepModel,
    budget: SweepBudget,
    target: str,
    precision: Precision,
    command: str,
) -> CompressOptions:
    common = {f.name: getattr(plan.settings, f.name) for f in fields(plan.settings)}
    own = {f.name: getattr(model, f.name) for f in fields(model) if f.name != "name"}
    # Without ratio and limits 32 bits are the default search, which tries 8 bits, too (docs/sweep.md).
    stored = None if precision is Precision.FP32 else precision
    asked: dict[str, Any] = {"target": target, "precision": stored, "command": command}
    return CompressOptions(**common, **own, ratio=budget.ratio, budget=budget.budget, **asked)


class _Hashes:
    """Hashes of inputs, each computed once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, given: str) -> str:
        """Of a file's bytes, or of the names, sizes and times of a folder's files; a name is itself."""
        if given not in self._known:
            self._known[given] = _hash(given)
        return self._known[given]


def _hash(given: str) -> str:
    place = Path(given.rpartition(":")[0] or given) if not Path(given).exists() else Path(given)
    if place.is_file():
        return sha256_file(place)
    if not place.is_dir():
        return given
    listing = hashlib.sha256()
    for line in _listed(place):
        listing.update(line.encode(errors="surrogateescape"))
    return listing.hexdigest()


def _listed(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            yield f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}\n"


def _key(options: CompressOptions, hashes: _Hashes) -> str:
    """SHA-256 of everything that decides what a cell delivers."""
    words = {f.name: f"{getattr(options, f.name)!r}" for f in fields(options) if f.name not in _NOT_DECIDING}
    inputs = {what: hashes.of(str(path)) for what, path in read_by(options).items() if path is not None}
    parts = {**words, "inputs": inputs, "profile": repr(load_target(options.target)), **surroundings()}
    return digest_of(parts)


def digest_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of what decides a result, in hexadecimal; it does not depend on the order of the names."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
