"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgeprune import limits
from edgeprune.cli.process.session import Session
from edgeprune.cli.process.variables import variable_behind
from edgeprune.options.cli_option import Panel

MODEL_PANEL = Panel.MODEL.value
DATA_PANEL = Panel.DATA.value
GOAL_PANEL = Panel.GOAL.value
RUN_PANEL = Panel.RUN.value


class _PlainFlags:
    """Shows flags, ``--help`` among them, without the name of a type, since they take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of what this is mixed into
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return params


class _LiteralHelp:
    """Shows help texts as they are written: ``[ray]`` in one is no markup."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help of this command."""
        told = (self, *self.get_params(ctx), *getattr(self, "commands", {}).values())  # type: ignore[attr-defined]
        with _escaped(told):
            super().format_help(ctx, formatter)  # type: ignore[misc]  # of what this is mixed into


@contextmanager
def _escaped(told: Iterable[Any]) -> Iterator[None]:
    """Help, short help and epilog of commands and parameters as markup that shows them literally."""
    from rich.markup import escape

    texts = [
        (one, name, text)
        for one in told
        for name in ("help", "short_help", "epilog")
        if (text := getattr(one, name, None))
    ]
    try:
        for one, name, text in texts:
            setattr(one, name, escape(text))
        yield
    finally:
        for one, name, text in texts:
            setattr(one, name, text)


class Command(_LiteralHelp, _PlainFlags, TyperCommand):
    """A command; the session learns which environment variable gave a value that is refused."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Of the command line and the environment."""
        with _variables_told(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Of the parsed command."""
        with _variables_told(ctx):
            return super().invoke(ctx)


@contextmanager
def _variables_told(context: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(context.obj, Session) and context.obj.refused_variable is None:
            told = error.format_message() if hasattr(error, "format_message") else str(error)
            context.obj.refused_variable = variable_behind(context, told)
        raise


class Group(_LiteralHelp, _PlainFlags, TyperGroup):
    """Commands under a name."""


def complete_target(incomplete: str) -> list[str]:
    """Names of targets for shell completion."""
    from edgeprune.targets import list_targets

    return [name for name in list_targets() if name.startswith(incomplete)]


def complete_criterion(incomplete: str) -> list[str]:
    """Names of criteria for shell completion."""
    from edgeprune.importance.registry import criterion_names

    return [name for name in criterion_names() if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A .pt2 exported program, an .onnx file, a state_dict (.pt .pth .safetensors, with --arch), "
        "a pickled module (.pt, with --trust-pickle), a folder with safetensors files, torchvision:NAME, "
        "timm:NAME, or hf:FOLDER of transformers.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME",
        help="Architecture of a state_dict: torchvision:NAME, timm:NAME, hf:FOLDER, package.module:factory "
        "or path/to/file.py:factory.",
        rich_help_panel=MODEL_PANEL,
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        metavar="CxHxW",
        help="Channels, height and width of one image, such as 3x224x224 or 3,224,224. "
        "Default: from the model or the calibration set.",
        rich_help_panel=MODEL_PANEL,
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        metavar="CxHxW",
        help="Channels, height and width of one image, such as 3x224x224, for a file that leaves any of them "
        "open. Default: from the file, or the calibration images.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="DATA",
        help="A folder of images (class folders: labelled), an .npz with 'images' and optional 'labels', "
        "or package.module:function returning a torch Dataset. Default: edgeprune.toml or a calibration "
        "folder beside the model.",
        rich_help_panel=DATA_PANEL,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE|FOLDER",
        help="Labels of a folder of images: a CSV file with the header file,label, classes by number or by "
        "name. Default: labels.csv in the folder or beside it, for a folder without class folders. With "
        "--task detection a COCO .json or a folder of YOLO texts, with segmentation a folder of PNG maps of "
        "classes, with regression a CSV file,NAME,... of numbers.",
        rich_help_panel=DATA_PANEL,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="Device to compress or profile for: a name of 'edgeprune targets list' or a .toml profile. "
        "Default: host.",
        autocompletion=complete_target,
        rich_help_panel=GOAL_PANEL,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        parser=limits.SEED.reader("--seed"),
        help="Seed of every random number; the same seed gives the same bytes. Default: 0.",
        rich_help_panel=RUN_PANEL,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        parser=limits.THREADS.reader("--threads"),
        help="Threads to compute and to measure with. Default: what the machine or target has.",
        rich_help_panel=RUN_PANEL,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        metavar="",
        help="Print the result as JSON with exact figures on stdout.",
        rich_help_panel=RUN_PANEL,
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        metavar="",
        show_default=False,
        help="Say more; -vv also shows tracebacks.",
        rich_help_panel=RUN_PANEL,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        metavar="",
        help="Only errors and the result: no progress, no notes.",
        rich_help_panel=RUN_PANEL,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        metavar="",
        help="Replace an output folder that edgeprune wrote before.",
        rich_help_panel=RUN_PANEL,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Also write it as a page of its own.", rich_help_panel=RUN_PANEL
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="Time for the whole run, such as 90s or 10min: what would take longer is cut, and the report "
        "says what. With --resume it is that of each session.",
        rich_help_panel=RUN_PANEL,
    ),
]
RUN_TIMEOUT = f"{limits.RUN_TIMEOUT_S:g}s"
Timeout = Annotated[
    str,
    typer.Option(
        "--timeout",
        metavar="TIME",
        help="Longest time of a single run of an ONNX file, and of loading it, such as 10s or 5min.",
        rich_help_panel=RUN_PANEL,
    ),
]
MaxLatency = Annotated[
    str | None,
    typer.Option(
        "--max-latency",
        metavar="TIME",
        help="Most latency on the target, such as 40ms, 800us, or 50% of the original's.",
        rich_help_panel=GOAL_PANEL,
    ),
]
MaxSize = Annotated[
    str | None,
    typer.Option(
        "--max-size",
        metavar="SIZE",
        help="Most bytes of the ONNX file, such as 4MB or 512KiB.",
        rich_help_panel=GOAL_PANEL,
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Most memory to load and run the model, such as 64MB (measured on this machine).",
        rich_help_panel=GOAL_PANEL,
    ),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        help="Most percentage points of accuracy to lose on held-out images (without labels: of "
        "agreement with the original; with --task: of its measure).",
        rich_help_panel=GOAL_PANEL,
    ),
]
