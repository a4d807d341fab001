"""``edgeprune cache``: list, verify, prune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli.process.session import begin, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.errors import UsageError
from edgeprune.showing import for_people

if TYPE_CHECKING:
    from edgeprune.caching.maintenance import CacheListing

cache_app = typer.Typer(
    cls=opt.Group,
    no_args_is_help=True,
    help="Results that runs share: statistics, rankings, recovered networks, curves.",
)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="FOLDER", envvar="EDGEPRUNE_CACHE", show_envvar=False,
        help="The folder of the cache. Default: edgeprune in the user's folder of caches.",
    ),
]  # fmt: skip
MaxAge = Annotated[
    str | None,
    typer.Option("--max-age", metavar="TIME", help="Remove what was not used for so long, such as 720h."),
]
MaxSize = Annotated[
    str | None,
    typer.Option(
        "--max-size", metavar="SIZE", help="Remove what was used longest ago until no more is left: 2GB."
    ),
]
Everything = Annotated[bool, typer.Option("--all", metavar="", help="Remove all entries.")]


@cache_app.command("list", cls=opt.Command)
def list_command(
    context: typer.Context,
    folder: Folder = None,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """List the entries, those used last first."""
    begin(context, verbose, quiet)
    from edgeprune.api.caching import read_shared

    _show(read_shared(folder), as_json)


@cache_app.command("verify", cls=opt.Command)
def verify_command(
    context: typer.Context,
    folder: Folder = None,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Hold every entry against its hashes: status 2 where one is damaged."""
    session = begin(context, verbose, quiet)
    from edgeprune.api.caching import read_shared

    found = read_shared(folder)
    if not found.is_there:
        session.say(f"there is no cache {found.folder} yet")
        return show_json(found) if as_json else None
    if not found.damaged:
        session.say(f"all {len(found.entries)} entries of {found.folder} are as they were written")
        return show_json(found) if as_json else None
    _show(found, as_json)
    raise UsageError(
        f"{len(found.damaged)} of {len(found.entries)} entries of the cache {found.folder!r} are damaged; a "
        "run makes them anew, and edgeprune cache prune removes them"
    )


@cache_app.command("prune", cls=opt.Command)
def prune_command(
    context: typer.Context,
    folder: Folder = None,
    max_age: MaxAge = None,
    max_size: MaxSize = None,
    everything: Everything = False,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Remove damaged entries, and those beyond an age or a size."""
    session = begin(context, verbose, quiet)
    from edgeprune.api.caching import prune_shared
    from edgeprune.options.quantities import parse_bytes, parse_duration
    from edgeprune.reporting.formatting import count_words, format_bytes

    if everything and (max_age is not None or max_size is not None):
        raise UsageError("--all was given with --max-age or --max-size; accepted is all, or limits")
    age_s = None if max_age is None else parse_duration(max_age, option="--max-age")
    most = None if max_size is None else parse_bytes(max_size, option="--max-size")
    pruned = prune_shared(folder, max_age_s=age_s, max_size_bytes=0 if everything else most)
    freed = format_bytes(sum(entry.size_bytes for entry in pruned.removed))
    removed = count_words(len(pruned.removed), "entry", "entries")
    if pruned.left.is_there:
        session.say(f"{removed} removed ({freed}), {len(pruned.left.entries)} left")
    else:
        session.say(f"there is no cache {pruned.left.folder} yet")
    if as_json:
        show_json(pruned)


def _show(found: CacheListing, as_json: bool) -> None:
    from edgeprune.reporting.sweep.cached import cache_table
    from edgeprune.reporting.terminal import terminal_table

    return show_json(found) if as_json else show(terminal_table(cache_table(for_people(found))))
