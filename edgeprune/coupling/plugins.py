"""Coupling rules of other packages for their own ops, loaded from entry points."""

from __future__ import annotations

import functools
from importlib import metadata

from edgeprune.coupling.rules.table import RULES
from edgeprune.errors import UsageError
from edgeprune.system.imports import user_code

ENTRY_POINT_GROUP = "edgeprune.rules"


@functools.cache
def load_rule_plugins() -> tuple[str, ...]:
    """Import every module that installed packages name under ``edgeprune.rules``; returns their names.

    Importing registers the rules, once per process.

    Raises:
        UsageError: a plug-in cannot be imported; says which, and from which package.
    """
    names = []
    for entry in sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name):
        package = entry.dist.name if entry.dist is not None else "an unknown package"
        where = f"the coupling rules {entry.name!r} of {package}, imported,"
        with user_code(where, UsageError, "correct or uninstall that package"):
            entry.load()
        names.append(entry.name)
    return tuple(names)


def ruled_operators() -> frozenset[str]:
    """Ops of other packages (``namespace::op``) that have a rule, including rules of plug-ins.

    Raises:
        UsageError: see :func:`load_rule_plugins`.
    """
    load_rule_plugins()
    return frozenset(name for name in RULES if "::" in name)
