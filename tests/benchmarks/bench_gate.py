"""How often the gate is wrong about CPU time, and how often it decides: A/A pairs and a true slowdown of 10%.

    python tests/benchmarks/bench_gate.py --count 200 [--time-limit 60] [--work FOLDER]

Comparisons of both kinds alternate. Each is kept in ``FOLDER/gate.jsonl`` as soon as it is made, and is not
made again. ``docs/benchmarks/gate.md`` is written from all that there are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.artifacts.codec import to_jsonable
from edgeprune.capture.export import export_program
from edgeprune.exporting import export_onnx
from edgeprune.intervals import wilson_interval
from edgeprune.profiling.rounds import RoundOptions, measure_ratio
from edgeprune.profiling.timing import compare
from edgeprune.system.host import machine_description

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "gate.md"
LIMIT = 1.05
KINDS = {"same": "A/A: a file against a copy", "slower": "10% slower: the same on taller images"}
SIDE, WIDTH = 48, 32
HEIGHTS = range(50, 58)
"""Of the slower network's images: that one is taken whose CPU time here is nearest to 1.10 of the base's."""
SLOWER = 1.10
FEW_PAIRS, PAIRS = 200, 600


def network() -> nn.Module:
    """Three convolutions for images of any size."""
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTH, 10),
    )


def written(height: int, path: Path) -> Path:
    """The network as an ONNX file for images of this height, once."""
    if not path.exists():
        torch.manual_seed(0)
        export_onnx(export_program(network().eval(), torch.zeros(2, 3, height, SIDE)), path)
    return path


def slower_by_a_tenth(work: Path) -> tuple[Path, dict[str, Any]]:
    """The slower file, and its CPU time over the base's by many pairs, measured once."""
    base, slower, record = written(SIDE, work / "base.onnx"), work / "slower.onnx", work / "slower.json"
    if not record.exists():
        tried = {height: written(height, work / f"{height}.onnx") for height in HEIGHTS}
        ratios = {
            height: compare(base, path, threads=1, pairs=FEW_PAIRS).ratio for height, path in tried.items()
        }
        chosen = min(ratios, key=lambda height: abs(ratios[height] - SLOWER))
        shutil.copyfile(tried[chosen], slower)
        found = compare(base, slower, threads=1, pairs=PAIRS)
        record.write_text(json.dumps({"height": chosen, **to_jsonable(found)}))
    return slower, json.loads(record.read_text())


def run(work: Path, count: int, time_limit_s: float) -> None:
    """Make the comparisons that are not there yet."""
    base, log = written(SIDE, work / "base.onnx"), work / "gate.jsonl"
    copy = work / "copy.onnx"
    shutil.copyfile(base, copy)
    slower, _ = slower_by_a_tenth(work)
    others = {"same": copy, "slower": slower}
    done = {(row["kind"], row["number"]) for row in read(log)}
    for number in range(count):
        for kind, other in others.items():
            if (kind, number) in done:
                continue
            options = RoundOptions(threads=1, time_limit_s=time_limit_s, seed=1000 + number)
            found = measure_ratio(base, other, LIMIT, options)
            row = {"kind": kind, "number": number, "load": os.getloadavg()[0], **to_jsonable(found)}
            with log.open("a") as stream:
                stream.write(json.dumps(row) + "\n")


def read(log: Path) -> list[dict[str, Any]]:
    """Comparisons made so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _median(rows: list[dict[str, Any]], key: str) -> float:
    return float(np.median([row[key] for row in rows]))


def page(rows: list[dict[str, Any]], true: dict[str, Any]) -> str:
    """The benchmark page."""
    lines = [
        "# The gate: error rates, measured",
        "",
        "Command: `python tests/benchmarks/bench_gate.py --count 200`, which goes on where it stopped; this "
        "page is of the counts below.",
        "",
        f"`edgeprune check` on CPU time with a limit of {LIMIT}x: a network of three convolutions on "
        f"{SIDE}x{SIDE} pixels against a copy of itself, and against the same on images of "
        f"{true['height']} rows, whose CPU time over the first is {true['ratio']:.3f} ({true['low']:.3f} to "
        f"{true['high']:.3f}, {true['pairs']} interleaved pairs). {machine_description()}; other processes "
        "kept the machine busy throughout. One thread.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, name in KINDS.items():
        own = [row for row in rows if row["kind"] == kind]
        if not own:
            continue
        right, wrong = ("passed", "failed") if kind == "same" else ("failed", "passed")
        counts = {what: sum(row["decision"] == what for row in own) for what in ("passed", "failed")}
        low, high = wilson_interval(counts[wrong], len(own))
        times = [row["duration_s"] for row in own]
        lines.append(
            f"| {name} | {len(own)} | {counts[right]} | {counts[wrong]} | {low:.1%} to {high:.1%} | "
            f"{len(own) - sum(counts.values())} | {sum(counts.values()) / len(own):.0%} | "
            f"{np.median(times):.1f} s | {max(times):.1f} s | {_median(own, 'rounds'):.0f} | "
            f"{_median(own, 'load'):.1f} |"
        )
    return "\n".join([*lines, "", *_MEANING]) + "\n"


_COLUMNS = (
    "comparison", "made", "right", "wrong", "wrong, 95% interval", "open", "decided", "median time",
    "longest", "median rounds", "load",
)  # fmt: skip
_MEANING = (
    "Wrong is a failure of the copy, or a pass of the slower network. By construction at most 1 in 100 "
    "ratios within the limit fails and at most 5 in 100 beyond it pass, at whatever number of rounds "
    "([how](../ci.md#how-latency-is-decided)); the copy and the slower network are both about 5% away from "
    "the limit. Open is what the time limit ended (status 3). Load is the mean number of processes that "
    "wanted a core in the minute before.",
)


def main() -> int:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--work", type=Path, default=Path("out/bench-gate"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    run(given.work, given.count, given.time_limit)
    PAGE.write_text(page(read(given.work / "gate.jsonl"), slower_by_a_tenth(given.work)[1]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
