"""Criteria by name: built-in ones and those of other packages, loaded from entry points."""

from __future__ import annotations

import functools
import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.showing import did_you_mean
from edgeprune.system.imports import UserFunction, user_code

if TYPE_CHECKING:
    from edgeprune.importance.base import Criterion

ENTRY_POINT_GROUP = "edgeprune.criteria"

_BUILT_IN = {
    "hybrid": ("hybrid", "Hybrid"),
    "layer-shapley": ("layer_shapley", "LayerShapley"),
    "random": ("chance", "Random"),
    "l1": ("magnitude", "L1"),
    "l2": ("magnitude", "L2"),
    "bn-scale": ("batch_norm", "BatchNormScale"),
    "fpgm": ("geometric_median", "Fpgm"),
    "apoz": ("zeros", "Apoz"),
    "taylor": ("taylor", "Taylor"),
    "taylor-abs": ("taylor", "TaylorAbsolute"),
    "taylor-squared": ("taylor", "TaylorSquared"),
    "leave-one-out": ("leave_one_out", "LeaveOneOut"),
    "greedy-leave-one-out": ("greedy", "GreedyLeaveOneOut"),
    "activation-weight": ("activation_weight", "ActivationWeight"),
    "reconstruction-residual": ("residual", "ReconstructionResidual"),
}
"""Module and class by name; imported when asked for, so that names alone cost nothing."""


SPREAD = ("hybrid", "layer-shapley")
"""Criteria whose passes workers can share."""

BUILT_IN_NAMES = tuple(_BUILT_IN)
"""In the order in which they are told."""


def criterion_names() -> tuple[str, ...]:
    """Every name that ``criterion`` accepts: built-in ones first, then plug-ins in alphabetical order.

    Raises:
        UsageError: two plug-ins, or a plug-in and a built-in criterion, have the same name.
    """
    return (*_BUILT_IN, *plug_ins())


def criterion(name: str) -> Criterion:
    """The criterion of this name; ``path/to/file.py:NAME`` or ``package.module:NAME`` is the user's own.

    Raises:
        UsageError: there is none, two claim the name, or the plug-in cannot be imported or is no criterion.
    """
    if ":" in name:
        return _of_a_file(name)
    plugins = plug_ins()
    if name in _BUILT_IN:
        module, kind = _BUILT_IN[name]
        built_in: Criterion = getattr(
            importlib.import_module(f"edgeprune.importance.criteria.{module}"), kind
        )()
        return built_in
    if name in plugins:
        return _load(plugins[name])
    known = criterion_names()
    near = did_you_mean(name.lower(), known, cutoff=0.5)
    hint = f"{near}Accepted are" if near else "accepted are"
    raise UsageError(
        f"there is no criterion {name!r}; {hint} {', '.join(known)}, or path/to/file.py:NAME of your own"
    )


@functools.cache
def plug_ins() -> dict[str, metadata.EntryPoint]:
    """Entry points of plug-ins by name, not imported yet."""
    entries: dict[str, metadata.EntryPoint] = {}
    for entry in sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name):
        other = "edgeprune" if entry.name in _BUILT_IN else None
        if entry.name in entries:
            other = _package(entries[entry.name])
        if other is not None:
            raise UsageError(
                f"the criterion {entry.name!r} of {_package(entry)} has the name of one of {other}; accepted "
                "are names of their own: rename or uninstall that plug-in"
            )
        entries[entry.name] = entry
    return entries


def _load(entry: metadata.EntryPoint) -> Criterion:
    where = f"the criterion {entry.name!r} of {_package(entry)}"
    with user_code(f"{where}, imported,", UsageError, "correct or uninstall that package"):
        loaded = entry.load()
        made: Any = loaded() if callable(loaded) else loaded
    _check_parts(made, where)
    if made.name != entry.name:
        raise UsageError(
            f"{where} calls itself {made.name!r}; the entry point and the criterion need the same name"
        )
    result: Criterion = made
    return result


def is_ours(candidate: Criterion) -> bool:
    """Whether a criterion comes with edgeprune."""
    return type(candidate).__module__.startswith("edgeprune.importance.criteria.")


def is_spread(candidate: Criterion) -> bool:
    """Whether workers can share the passes of a criterion."""
    return is_ours(candidate) and candidate.name in SPREAD


def _of_a_file(spec: str) -> Criterion:
    made: Any = UserFunction(spec, what="criterion", error=UsageError)()
    _check_parts(made, f"the criterion {spec!r}")
    result: Criterion = made
    return result


def _check_parts(made: Any, where: str) -> None:
    missing = [part for part in ("name", "summary", "passes", "score") if not hasattr(made, part)]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(missing)}; see edgeprune.importance.base.Criterion")


def _package(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown package"
