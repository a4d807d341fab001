"""The Typer application with all commands."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from edgeprune.cli.cache import cache_app
from edgeprune.cli.compress import compress
from edgeprune.cli.configuration import config_app, init
from edgeprune.cli.demo import demo
from edgeprune.cli.finished.bundle import bundle
from edgeprune.cli.finished.pick import pick
from edgeprune.cli.finished.report import report
from edgeprune.cli.gate.check import check
from edgeprune.cli.gate.compare import compare
from edgeprune.cli.inspect import inspect
from edgeprune.cli.process.session import begin
from edgeprune.cli.profile import profile
from edgeprune.cli.quantize import quantize
from edgeprune.cli.rank import rank
from edgeprune.cli.schema import schema
from edgeprune.cli.shared import options as opt
from edgeprune.cli.sweep import sweep
from edgeprune.cli.targets import targets_app
from edgeprune.cli.verify import verify

app = typer.Typer(
    cls=opt.Group,
    no_args_is_help=True,
    help="Prune a trained PyTorch vision model by Shapley values, recover it without training, "
    "and ship it to a small device as ONNX.",
    epilog="Example: edgeprune compress model.pt2 --calibration images/ --target rpi4 --ratio 0.25 -o out/",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgeprune {metadata.version('edgeprune')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", metavar="", callback=_print_version, is_eager=True, help="Show the version and exit."
    ),
]


@app.callback()
def root(
    context: typer.Context,
    version: Version = False,  # noqa: ARG001 - its callback acts
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Options that may stand before or after the command."""
    begin(context, verbose, quiet)


for each in (
    compress,
    pick,
    rank,
    sweep,
    report,
    quantize,
    profile,
    bundle,
    inspect,
    verify,
    compare,
    check,
    schema,
    demo,
    init,
):
    app.command(cls=opt.Command)(each)
app.add_typer(cache_app, name="cache")
app.add_typer(config_app, name="config")
app.add_typer(targets_app, name="targets")
