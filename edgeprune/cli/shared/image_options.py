"""Options of preprocessing, which several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgeprune import limits
from edgeprune.artifacts.calibration import PAD_VALUE, ChannelOrder, Ground
from edgeprune.cli.shared.options import DATA_PANEL

Card = Annotated[
    str | None,
    typer.Option(
        "--card",
        metavar="NAME",
        help="Preprocessing card: imagenet, cifar10, mnist, digits, or a .toml file. "
        "Default: the card beside the data.",
        rich_help_panel=DATA_PANEL,
    ),
]
Resize = Annotated[
    Any,  # a number or two, which the parser of the command line cannot be told
    typer.Option(
        "--resize",
        metavar="PIXELS|HxW",
        parser=limits.IMAGE_SIZES.reader("--resize"),
        help="Resize the shorter side of every image to this, or every image to height x width, such "
        "as 64x96.",
        rich_help_panel=DATA_PANEL,
    ),
]
Crop = Annotated[
    Any,
    typer.Option(
        "--crop",
        metavar="PIXELS|HxW",
        parser=limits.IMAGE_SIZES.reader("--crop"),
        help="Cut a square of this size, or height x width, out of the middle.",
        rich_help_panel=DATA_PANEL,
    ),
]
Letterbox = Annotated[
    Any,
    typer.Option(
        "--letterbox",
        metavar="PIXELS|HxW",
        parser=limits.IMAGE_SIZES.reader("--letterbox"),
        help="Fit every image into a square of this size, or height x width, keeping its ratio, and fill the "
        "borders; instead of --resize and --crop.",
        rich_help_panel=DATA_PANEL,
    ),
]
Pad = Annotated[
    int | None,
    typer.Option(
        "--pad",
        metavar="N",
        parser=limits.PAD_VALUES.reader("--pad"),
        help=f"Grey of a letterbox's borders, of 0 to 255. Default: {PAD_VALUE}.",
        rich_help_panel=DATA_PANEL,
    ),
]
Exif = Annotated[
    bool | None,
    typer.Option(
        "--exif/--no-exif",
        metavar="",
        help="Turn images upright as their EXIF data say. Default: they are turned.",
        rich_help_panel=DATA_PANEL,
    ),
]
GroundOption = Annotated[
    Ground | None,
    typer.Option(
        "--ground",
        help="What shows through transparent parts of images. Default: black.",
        rich_help_panel=DATA_PANEL,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="NUMBERS",
        help="Mean per channel to subtract, of pixels scaled to 0..1, such as 0.485,0.456,0.406 or 127/255.",
        rich_help_panel=DATA_PANEL,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std",
        metavar="NUMBERS",
        help="Standard deviation per channel to divide by, such as 0.229,0.224,0.225.",
        rich_help_panel=DATA_PANEL,
    ),
]
Order = Annotated[
    ChannelOrder | None,
    typer.Option(
        "--channel-order",
        help="Order of the colour channels that the model expects. Default: rgb.",
        rich_help_panel=DATA_PANEL,
    ),
]
