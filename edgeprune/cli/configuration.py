"""``edgeprune init`` and ``edgeprune config show``; the reference of all options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from edgeprune.cli.process import settings
from edgeprune.cli.process.session import Session, begin, show, show_json
from edgeprune.cli.process.sources import settings_of
from edgeprune.cli.process.variables import environment_name, is_settable
from edgeprune.cli.shared import options as opt
from edgeprune.errors import OutputError, UsageError
from edgeprune.options.project_file import (
    COMMAND_TABLES,
    CONFIG_NAME,
    SHARED_KEYS,
    ProjectConfig,
    find_config,
    load_config,
)
from edgeprune.showing import did_you_mean, for_people
from edgeprune.storage.files import atomic_write_bytes

config_app = typer.Typer(
    cls=opt.Group, no_args_is_help=True, help="What a command would run with, and where that is from."
)

Command = Annotated[str, typer.Argument(metavar="COMMAND", help=f"One of {', '.join(COMMAND_TABLES)}.")]
Arguments = Annotated[
    list[str], typer.Argument(metavar="MODEL [OPTIONS]", help="The model and options, as for that command.")
]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the model.")]


@config_app.command("show", cls=opt.Command, context_settings={"ignore_unknown_options": True})
def show_command(
    context: typer.Context,
    command: Command,
    arguments: Arguments,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Show every option of a command, its value and where it comes from; runs nothing."""
    session = begin(context, verbose, quiet)
    chosen = _commands().get(command)
    if chosen is None:
        hint = did_you_mean(command, COMMAND_TABLES)
        raise UsageError(
            f"there is no command {command!r} with options to configure; {hint}accepted are "
            f"{', '.join(COMMAND_TABLES)}"
        )
    with chosen.make_context(command, list(arguments), obj=session) as parsed:
        model = parsed.params.get("model") or parsed.params.get("first")
        path = find_config(settings.project_folder(str(model)))
        config = ProjectConfig() if path is None else load_config(path)
        rows = for_people(settings_of(parsed, config))
    if as_json:
        return show_json(rows)
    from edgeprune.reporting.tables import TerminalTable

    table = TerminalTable("option", "value", "from", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for setting in rows:
        table.add_row(Text(setting.option), Text(setting.value), Text(setting.source))
    return show(table)


def init(
    context: typer.Context,
    folder: Folder = Path(),
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Write a commented edgeprune.toml for the commands that take a model; an existing one stays."""
    session: Session = begin(context, verbose, quiet)
    path = folder / CONFIG_NAME
    if path.exists():
        raise OutputError(f"{str(path)!r} is there already, and stays; edit it, or name another folder")
    if not folder.is_dir():
        raise OutputError(f"the folder {str(folder)!r} does not exist; make it, or name the model's")
    atomic_write_bytes(path, commented_file().encode(), overwrite=False)
    session.say_written(path)
    if as_json:
        show_json({"path": str(path)})


def _commands() -> dict[str, Any]:
    """Parser commands, by name, that have a table in the project file."""
    from edgeprune.cli.app import app

    group: Any = typer.main.get_command(app)
    return {name: group.commands[name] for name in COMMAND_TABLES}


def _options(command: Any) -> list[Any]:
    return [param for param in command.params if is_settable(param)]


def _default(param: Any) -> str:
    value = getattr(param.default, "value", param.default)
    return "" if value is None or callable(value) else str(value)


def commented_file() -> str:
    """``edgeprune.toml`` with every key as a comment."""
    lines = [
        "# Defaults of a project: what the command line and the environment leave open.",
        "# Paths count from this file's folder. All keys: docs/configuration.md",
        "",
        "# For every command:",
        *(f"# {key} = {example}" for key, example in SHARED_KEYS.items() if "." not in key),
        "",
        "# [preprocessing]",
        *(f"# {k.split('.')[1]} = {example}" for k, example in SHARED_KEYS.items() if "." in k),
    ]
    shared = {key.split(".")[-1].replace("-", "_") for key in SHARED_KEYS}
    for name, command in _commands().items():
        lines += ["", f"# [{name}]"]
        for param in _options(command):
            if param.name not in shared:
                lines.append(f"# {param.name.replace('_', '-')} = {_example(param)}  # {_help(param)}")
    return "\n".join(lines) + "\n"


def _example(param: Any) -> str:
    default = _default(param)
    if default in ("True", "False"):
        return default.lower()
    if default.replace(".", "", 1).isdigit():
        return default
    return f'"{default or param.metavar or "..."}"'


def _help(param: Any) -> str:
    return " ".join((param.help or "").split())


def reference_page() -> str:
    """``docs/configuration.md``: every option of every command that can be set outside the command line."""
    alone = ", ".join(sorted(f"`--{name.replace('_', '-')}`" for name in _ALONE))
    lines = [
        "# Configuration",
        "",
        *(line.format(alone=alone) for line in _INTRODUCTION.splitlines()),
        "",
        "## For every command",
        "",
        "| key | example |",
        "|---|---|",
        *(f"| `{key}` | `{example}` |" for key, example in SHARED_KEYS.items()),
    ]
    for name, command in _commands().items():
        lines += ["", f"## `[{name}]`", "", "| key | default | environment | meaning |", "|---|---|---|---|"]
        for param in _options(command):
            default = f"`{_default(param)}`" if _default(param) else ""
            meaning = _help(param).replace("|", "\\|")
            key = param.name.replace("_", "-")
            lines.append(f"| `{key}` | {default} | `{environment_name(param.name)}` | {meaning} |")
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
Written by `pytest --overwrite-golden tests/cli/test_configuration_cli.py`; do not edit by hand.

An option has the value of the command line, else of its environment variable, else of `edgeprune.toml` beside
the model, else its default. `edgeprune init` writes a commented file; `edgeprune config show compress MODEL`
says each value and where it is from. Unknown keys are errors. Keys are the options' names without dashes in
front, but for `--input`, whose key is `constants`; flags are `true` or `false`; what may be given several
times is a list. Paths in a file count from its folder.

What decides about trust, about replacing files or about the form of the output is taken from the command line
alone: {alone}. A file beside a model can name code to run (`arch`, `recipe`, `criterion`, `metric`): treat it
as you treat code that you were sent (`docs/security.md`).

`check` and `compare`, which take results, have variables of that form (`EDGEPRUNE_BUDGET`) and no table.
A variable of that form that sets no option is named in a warning."""
_ALONE = ("trust_pickle", "overwrite", "resume", "dry_run", "json", "verbose", "quiet", "graph")
