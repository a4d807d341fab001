"""``edgeprune targets``: list, show, validate, diff, add, calibrate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli.process.session import Session, begin, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import SpokenArguments, command
from edgeprune.cli.shared.device_options import DeviceArguments
from edgeprune.errors import UsageError
from edgeprune.showing import for_people

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgeprune.targets import TargetProfile

targets_app = typer.Typer(
    cls=opt.Group, no_args_is_help=True, help="Device profiles: what is known about each target."
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A target, an alias or a .toml profile.", autocompletion=opt.complete_target
    ),
]
Other = Annotated[
    str,
    typer.Argument(
        metavar="OTHER", help="What to compare it with, likewise.", autocompletion=opt.complete_target
    ),
]
ProfileFile = Annotated[Path, typer.Argument(metavar="FILE.toml", help="A device profile.")]
NewName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="What the profile is to be called: small letters, digits, - and _."),
]
OnHost = Annotated[bool, typer.Option("--host", metavar="", help="Measure on this machine.")]
OfTarget = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="With --ssh or --adb: the profile that says what the device is (cores, instructions, memory).",
        autocompletion=opt.complete_target,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE.toml", help="Where to write it. Default: your folder of profiles."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace an existing profile.")]


@targets_app.command("list", cls=opt.Command)
def list_command(
    context: typer.Context,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """List the targets."""
    session = begin(context, verbose, quiet)
    from edgeprune.errors import TargetError
    from edgeprune.targets import list_targets, load_target, own_targets, targets_folder

    profiles = [load_target(name) for name in list_targets()]
    for path in own_targets().values():
        try:
            profiles.append(load_target(str(path)))
        except TargetError as error:
            session.say(f"warning: left out of {targets_folder()}: {error}")
    if as_json:
        show_json([dataclasses.asdict(profile) for profile in profiles])
    else:
        show(_overview([for_people(profile) for profile in profiles]))


@targets_app.command("show", cls=opt.Command)
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


@targets_app.command("validate", cls=opt.Command)
def validate_command(
    context: typer.Context,
    file: ProfileFile,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Check a profile: its keys, their values, and that every group of figures has a source."""
    session = begin(context, verbose, quiet)
    from edgeprune.targets import load_target

    profile = load_target(str(file) if "/" in str(file) else f"./{file}")
    session.say(f"{file} is a profile of {profile.display_name!r}")
    if as_json:
        show_json({"path": str(file), "name": profile.name, "predicts_8_bits": profile.predicts_int8})


@targets_app.command("diff", cls=opt.Command)
def diff_command(
    context: typer.Context,
    name: Name,
    other: Other,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """List the fields in which two profiles differ."""
    begin(context, verbose, quiet)
    from edgeprune.reporting.tables import TerminalTable
    from edgeprune.targets import differences, load_target

    first, second = load_target(name), load_target(other)
    rows = differences(first, second)
    if as_json:
        show_json([{"field": path, "first": one, "second": two} for path, one, two in rows])
        return
    table = TerminalTable("field", first.name, second.name, box=None, padding=(0, 2, 0, 0))
    for path, one, two in rows:
        table.add_row(path, _words(one), _words(two))
    show(for_people(table) if rows else "no field differs")


@targets_app.command("add", cls=opt.Command)
def add_command(
    context: typer.Context,
    file: ProfileFile,
    overwrite: Overwrite = False,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Check a profile and keep it in your folder, where --target finds it by its name."""
    session = begin(context, verbose, quiet)
    from edgeprune import api

    path = api.add_target(file, overwrite=overwrite)
    session.say_written(path, what="profile")
    if as_json:
        show_json({"path": str(path)})


@dataclass(frozen=True, kw_only=True)
class WhatToCalibrate:
    """The profile to write, and what is measured for it."""

    name: NewName
    on_host: OnHost = False
    facts_of: OfTarget = None
    output: Output = None
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class CalibrateArguments(SpokenArguments, DeviceArguments, WhatToCalibrate):
    """All arguments of ``targets calibrate``."""


@targets_app.command("calibrate", cls=opt.Command)
@command(CalibrateArguments)
def calibrate(session: Session, given: CalibrateArguments) -> None:
    """Measure small networks on a device, in minutes, and write a profile that predicts from their times."""
    there = given.device_for(given.facts_of)
    if given.on_host == (there is not None):
        said = "both this machine (--host) and a device were" if given.on_host else "where to measure was not"
        raise UsageError(
            f"{said} said; accepted is --host, for this machine, or --ssh or --adb with --target"
        )
    if there is None and given.facts_of is not None:
        raise UsageError("--target was given with --host; accepted is --ssh or --adb with it")
    from edgeprune import api

    quiet_libraries(session)
    written = api.calibrate_target(
        given.name, output=given.output, overwrite=given.overwrite, device=there, target=given.facts_of
    )
    session.say_written(written.path, what="profile")
    if given.as_json:
        show_json(written)
    else:
        show(_calibrated(for_people(written.profile)))


def _calibrated(profile: TargetProfile) -> str:
    found = profile.calibration
    assert found is not None
    return (
        f"{found.measurements} networks of {found.nodes:,} nodes measured in {found.measured_s:.0f} s; "
        "blocks left out of the fit: "
        f"median error {found.held_out_median_error:.1%}, {found.error_coverage:.0%} between "
        f"{found.error_low_factor:.2f} and {found.error_high_factor:.2f} of the prediction"
    )


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
