"""Option values from environment variables and ``edgeprune.toml``.

Precedence is command line, environment, file, default; the parser keeps that order and knows the source of
each value. Options that decide what is trusted, replaced or only shown are taken from the command line alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from edgeprune.cli.process import settings
from edgeprune.cli.process.variables import environment_name, is_settable
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.options.keywords import keywords_text
from edgeprune.options.project_file import FOLDER_PREFIX, ProjectConfig, beside, find_config, load_config
from edgeprune.showing import in_short
from edgeprune.storage.tables import unknown_key

_PATHS = frozenset({"cache", "calibration", "labels", "ranking", "output", "baseline", "identity"})
"""Options whose paths in a file count from its folder."""
_SIZES = frozenset({"resize", "crop", "letterbox"})
"""Options that may be height x width."""
_CODE = ".py:"
"""Marks values that name code in a file, whose path is relative to that folder, too."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """An option with its value as text, and the source of the value."""

    option: str
    value: str
    source: str


def take_file(context: typer.Context, model: Any) -> Any:
    """Take defaults of options from the project file beside ``model``; return ``model``.

    Called by the parser before it looks at any option.

    Raises:
        UsageError: the file is malformed, or has an unknown key or a value that is not accepted.
    """
    path = find_config(settings.project_folder(str(model)))
    if path is not None:
        table = load_config(path).commands.get(context.info_name or "", {})
        context.default_map = {
            **(context.default_map or {}), **_defaults(context, path, table)
        }  # fmt: skip
    return model


def _defaults(context: typer.Context, path: Path, table: dict[str, Any]) -> dict[str, Any]:
    known = {p.name.replace("_", "-"): p for p in context.command.params if is_settable(p)}
    where = f"project file {str(path)!r}: [{context.info_name}]"
    defaults: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where} {unknown_key(key, key, sorted(known))}")
        param: Any = known[key]
        text = _text(value, path, is_path=param.name in _PATHS)
        if isinstance(text, list) and not param.multiple:
            text = ",".join(text)
        try:
            param.process_value(context, text)
        except EdgepruneError as error:
            raise UsageError(f"{where} {key} is {in_short(value)}, but {error}") from error
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            reason = plain_reason(error.format_message())
            raise UsageError(f"{where} {key} is {in_short(value)}: {reason}") from error
        defaults[param.name] = text
    return defaults


def plain_reason(message: str) -> str:
    """A message of the parser without the prefix that its checks add."""
    return message.replace("Value error, ", "")


def _text(value: Any, path: Path, *, is_path: bool) -> Any:
    """A TOML value as text of the command line."""
    if isinstance(value, list):
        return [_text(item, path, is_path=is_path) for item in value]
    if isinstance(value, str):
        return beside(path, value) if is_path or _CODE in value or value.startswith(FOLDER_PREFIX) else value
    return str(value)


def settings_of(context: Any, config: ProjectConfig) -> tuple[Setting, ...]:
    """Every option of a parsed command with its value and where it comes from."""
    return tuple(_setting(context, param, config) for param in context.command.params if is_settable(param))


def _setting(context: Any, param: Any, config: ProjectConfig) -> Setting:
    option, value = max(param.opts, key=len), context.params.get(param.name)
    source = context.get_parameter_source(param.name).name
    words = {
        "COMMANDLINE": "command line",
        "ENVIRONMENT": f"environment ({environment_name(param.name)})",
        "DEFAULT_MAP": f"{config.source} [{context.info_name}]",
    }.get(source)
    shared = config.shared(param.name)
    if words is None and shared is not None:
        value, words = shared, str(config.source)
    shown = "" if value is None else getattr(value, "value", value)
    if isinstance(shown, dict):
        shown = keywords_text(shown)
    if isinstance(shown, (list, tuple)):
        shown = ("x" if param.name in _SIZES else ",").join(map(str, shown))
    return Setting(option=option, value=str(shown), source=words or "default")
