"""A sweep that measures on two boards at the same time, beside each board by itself.

Boards are ssh servers on the loopback address, each with a user and a core of its own.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import REPOSITORY, Jobs, NotMeasuredError
from scale_bytes import MODEL

sys.path.insert(0, str(REPOSITORY / "tests"))
from loopback_sshd import Sshd, serving

Row = dict[str, Any]

BOARDS = ("one", "two")
RATIOS = (0.25, 0.5)
PRECISIONS = ("fp32", "int8")
TURNS = ("one", "two", "one, two", "one", "two", "one, two")
"""Which boards measure, turn by turn: each by itself twice, so that its own noise is known."""


def jobs(effort: str) -> Jobs:
    """All turns are one result, since they are compared."""
    return {"fleet": lambda work: _measured(work, effort)}


def _measured(work: Path, effort: str) -> Row:
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        raise NotMeasuredError("users of the boards are made by useradd, as root")
    if len(os.sched_getaffinity(0)) < len(BOARDS):
        raise NotMeasuredError("needs a core for each board")
    turns = []
    with ExitStack() as stack:
        boards = {name: stack.enter_context(_board(work / name, place)) for place, name in enumerate(BOARDS)}
        for place, named in enumerate(TURNS):
            chosen = {name: boards[name] for name in named.split(", ")}
            report = _swept(work, chosen, effort, again=place > 0)
            turns.append({"boards": named, "found": report["on_devices"], "seconds": report["duration_s"]})
    return {"turns": turns}


@contextmanager
def _board(folder: Path, core: int) -> Iterator[tuple[Sshd, str]]:
    """A server whose commands run as a user of its own on one core; and how to log in."""
    user = f"edgeprune-board-{core}"
    folder.parent.chmod(0o711)  # the user has to reach its home
    # No password, which is not the same as a locked account, that sshd lets nobody into.
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", "--password", "*", user], check=True)
    try:
        with serving(folder, before=f"taskset -cp {core} $$ >/dev/null;") as server:
            for path in (folder, server.home, folder / "wrapper"):
                shutil.chown(path, user)
            yield server, server.destination.replace(getpass.getuser(), user, 1)
    finally:
        subprocess.run(["pkill", "-KILL", "-u", user], check=False)
        subprocess.run(["userdel", user], check=True)


def _swept(work: Path, boards: dict[str, tuple[Sshd, str]], effort: str, *, again: bool) -> Row:
    """One sweep; all but the first take the cells of the one before."""
    path, _, arch, _, data = MODEL
    text = f'targets = ["rpi4"]\nprecisions = {json.dumps(PRECISIONS)}\n'
    text += f'[[models]]\nname = "digits"\nmodel = "{path}"\narch = "{arch}"\ncalibration = "{data}"\n'
    for ratio in RATIOS:
        text += f'[[budgets]]\nname = "cut{ratio * 100:.0f}"\nratio = {ratio}\n'
    for name, (server, login) in boards.items():
        text += f'[[devices]]\nname = "{name}"\nssh = "{login}"\nidentity = "{server.identity}"\n'
        text += f'known-hosts = "{server.known_hosts}"\n'
    text += f'[options]\neffort = "{effort}"\nthreads = 1\npictures = false\n'
    (work / "sweep.toml").write_text(text)
    command = [sys.executable, "-m", "edgeprune", "sweep", str(work / "sweep.toml"), "-q", "--json"]
    command += ["-o", str(work / "out"), "--cache", str(work / "cache")]
    command += ["--resume", "--overwrite"] if again else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMeasuredError(f"the sweep ended with {done.returncode}: {done.stderr[-500:]}")
    report: Row = json.loads(done.stdout)
    return report


def _times(turn: Row) -> dict[tuple[str, str], dict[str, float]]:
    return {(each["cell"], each["device"]): each["latency"] for each in turn["found"]}


def render(row: Row) -> str:
    """CPU times of every candidate on every board: alone, alone again, and beside the other board."""
    turns = row["turns"]
    alone: list[dict[tuple[str, str], Any]] = [{}, {}]
    for board in BOARDS:
        first, second = (turn for turn in turns if turn["boards"] == board)
        alone[0] |= _times(first)
        alone[1] |= _times(second)
    beside = [_times(turn) for turn in turns if ", " in turn["boards"]]
    text = (
        "\n## A fleet over ssh\n\n"
        "Cells of the digits example on two boards: servers on the loopback address, each with a user and\n"
        "one core of its own, one thread. Each board measured by itself, then both in one sweep at the same\n"
        "time, and all of it once more. CPU time of an inference, median, over the mean of the two turns\n"
        "alone; *band*: the largest difference between the two turns alone of any candidate, either way.\n\n"
        "| candidate | board | alone | alone, again | both at once | both, again |\n"
        "|---|---|---|---|---|---|\n"
    )
    ratios, band = [], 0.0
    for key in alone[0]:
        times = [found[key]["cpu_time_p50_ms"] for found in (*alone, *beside)]
        mean = math.sqrt(times[0] * times[1])
        shown = " | ".join(f"{time / mean:.3f}" for time in times[1:])
        text += f"| {key[0]} | {key[1]} | {times[0]:.4f} ms | {shown} |\n"
        band = max(band, abs(math.log(times[1] / times[0])))
        ratios += [time / mean for time in times[2:]]
    inside = sum(abs(math.log(ratio)) <= band for ratio in ratios)
    middle = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return text + (
        f"\nBand: {100 * (math.exp(band) - 1):.1f}%. Of {len(ratios)} measurements beside the other board, "
        f"{inside} are\nwithin it; their geometric mean is {middle:.3f}. A sweep of one board took "
        f"{turns[3]['seconds']:.0f} s, one of both {turns[5]['seconds']:.0f} s.\n"
    )
