"""Environment variables that set options."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgeprune.showing import did_you_mean

PREFIX = "EDGEPRUNE_"
ONLY_ON_THE_COMMAND_LINE = frozenset(
    {
        "trust_pickle",
        "known_hosts",
        "overwrite",
        "resume",
        "dry_run",
        "init",
        "as_json",
        "verbose",
        "quiet",
        "graph",
        "help",
    }
)
_OTHERS = frozenset({"EDGEPRUNE_RESEARCH_DATA", "EDGEPRUNE_PYTHON"})
"""Variables of that form that are no options: of the benchmarks, and of what runs on a device."""

_NEAR = 0.8
"""Of names whose first ten letters are the same."""


def environment_name(field: str) -> str | None:
    """Environment variable of an option; ``None`` if there is none."""
    return None if field in ONLY_ON_THE_COMMAND_LINE else f"{PREFIX}{field.upper()}"


def is_settable(param: Any) -> bool:
    """Whether a parameter of a command is an option that a file and the environment may set."""
    return param.param_type_name == "option" and param.name not in ONLY_ON_THE_COMMAND_LINE


def variable_behind(context: Any, message: str) -> str | None:
    """The environment variable that gave the value which a message refuses; ``None`` for another source."""
    for param in context.command.params:
        name = environment_name(param.name) if is_settable(param) else None
        source = context.get_parameter_source(param.name)
        if name is None or source is None or source.name != "ENVIRONMENT":
            continue
        given = os.environ.get(name, "")
        shown = "|".join(map(re.escape, param.opts))
        refused = rf"(^| )({shown})( \S+)? (was|were) given|Invalid value for '({shown})'"
        if re.search(refused, message) or any(repr(each) in message for each in {given, *given.split()}):
            return name
    return None


def unknown_variables(command: Any, variables: Mapping[str, str]) -> Iterator[str]:
    """Warnings for variables that have the form of an option's and set none of ``command`` or those below."""
    own = sorted(name for name in variables if name.startswith(PREFIX) and name not in _OTHERS)
    if not own:
        return
    known = sorted(set(_variables(command)))
    for name in own:
        if name.removeprefix(PREFIX).lower() in ONLY_ON_THE_COMMAND_LINE:
            yield f"the environment variable {name} is ignored: only the command line sets that option"
        elif name not in known:
            hint = did_you_mean(name, known, cutoff=_NEAR).strip()
            ignored = f"the environment variable {name} is ignored, since no command has such an option"
            yield f"{ignored}; {hint}" if hint else ignored


def _variables(command: Any) -> Iterator[str]:
    for param in command.params:
        name = environment_name(param.name) if is_settable(param) else None
        if name is not None:
            yield name
    for below in getattr(command, "commands", {}).values():
        yield from _variables(below)
