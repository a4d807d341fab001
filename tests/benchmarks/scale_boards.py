"""An ImageNet mobile network for several boards: a sweep beside ``compress`` for one board after another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common import Jobs, NotMeasuredError
from imagenet_data import no_images, write_folder
from imagenet_networks import MEAN, STD, lacking, weights_file
from scale_sweep import hashes_of, ran, stages_table

Row = dict[str, Any]

BOARDS, RATIO, SIZE, IMAGES = ("rpi4", "rpi5", "imx8mp"), 0.25, 224, 150
_ARCH = f"{Path(__file__).parent / 'imagenet_networks.py'}:lite0"


def jobs() -> Jobs:
    """The sweep, then each board by itself."""
    found: Jobs = {"boards of Lite0, one sweep": _swept}
    return found | {f"boards of Lite0, {board}": lambda work, b=board: _alone(b, work) for board in BOARDS}


def _images(work: Path) -> str:
    if (reason := no_images() or lacking(0)) is not None:
        raise NotMeasuredError(reason)
    write_folder(work / "images", IMAGES)
    return str(work / "images")


def _swept(work: Path) -> Row:
    images = _images(work)
    (work / "sweep.toml").write_text(
        f'targets = {json.dumps(BOARDS)}\n[[models]]\nname = "lite0"\nmodel = "{weights_file(0)}"\n'
        f'arch = "{_ARCH}"\ncalibration = "{images}"\n[models.preprocessing]\ncrop = {SIZE}\n'
        f"mean = {[MEAN] * 3}\nstd = {[STD] * 3}\n"
        f'[[budgets]]\nname = "quarter"\nratio = {RATIO}\n[options]\nthreads = 1\npictures = false\n'
    )
    asked = ["sweep", str(work / "sweep.toml"), "--max-parallel", "1", "--cache", str(work / "cache")]
    row = ran([*asked, "-o", str(work / "out")])
    report = json.loads((work / "out" / "sweep.json").read_text())
    return row | {
        "boards": list(BOARDS),
        "at_once_of_boards": 1,
        "shared": report["shared"],
        "cells_s": {cell["target"]: cell["duration_s"] for cell in report["cells"]},
        "hashes": {cell["target"]: hashes_of(work / "out" / cell["folder"]) for cell in report["cells"]},
    }


def _alone(board: str, work: Path) -> Row:
    three = (",".join([f"{value!r}"] * 3) for value in (MEAN, STD))
    mean, std = three
    row = ran(
        ["compress", str(weights_file(0)), "--arch", _ARCH, "--calibration", _images(work),
         "--crop", str(SIZE), "--mean", mean, "--std", std, "--target", board, "--ratio", str(RATIO),
         "--threads", "1", "--no-pictures", "-o", str(work / "out")]
    )  # fmt: skip
    return row | {"board": board, "hashes": hashes_of(work / "out")}


def render(rows: list[Row]) -> str:
    """Times of the cells of the sweep beside those of the boards alone."""
    swept = next((row for row in rows if "boards" in row), None)
    alone = {row["board"]: row for row in rows if "board" in row}
    if swept is None:
        return ""
    text = (
        f"\n## EfficientNet-Lite0 for {len(BOARDS)} boards\n\n{IMAGES} images of {SIZE} pixels, a cut of "
        f"{RATIO:.0%} of the MACs, one thread, one cell\nafter the other. *in the sweep*: wall-clock time of "
        "the cell; the sweep starts its process once.\n\n"
        "| board | in the sweep | alone |\n|---|---|---|\n"
    )
    for board, seconds in swept["cells_s"].items():
        own = f"{alone[board]['seconds']:.0f} s" if board in alone else ""
        text += f"| {board} | {seconds:.0f} s | {own} |\n"
    total = sum(row["seconds"] for row in alone.values())
    text += f"| all | {swept['seconds']:.0f} s | {total:.0f} s |\n\n"
    text += stages_table([swept | {"at_once": swept["at_once_of_boards"]}])
    same = all(swept["hashes"][board] == row["hashes"] for board, row in alone.items())
    told = "are the same, byte for byte" if same else "DIFFER"
    files = "`surgery.json` and `weights.safetensors`"
    return f"{text}\n{files} of {len(alone)} boards in the sweep and alone {told}.\n"
