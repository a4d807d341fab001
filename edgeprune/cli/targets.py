"""``edgeprune targets list`` and ``edgeprune targets show``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli.process.session import begin, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.showing import for_people

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgeprune.targets import TargetProfile

targets_app = typer.Typer(no_args_is_help=True, help="Device profiles: what is known about each target.")

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A target, an alias or a .toml profile.", autocompletion=opt.complete_target
    ),
]


@targets_app.command("list")
def list_command(
    context: typer.Context,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """List the targets."""
    begin(context, verbose, quiet)
    from edgeprune.targets import list_targets, load_target

    profiles = [load_target(name) for name in list_targets()]
    if as_json:
        show_json([dataclasses.asdict(profile) for profile in profiles])
    else:
        show(_overview([for_people(profile) for profile in profiles]))


@targets_app.command("show")
def show_command(
    context: typer.Context,
    name: Name,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Show every field of a target and where its figures come from."""
    begin(context, verbose, quiet)
    from edgeprune.targets import load_target

    profile = load_target(name)
    if as_json:
        show_json(profile)
    else:
        show(_details(for_people(profile)))


def _overview(profiles: list[TargetProfile]) -> RenderableType:
    from edgeprune.reporting.tables import TerminalTable

    table = TerminalTable("target", "aliases", "device", "CPU", "latency", box=None, padding=(0, 2, 0, 0))
    for profile in profiles:
        latency = "measured on this host" if profile.roofline is None else "predicted"
        table.add_row(
            profile.name, ", ".join(profile.aliases), profile.display_name, profile.cpu_name or "", latency
        )
    return table


def _details(profile: TargetProfile) -> RenderableType:
    from edgeprune.reporting.tables import TerminalTable

    table = TerminalTable.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, value in _rows(profile):
        table.add_row(label, value)
    return table


def _rows(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Every field with its value in words, nested ones with their path."""
    from edgeprune.reporting.formatting import format_bytes

    items = (
        {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if dataclasses.is_dataclass(value)
        else value
    )
    rows = []
    for name, item in items.items():
        if dataclasses.is_dataclass(item) or isinstance(item, dict):
            rows.extend(_rows(item, f"{prefix}{name}."))
        else:
            unit = f" ({format_bytes(item)})" if name.endswith("_bytes") and item else ""
            rows.append((f"{prefix}{name}", f"{_words(item)}{unit}"))
    return rows


def _words(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ", ".join(str(item) for item in value) or "none"
    return str(value) if value != "" else "none"
