"""Runs that are killed at any point and go on with ``--resume``: the same bytes as undisturbed, nothing left.

Part of ``python tests/fuzz/run.py``; alone: ``python tests/fuzz/run.py --minutes 0 --kills 20``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_runner import cpu_seconds, kill_group
from fuzz_seeds import MODEL, RATIO_RUN, SEARCH
from small_project import fork_command, own_group, snapshot

RUNS = {
    "--ratio": ("compress", *MODEL, *RATIO_RUN),
    "budget search": ("compress", *MODEL, *SEARCH),
}
_MOST_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """Where a run that nobody killed wrote its output, and the processor time that it took."""

    output: Path
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A run that was killed and went on. ``share`` is when, of the processor time of the whole.

    ``kept`` says whether a journal was there to go on from; ``faults`` is what was against the promise.
    """

    run: str
    share: float
    kept: bool
    faults: tuple[str, ...]


def undisturbed(run: str, seeds: Path, folder: Path) -> Undisturbed:
    """Run to the end."""
    status, cpu_s, said = _run(seeds, folder, *RUNS[run], "-o", str(folder / "out"))
    assert status == 0, said
    return Undisturbed(output=folder / "out", cpu_s=cpu_s)


def kill_and_resume(run: str, seeds: Path, whole: Undisturbed, folder: Path, rng: random.Random) -> Killed:
    """Kill the run at a random point and go on with it; a run that ends before its point is done again.

    Raises:
        RuntimeError: it always ends before.
    """
    for attempt in range(_MOST_TRIES):
        place = folder / str(attempt)
        share = rng.random()
        asked = (*RUNS[run], "-o", str(place / "out"))
        status, _, _ = _run(seeds, place, *asked, kill_at_s=share * whole.cpu_s)
        if status == -signal.SIGKILL:
            break
    else:
        raise RuntimeError(f"the run {run!r} always ended before it was to be killed")
    faults = []
    if (place / "out").exists():
        faults += _differences(whole.output, place / "out", "what the killed run wrote")
        asked = (*asked, "--overwrite")
    kept = (place / "out.journal").exists()
    status, _, said = _run(seeds, place, *asked, "--resume")
    if status:
        faults.append(f"--resume ends with status {status}: {said[-300:]!a}")
    else:
        faults += _differences(whole.output, place / "out", "the output")
    if left := sorted(set(os.listdir(place)) - {"out", "scratch", "streams"}):
        faults.append(f"left beside the output: {', '.join(left)}")
    if left := [name for name in os.listdir(place / "scratch") if "edgeprune" in name]:
        faults.append(f"left in the temporary folder: {', '.join(left)}")
    return Killed(run=run, share=share, kept=kept, faults=tuple(faults))


def _run(
    seeds: Path, folder: Path, *arguments: str, kill_at_s: float | None = None
) -> tuple[int, float, str]:
    """Status (negative for a signal), processor time and stderr of a command, killed after such a time."""
    streams = folder / "streams"
    streams.mkdir(parents=True, exist_ok=True)
    process = fork_command(
        *arguments,
        cwd=seeds,
        scratch=folder / "scratch",
        streams=(streams / "stdout", streams / "stderr"),
        prepare=own_group,
    )
    cpu_s = 0.0
    while process.is_alive():
        process.join(0.002)
        cpu_s = max(cpu_s, cpu_seconds(process.pid))
        if kill_at_s is not None and cpu_s >= kill_at_s:
            time.sleep(0.01 * (kill_at_s * 1000 % 1))  # the clock of processor time ticks so rarely
            break
    kill_group(process.pid)
    process.join()
    return process.exitcode, cpu_s, (streams / "stderr").read_text()


def _differences(expected: Path, found: Path, what: str) -> list[str]:
    """Where an output is not the undisturbed one, but for times and places that are written down in it."""
    before, after = snapshot(expected), snapshot(found)
    if set(before) != set(after):
        return [f"{what} has other files: {', '.join(sorted(set(before) ^ set(after))[:5])}"]
    differ = [
        name
        for name in sorted(before)
        if before[name] != after[name] and not _is_told_anew(expected / name, found / name)
    ]
    return [f"{what} differs in {', '.join(differ)}"] if differ else []


def _is_told_anew(expected: Path, found: Path) -> bool:
    """Whether two files differ only in when, how long, where to and by which command."""
    if expected.name in _WORDS_OF_THE_REPORT:
        return True
    if expected.name not in ("report.json", "manifest.json", "candidate.json"):
        return False
    left_out = _OF_A_RUN | (_OF_A_FILE if expected.name == "manifest.json" else set())
    one, two = (_timeless(_content(path), left_out) for path in (expected, found))
    return bool(one == two)


def _content(path: Path) -> Any:
    """What a file says; of a record without the checksum, which is also of how long things took."""
    found = json.loads(path.read_text())
    if path.name == "candidate.json":
        found.pop("sha256")
    return found


_WORDS_OF_THE_REPORT = frozenset({"report.md", "report.html", "README.md", "bom.cdx.json"})
"""Files that say in words what ``report.json``, which is compared, says in figures."""
_OF_A_RUN = frozenset(
    {
        *("created_utc", "command", "stage_times", "sessions", "duration_s"),
        *("latency", "latency_ratio", "peak_memory_bytes", "operators"),
    }
)
"""Of the report: when and how it was run, how long it took, and what was measured on this machine."""
_OF_A_FILE = frozenset({"sha256", "size_bytes"})
"""Of the manifest, which also lists the report."""


def _timeless(value: Any, left_out: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v, left_out) for k, v in value.items() if k not in left_out}
    return [_timeless(item, left_out) for item in value] if isinstance(value, list) else value


def kill_at_points(
    points: int,
    seeds: Path,
    seed: int,
    say: Callable[[str], None] = print,
    runs: Iterable[str] = RUNS,
) -> list[Killed]:
    """So many random points of each run."""
    rng, found = random.Random(seed), []
    with tempfile.TemporaryDirectory(prefix="fuzz-killed-") as folder:
        for run in runs if points else ():
            base = Path(folder) / run.strip("-")
            whole = undisturbed(run, seeds, base / "undisturbed")
            for point in range(points):
                place = base / str(point)
                found.append(kill_and_resume(run, seeds, whole, place, rng))
                say(f"killed {run} at {found[-1].share:.0%}: {'; '.join(found[-1].faults) or 'same bytes'}")
                shutil.rmtree(place)
    return found
