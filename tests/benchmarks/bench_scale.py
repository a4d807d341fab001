"""Beyond one processor: workers, sweeps and clusters; ranking and recovery on a GPU.

Run as ``python tests/benchmarks/bench_scale.py --results FOLDER``; goes on where it stopped and writes
``docs/benchmarks/scale.md``, ``scale-gpu.md`` and ``scale-precision.md``. Where there is no GPU, or no Ray,
what needs it is skipped with its reason. ``--tiny`` tries the program itself: small cells, few of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import scale_boards
import scale_bytes
import scale_fleet
import scale_gpu
import scale_model
import scale_precision
import scale_sweep
from common import Jobs, Part, run_parts

OPTIONS = argparse.ArgumentParser(add_help=False)
OPTIONS.add_argument("--tiny", action="store_true", help="small cells, few of them")


def _jobs(folder: Path, _seeds: int, _threads: int) -> Jobs:
    tiny = OPTIONS.parse_known_args()[0].tiny
    effort, cells = ("quick", {"models": 2, "targets": 2, "budgets": 1}) if tiny else ("normal", {})
    return {
        **scale_bytes.jobs(folder, tiny=tiny),
        **scale_sweep.jobs(folder, effort, **cells),
        **({} if tiny else scale_boards.jobs()),
        **scale_fleet.jobs(effort),
        **scale_model.jobs(folder, tiny=tiny),
    }


def _render(rows: list[dict[str, Any]]) -> str:
    ways = [row for row in rows if "way" in row]
    swept = [row for row in rows if "at_once" in row or "cell" in row]
    text = scale_bytes.render(ways) if ways else ""
    text += scale_sweep.render(swept) if swept else ""
    text += scale_boards.render([row for row in rows if "boards" in row or "board" in row])
    for row in rows:
        text += scale_fleet.render(row) if "turns" in row else ""
    return text + scale_model.shown(rows)


PARTS = {
    "fleet": Part(
        title="Workers, sweeps and clusters",
        jobs=_jobs,
        render=_render,
        page="scale",
    ),
    "gpu": Part(
        title="Ranking and recovery on a GPU",
        jobs=scale_gpu.jobs,
        render=scale_gpu.render,
        lacks=scale_gpu.lacks,
    ),
    "precision": Part(
        title="Rankings in mixed precision",
        jobs=scale_precision.jobs,
        render=scale_precision.render,
        lacks=scale_precision.lacks,
    ),
}

if __name__ == "__main__":
    run_parts("scale", __doc__, PARTS, threads=2, options_of_its_own=OPTIONS)
