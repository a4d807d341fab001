"""A sweep of 3 models x 3 targets x 3 budgets beside its cells by themselves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import Jobs, NotMeasuredError, ended
from scale_bytes import MODEL

Row = dict[str, Any]

TARGETS, RATIOS = ("rpi4", "rpi5", "n100"), (0.25, 0.4, 0.5)
WIDTHS = {"narrow": (16, 32), "wide": (48, 64)}
"""Of two chains that are trained here; the third model is the digits example."""
_FILES = ("surgery.json", "weights.safetensors")
_STEPS = 200
_NETWORKS = f"""
import torch
from torch import nn


def chain(first, second):
    parts = []
    for inputs, outputs in ((1, first), (first, second), (second, second)):
        parts += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, 10))


{"".join(f"def {name}(): return chain{widths}{chr(10)}" for name, widths in WIDTHS.items())}
"""


def jobs(folder: Path, effort: str, models: int = 3, targets: int = 3, budgets: int = 3) -> Jobs:
    """The sweep, one cell after the other and two at once, and every cell by itself."""
    names = ("digits", *WIDTHS)[:models]
    cells = [
        (model, target, ratio)
        for model in names
        for target in TARGETS[:targets]
        for ratio in RATIOS[:budgets]
    ]
    project = folder / "project"

    def sweep(at_once: int, work: Path) -> Row:
        _make_project(project)
        (work / "sweep.toml").write_text(_spec(project, names, TARGETS[:targets], RATIOS[:budgets], effort))
        asked = ["sweep", str(work / "sweep.toml"), "--max-parallel", str(at_once)]
        row = ran([*asked, "--cache", str(work / "cache"), "-o", str(work / "out")])
        report = json.loads((work / "out" / "sweep.json").read_text())
        return row | {
            "at_once": at_once,
            "shared": report["shared"],
            "cells": {cell["name"]: cell["duration_s"] for cell in report["cells"]},
            "hashes": {cell["name"]: hashes_of(work / "out" / cell["folder"]) for cell in report["cells"]},
        }

    def alone(model: str, target: str, ratio: float, work: Path) -> Row:
        _make_project(project)
        asked = [*_model(project, model), "--target", target, "--ratio", str(ratio), "--effort", effort]
        row = ran(["compress", *asked, "--threads", "1", "--no-pictures", "-o", str(work / "out")])
        return row | {"cell": _name(model, target, ratio), "hashes": hashes_of(work / "out")}

    found: Jobs = {f"sweep, {n} at once": lambda work, n=n: sweep(n, work) for n in (1, 2)}
    found |= {f"alone {_name(*cell)}": lambda work, cell=cell: alone(*cell, work) for cell in cells}
    return found


def _name(model: str, target: str, ratio: float) -> str:
    return f"{model}_{target}_cut{ratio * 100:.0f}_fp32"


def _model(project: Path, name: str) -> list[str]:
    if name == "digits":
        return list(MODEL)
    arch = f"{project / 'nets.py'}:{name}"
    return [str(project / f"{name}.pt"), "--arch", arch, "--calibration", MODEL[-1]]


def _spec(
    project: Path, names: tuple[str, ...], targets: tuple[str, ...], ratios: tuple[float, ...], effort: str
) -> str:
    text = f"targets = {json.dumps(list(targets))}\n"
    for name in names:
        path, _, arch, _, data = _model(project, name)
        text += f'[[models]]\nname = "{name}"\nmodel = "{path}"\narch = "{arch}"\ncalibration = "{data}"\n'
    for ratio in ratios:
        text += f'[[budgets]]\nname = "cut{ratio * 100:.0f}"\nratio = {ratio}\n'
    return text + f'[options]\neffort = "{effort}"\nthreads = 1\npictures = false\n'


def _make_project(project: Path) -> None:
    """Two small chains, trained on the digits."""
    if (project / "nets.py").exists():
        return
    import numpy as np
    import torch

    project.mkdir(parents=True, exist_ok=True)
    space: dict[str, Any] = {}
    exec(_NETWORKS, space)
    data = np.load(MODEL[-1])
    images = torch.from_numpy(data["images"]).float()[:, None] / 255.0
    labels = torch.from_numpy(data["labels"]).long()
    for name in WIDTHS:
        torch.manual_seed(0)
        network = space[name]().train()
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(_STEPS):
            chosen = torch.randint(len(images), (64,))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
        torch.save(network.eval().state_dict(), project / f"{name}.pt")
    (project / "nets.py").write_text(_NETWORKS)


def ran(arguments: list[str]) -> Row:
    """Run a command of edgeprune to its end; its times."""
    child = subprocess.Popen([sys.executable, "-m", "edgeprune", *arguments, "-q"], stdout=subprocess.DEVNULL)
    done = ended(child, time.perf_counter())
    if done.status:
        raise NotMeasuredError(f"edgeprune {arguments[0]} ended with {done.status}")
    return {"seconds": done.seconds, "cpu_seconds": done.cpu_seconds}


def hashes_of(folder: Path) -> list[str]:
    """Hashes of what must be the same, byte for byte."""
    return [hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in _FILES]


def stages_table(sweeps: list[Row]) -> str:
    """How often each stage was computed and taken, and what that took and saved."""
    text = (
        "Stages that cells share, each computed once for all that decides it:\n\n"
        "| how | stage | computed | taken | time computing | time saved |\n|---|---|---|---|---|---|\n"
    )
    for row in sweeps:
        for shared in row["shared"]:
            text += (
                f"| {row['at_once']} at once | {shared['stage']} | {shared['computed']} | {shared['taken']} "
                f"| {shared['computed_s']:.1f} s | {shared['saved_s']:.1f} s |\n"
            )
    return text


def render(rows: list[Row]) -> str:
    """Times of the sweeps and of all cells together, what was shared, and whether files are the same."""
    sweeps = [row for row in rows if "at_once" in row]
    alone = {row["cell"]: row for row in rows if "cell" in row}
    parts = [name.split("_") for row in sweeps for name in row["cells"]]
    models, targets, cuts = (", ".join(dict.fromkeys(each[place] for each in parts)) for place in range(3))
    text = (
        f"\n## A sweep beside its cells\n\nModels: {models} (digits is the example, others are chains of\n"
        f"three convolutions trained on its images); targets: {targets}; cuts of the MACs in percent:\n"
        f"{cuts}. One thread a cell. *alone*: each cell a `compress` of its own, one after the other.\n\n"
        "| how | cells | wall-clock | CPU |\n|---|---|---|---|\n"
    )
    for row in sweeps:
        text += (
            f"| sweep, {row['at_once']} at once | {len(row['cells'])} | {row['seconds']:.0f} s "
            f"| {row['cpu_seconds']:.0f} s |\n"
        )
    seconds, cpu = (sum(row[what] for row in alone.values()) for what in ("seconds", "cpu_seconds"))
    text += f"| alone | {len(alone)} | {seconds:.0f} s | {cpu:.0f} s |\n\n{stages_table(sweeps)}"
    differing = [
        name
        for row in sweeps
        for name, hashes in row["hashes"].items()
        if name in alone and hashes != alone[name]["hashes"]
    ]
    compared = sum(name in alone for row in sweeps for name in row["hashes"])
    told = f"differ in {', '.join(differing)}" if differing else "are the same, byte for byte"
    files = " and ".join(f"`{file}`" for file in _FILES)
    return f"{text}\n{files} of {compared} cells of sweeps and of those alone {told}.\n"
