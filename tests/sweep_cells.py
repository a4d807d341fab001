"""Cells for tests of sweeps that take no time: what they do is in the name of their target's budget."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.artifacts.latency import Provenance
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.quantization import Precision
from edgeprune.artifacts.report import Grade
from edgeprune.errors import BudgetError
from edgeprune.executors.units import Work
from edgeprune.reporting.sweep.facts import (
    SWEEP_SCHEMA_VERSION,
    CellFigures,
    CellReport,
    CellResult,
    CellState,
    StageUse,
    SweepReport,
)
from edgeprune.storage.outputs import staged_output, write_manifest

REFUSED, KILLED, SLOW = 0.91, 0.92, 0.93
"""Ratios of cells that end with an error, of which one is killed, and that take a minute."""

SWEEP = """
targets = ["rpi4", "n100"]
[[models]]
name = "net"
model = "net.pt"
arch = "net.py:made"
calibration = "images.npz"
[[models]]
name = "other"
model = "other.pt"
calibration = "images.npz"
[[budgets]]
name = "half"
ratio = 0.5
[[budgets]]
name = "more"
ratio = {ratio}
"""


def project(folder: Path, ratio: float = 0.6) -> Path:
    """Files of a sweep of eight cells, half of them of the given ratio."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("net.pt", "net.py", "other.pt", "images.npz"):
        (folder / name).write_text(name)
    (folder / "sweep.toml").write_text(SWEEP.format(ratio=ratio))
    return folder / "sweep.toml"


def ran(folder: Path) -> list[str]:
    """What was run so far, in order: model, target and ratio."""
    log = folder / "ran"
    return log.read_text().splitlines() if log.exists() else []


def figures(**changed: Any) -> CellFigures:
    """Figures of a cell."""
    made: dict[str, Any] = {
        "grade": Grade.USABLE, "headline": "no measurable loss", "quality_kind": AccuracyKind.TOP1,
        "quality_before": 0.95, "quality": 0.9, "quality_low": 0.85, "quality_high": 0.94, "images": 100,
        "loss": 0.05, "macs_before": 2000, "macs": 1000, "size_bytes_before": 4096, "size_bytes": 2048,
        "latency_ms_before": 2.0, "latency_ms": 1.0, "provenance": Provenance.PREDICTED,
    }  # fmt: skip
    return CellFigures(**{**made, **changed})


def fake_cell(work: Work) -> CellResult:
    """Write a folder as ``compress`` does, and figures that follow from the options."""
    options = work.payload
    folder = Path(options.model).parent
    with (folder / "ran").open("a") as log:
        log.write(f"{Path(options.model).stem} {options.target} {options.ratio}\n")
    if options.ratio == REFUSED:
        raise BudgetError("the budget is out of reach")
    is_last = (Path(options.model).stem, options.target) == ("other", "n100")
    if options.ratio == KILLED and is_last and not (folder / "cured").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if options.ratio == SLOW and not (folder / "cured").exists():
        time.sleep(60)
    with staged_output(options.folder, overwrite=True) as staging:
        (staging / "surgery.json").write_text(
            json.dumps([options.model, options.target, options.ratio, work.seed])
        )
        write_manifest(staging, inputs={}, seed=0, command="", versions={})
    use = StageUse(stage="ranking", digest="d", computed=options.target == "rpi4", duration_s=2.0)
    return CellResult(figures=figures(quality=1.0 - options.ratio / 10), uses=(use,), duration_s=0.5)


def report_of(states: dict[str, CellState]) -> SweepReport:
    """A sweep with cells of these names and states; those that failed were refused."""
    plain = CellReport(
        name="", key="", model="net", target="rpi4", budget="half", precision=Precision.FP32,
        state=CellState.DONE, attempts=1, duration_s=1.0,
    )  # fmt: skip
    cells = []
    for name, state in states.items():
        cell = replace(plain, name=name, key=name, state=state)
        if state is CellState.DONE:
            cells.append(replace(cell, figures=figures(), folder=f"cells/{name}"))
        else:
            cells.append(replace(cell, failure="it was refused", exit_status=2))
    return SweepReport(
        schema_version=SWEEP_SCHEMA_VERSION, created_utc="2026-01-01T00:00:00+00:00", source="sweep.toml",
        source_sha256="0" * 64, command="edgeprune sweep", cells=tuple(cells), best=(), shared=(), seed=0,
        threads=1, executor="local", max_parallel=None, duration_s=2.0, machine="none", versions={}, notes=(),
    )  # fmt: skip
