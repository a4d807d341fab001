"""``edgeprune compress`` as a user runs it: time, memory and what is delivered."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import REPOSITORY, Jobs
from imagenet_data import no_images, write_folder
from imagenet_jobs import HERE, Settings, child, run
from imagenet_networks import MEAN, SIZES, STD, lacking, weights_file

from edgeprune.artifacts.report import RunReport
from edgeprune.reporting import read_json

Row = dict[str, Any]

TARGET, RATIO = "rpi4", 0.25
RESNET50_IMAGES = 256
DEMO_TARGETS = ("rpi4", "host")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One run of ``compress``. ``judged``: a trained network of ours to hold the delivered file against."""

    name: str
    model: tuple[str, ...]
    images: int | None
    goal: tuple[str, ...]
    judged: bool = True


def lacks() -> str | None:
    """Why this part cannot be measured here."""
    return no_images() or lacking(0)


def jobs(_folder: Path, settings: Settings, threads: int) -> Jobs:
    """Every request, then the demo, which runs both of its targets at once."""
    found: Jobs = {
        f"end-to-end {request.name}": lambda work, r=request: _compressed(r, settings, work, threads)
        for request in _requests(settings)
    }
    found["end-to-end demo"] = lambda work: _demo(work, threads)
    return found


def _requests(settings: Settings) -> list[Request]:
    lite = (str(weights_file(0)), "--arch", f"{HERE / 'imagenet_networks.py'}:lite0")
    quarter = ("--ratio", f"{RATIO:g}")
    found = [Request(name="Lite0", model=lite, images=None, goal=quarter)]
    if settings.distill_minutes:
        training = ("--finetune", f"{settings.distill_minutes:g}min")
        found.append(
            Request(
                name=f"Lite0, distilled {settings.distill_minutes:g} min",
                model=lite,
                images=None,
                goal=(*quarter, *training),
            )
        )
    resnet = ("torchvision:resnet50", "--weights", "none")
    found.append(
        Request(
            name="resnet50, random weights", model=resnet, images=RESNET50_IMAGES, goal=quarter, judged=False
        )
    )
    return [*found, Request(name="Lite0, no goal but the target", model=lite, images=None, goal=())]


def _compressed(request: Request, settings: Settings, work: Path, threads: int) -> Row:
    """Run the command, read its report, judge the delivered file on the test images."""
    limits = [n for n in (request.images, settings.images) if n is not None]
    write_folder(work / "images", min(limits, default=None))
    options = [
        "--calibration", str(work / "images"), "--crop", str(SIZES[0]), "--mean", _three(MEAN),
        "--std", _three(STD), "--target", TARGET, "--threads", str(threads), *request.goal,
    ]  # fmt: skip
    command = [sys.executable, "-m", "edgeprune", "compress", *request.model, *options]
    ended = run([*command, "-o", str(work / "out")], work, threads)
    report = read_json(work / "out" / "report.json")
    found = {
        "name": request.name,
        "goal": " ".join(("--target", TARGET, *request.goal)),
        "images": report.calibration.fitting_images + report.calibration.held_out_images,
        "seconds": ended.seconds,
        "cpu_s": ended.cpu_seconds,
        "peak_bytes": ended.peak_bytes,
        "page_faults": ended.page_faults,
        **_reported(report),
    }
    if request.judged:
        task = {
            "task": "delivered", "network": 0, "seed": 0, "images": settings.images, "threads": threads,
            "onnx": str(work / "out" / "model.onnx"),
        }  # fmt: skip
        found["delivered"] = child(task, work)
    return found


def _reported(report: RunReport) -> Row:
    return {
        "headline": report.usability.headline if report.usability else "",
        "macs_removed": report.pruning.macs_removed_share,
        "stages": [[s.stage, s.duration_s] for s in report.stage_times],
        "notes": list(report.notes),
    }


def _three(value: float) -> str:
    return ",".join([f"{value:.9g}"] * 3)


def _demo(work: Path, threads: int) -> Row:
    """``make demo`` once everything is installed: both targets, each in a process of its own."""
    command = [
        "make", "--no-print-directory", "-C", str(REPOSITORY), "demo",
        f"VENV={sys.prefix}", f"DEMO_OUT={work / 'demo'}",
    ]  # fmt: skip
    ended = run(command, work, threads)
    report = read_json(work / "demo" / DEMO_TARGETS[0] / "report.json")
    return {
        "name": "make demo",
        "goal": f"--target {' and '.join(DEMO_TARGETS)} --ratio {report.pruning.ratio_asked:g}",
        "images": report.calibration.fitting_images + report.calibration.held_out_images,
        "seconds": ended.seconds,
        "cpu_s": ended.cpu_seconds,
        "peak_bytes": ended.peak_bytes,
        "page_faults": ended.page_faults,
        **_reported(report),
    }


def render(rows: list[Row]) -> str:
    """Time and memory, what was delivered, and where the time went."""
    text = (
        "`edgeprune compress` on a flat folder of images at 224 pixels (unlabelled; a quarter is kept back\n"
        "by the command itself), Lite0 from its state_dict. *s* (wall), *CPU s*, *memory* at most and *page\n"
        "faults* are of the whole command, from start to exit. *make demo*: both targets at once, with\n"
        "everything installed; what is delivered and the stages are those of the first.\n\n"
        "| run | goal | images | s | CPU s | memory | page faults |\n|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        text += (
            f"| {row['name']} | `{row['goal']}` | {row['images']} | {row['seconds']:.0f} "
            f"| {row['cpu_s']:.0f} | {row['peak_bytes'] / 1e9:.2f} GB "
            f"| {row['page_faults'] / 1e6:.1f} million |\n"
        )
    return text + _delivered(rows) + _stages(rows)


def _delivered(rows: list[Row]) -> str:
    text = (
        "\n## What is delivered\n\n`model.onnx` by onnxruntime on the test images, which the command does\n"
        "not have, and the first line of its report, which judges on the images that it kept back.\n\n"
        "| run | MACs removed | test images | top-1 | agreement | divergence | first line of the report |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        cells = ["", "", "", ""]
        if "delivered" in row:
            own = row["delivered"]
            cells = [str(own["test_images"]), f"{own['top1']:.1%}", f"{own['agreement']:.1%}"]
            cells.append(f"{own['divergence']:.3f}")
        text += f"| {row['name']} | {row['macs_removed']:.1%} | {' | '.join(cells)} | {row['headline']} |\n"
    return text


def _stages(rows: list[Row]) -> str:
    text = "\n## Where the time went\n\n"
    text += "Seconds (wall) by stage, from `report.json`; those of a second and more.\n\n"
    for row in rows:
        told = [f"{stage} {seconds:.0f}" for stage, seconds in row["stages"] if seconds >= 1]
        text += f"- {row['name']}: {', '.join(told) or 'none'}\n"
    noted = [f"- {row['name']}: {note}\n" for row in rows for note in row["notes"]]
    return text + ("\nNotes of the reports:\n\n" + "".join(noted) if noted else "")
