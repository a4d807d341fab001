"""What the parts of the ImageNet benchmark share: settings, and jobs in child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from code_digests import CODE_KEY
from common import Ended, NotMeasuredError, ended, measured_with

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
_LAST_WORDS = 300


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is to be measured. ``images`` limits those of either kind, for trials of the script itself."""

    ratios: tuple[float, ...]
    methods: tuple[str, ...]
    distill_minutes: float
    images: int | None


def child(task: Row, work: Path) -> Row:
    """The answer of a job in a process of its own.

    Raises:
        NotMeasuredError: it failed; with the last line that it wrote.
    """
    question, answer = work / "task.json", work / "answer.json"
    question.write_text(json.dumps(task))
    run([sys.executable, str(HERE / "imagenet_child.py"), str(question), str(answer)], work, task["threads"])
    found: Row = json.loads(answer.read_text())
    measured_with(found.pop(CODE_KEY))
    return found


def run(command: list[str], work: Path, threads: int) -> Ended:
    """A command in a process of its own, what it says in ``work / "output.txt"``.

    Raises:
        NotMeasuredError: it failed; with the last line that it wrote.
    """
    said = work / "output.txt"
    started = time.perf_counter()
    with said.open("w") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        found = ended(process, started)
    if found.status:
        lines = [line.strip() for line in said.read_text().splitlines() if line.strip()]
        words = lines[-1] if lines else "it said nothing"
        raise NotMeasuredError(f"ended with status {found.status}: {words[:_LAST_WORDS]}")
    return found
