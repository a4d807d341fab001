"""Ranges that fields of options accept, checked wherever the options come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_type_hints

from edgeprune import limits
from edgeprune.options.cli_option import CliOption, Limit


@dataclass(frozen=True)
class Bounds:
    """Annotation of a field with a range, where its option on the command line is declared elsewhere.

    ``optional``: whether the field may be ``None``, which its type says.
    """

    limit: Limit
    spelling: str
    optional: bool = False


Threads = Annotated[int | None, Bounds(limits.THREADS, "--threads")]
Seed = Annotated[int, Bounds(limits.SEED, "--seed")]
TimeoutS = Annotated[float, Bounds(limits.TIME_S, "timeout_s")]


def check_bounds(options: Any) -> None:
    """Check every field of an options object that states a range; ``None`` passes where it may be given.

    Raises:
        UsageError: names the option, its value and what is accepted.
    """
    for name, bounds in _bounded(type(options)):
        value = getattr(options, name)
        if value is not None or not bounds.optional:
            bounds.limit.check(bounds.spelling, value)


def bounded_fields(kind: type) -> frozenset[str]:
    """Names of the fields of an options class that state a range."""
    return frozenset(name for name, _ in _bounded(kind))


_NO_TORCH = SimpleNamespace(Module=object)
"""Annotations name torch's module class, which is slow to import."""


def _bounded(kind: type) -> tuple[tuple[str, Bounds], ...]:
    hints = get_type_hints(kind, include_extras=True, localns={"nn": _NO_TORCH})
    found = []
    for name, hint in hints.items():
        optional = type(None) in get_args(get_args(hint)[0]) if get_args(hint) else False
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, Bounds):
                found.append((name, replace(mark, optional=optional)))
            elif isinstance(mark, CliOption) and mark.limit is not None:
                found.append((name, Bounds(mark.limit, mark.spelling(name), optional)))
    return tuple(found)
