"""``edgeprune demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.process.session import begin, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.showing import for_people, plain

Output = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        metavar="FOLDER",
        help="Folder to write: the network with its images, and what was made of it.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]


def demo(
    context: typer.Context,
    target: opt.Target = None,
    output: Output = Path("edgeprune-demo"),
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Compress a bundled network for digits, to see what edgeprune does; nothing of your own is needed."""
    session = begin(context, verbose, quiet)
    from edgeprune.storage.outputs import check_destination
    from edgeprune.targets import load_target

    device = "rpi4" if target is None else target
    load_target(device)
    check_destination(output, overwrite=overwrite)
    from edgeprune import api

    quiet_libraries(session)
    report = api.demo(output, target=device, overwrite=overwrite, command=session.command_line)
    session.say_written(output)
    if as_json:
        return show_json(report)
    from edgeprune.reporting import render_brief, render_terminal

    shown, made = for_people(report), str(output / "compressed")
    show(render_terminal(shown) if session.verbosity else render_brief(shown, made))
    for line in _next_steps(output, report.environment.command):
        print(plain(line))
    return None


def _next_steps(folder: Path, command: str) -> tuple[str, ...]:
    made = folder / "compressed"
    model, images = made / "model.onnx", folder / "digits.npz"
    return (
        "",
        "Look at next:",
        f"  {made / 'report.html'}: the report in pictures, and {made / 'README.md'}: the model card",
        f"  python {made / 'infer.py'} {folder / 'digit.npy'}: one image through the compressed network",
        f"  edgeprune verify {made / 'model.pt2'} {model} --calibration {images}",
        f"The same again, to change: {command} --overwrite",
    )
