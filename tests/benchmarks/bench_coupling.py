"""Coupling analysis and surgery over many architectures, beside Torch-Pruning, one model a process.

Run as ``python tests/benchmarks/bench_coupling.py --results FOLDER``; writes ``docs/benchmarks/coupling.md``
from all that lies in FOLDER, and goes on where it stopped when run again. Failures are not tried again:
delete their file for that. ``--limit-minutes 0`` only writes the table anew.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import commit, write_result
from coupling_models import BenchModel, all_models, timm_present
from coupling_report import NOT_RUN, TOOLS, Row, render

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How to run the children."""

    results: Path
    deadline: float
    timeout_s: float
    group_seconds: float
    onnx: bool
    revision: str

    def path(self, model: BenchModel, tool: str) -> Path:
        """File of one result."""
        return self.results / f"{model.key.replace(':', '-')}.{tool}.json"

    def measure(self, model: BenchModel, tool: str) -> None:
        """Run one child, unless its result is there or time is up, and keep what it found."""
        path = self.path(model, tool)
        if path.exists() or time.monotonic() > self.deadline:
            return
        command = [sys.executable, str(HERE / "coupling_child.py"), model.key, tool]
        command += ["--group-seconds", str(self.group_seconds)]
        if not self.onnx:
            command.append("--no-onnx")
        facts = run_child(command, self.timeout_s)
        facts["revision"] = self.revision
        path.write_text(json.dumps(facts, indent=1))
        reason = facts.get("error") or f"{facts['seconds']:.0f} s"
        print(f"{model.key}, {tool}: {reason}", flush=True)


def main() -> None:
    """Sweep, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--results", type=Path, help="keeps one JSON a model and tool (default: a scratch folder)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="models by key or name; others are 'not run'"
    )
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    parser.add_argument("--timeout", type=float, default=900.0, help="CPU seconds for each child")
    parser.add_argument("--group-seconds", type=float, default=600.0, help="for checking groups alone")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--large", action="store_true", help="also models with more than 600 MB of weights")
    parser.add_argument("--no-onnx", action="store_true", help="do not export the pruned graphs")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--revision", default=commit(), help="of the measured code, outside a checkout")
    options = parser.parse_args()
    models = [m for m in all_models() if options.large or not m.large]
    chosen = [m for m in models if not options.only or {m.key, m.name} & set(options.only)]
    if options.only and (unknown := set(options.only) - {x for m in models for x in (m.key, m.name)}):
        parser.error(f"no such model: {', '.join(sorted(unknown))}; large ones need --large")
    with tempfile.TemporaryDirectory() as scratch:
        sweep = Sweep(
            results=options.results or Path(scratch),
            deadline=time.monotonic() + 60 * options.limit_minutes,
            timeout_s=options.timeout,
            group_seconds=options.group_seconds,
            onnx=not options.no_onnx,
            revision=options.revision,
        )
        sweep.results.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda pair: sweep.measure(*pair), [(m, t) for m in chosen for t in options.tools]))
        rows = [Row(model=m, tools={t: load(sweep.path(m, t)) for t in TOOLS}) for m in models]
    write_result("coupling.md", render(rows, jobs=options.jobs, timm=timm_present()))


def run_child(command: list[str], timeout_s: float) -> dict[str, Any]:
    """What the child told; a crash or time-out is an ``error`` beside what was known before it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [*command, "--cpu-seconds", str(math.ceil(timeout_s))]
    child = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    told, complaints = child.stdout, child.stderr
    lines = [line for line in told.splitlines() if line.startswith("{") and line.endswith("}")]
    facts: dict[str, Any] = json.loads(lines[-1]) if lines else {"stage": "start", "seconds": 0.0}
    if child.returncode == -signal.SIGXCPU:
        facts.update(error=f"time limit of {timeout_s:.0f} CPU seconds", seconds=timeout_s)
    elif child.returncode != 0:
        last = (complaints.strip().splitlines() or ["no message"])[-1][:300]
        facts["error"] = f"the process ended with status {child.returncode}: {last}"
    return facts


def load(path: Path) -> dict[str, Any]:
    """A kept result."""
    return json.loads(path.read_text()) if path.exists() else {"error": NOT_RUN}


if __name__ == "__main__":
    main()
