"""A sweep that measures on two boards at the same time, beside each board by itself.

Boards are ssh servers on the loopback address, each with a user and a core of its own.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations, product
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
TURNS = ("one", "two", "one, two")
"""Which boards measure: each by itself, then both."""
ROUNDS = 6
"""All turns so often, in drawn order, so that the noise of a board by itself is known."""
SEED = 0


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
        _swept(work, boards, effort, again=False)  # makes the cells
        draw = random.Random(SEED)
        for named in (turn for _ in range(ROUNDS) for turn in draw.sample(TURNS, len(TURNS))):
            chosen = {name: boards[name] for name in named.split(", ")}
            report = _swept(work, chosen, effort, again=True)
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


def _figures(turns: list[Row], *, alone: bool) -> dict[tuple[str, str], list[float]]:
    """CPU milliseconds by candidate and board, a figure a turn."""
    found: dict[tuple[str, str], list[float]] = {}
    for turn in turns:
        if (turn["boards"] in BOARDS) == alone:
            for each in turn["found"]:
                key = (each["cell"], each["device"])
                found.setdefault(key, []).append(each["latency"]["cpu_time_p50_ms"])
    return found


def _apart(pairs: list[tuple[float, float]]) -> list[float]:
    """How far apart two figures are, as logarithms of their ratios, in rising order."""
    return sorted(abs(math.log(second / first)) for first, second in pairs)


def _words(apart: list[float]) -> str:
    """Median, 95th percentile and largest, in percent."""
    picked = statistics.median(apart), apart[math.ceil(0.95 * len(apart)) - 1], apart[-1]
    return " | ".join(f"{100 * math.expm1(each):.1f}%" for each in picked)


def render(row: Row) -> str:
    """Figures of turns alone among themselves, and of turns beside the other board against those."""
    turns = row["turns"]
    alone, beside = _figures(turns, alone=True), _figures(turns, alone=False)
    by_itself = _apart([pair for times in alone.values() for pair in combinations(times, 2)])
    at_once = _apart([pair for key, times in alone.items() for pair in product(times, beside[key])])
    shifts = {key: statistics.mean(map(math.log, beside[key])) - statistics.mean(map(math.log, times))
              for key, times in alone.items()}  # fmt: skip
    text = (
        "\n## A fleet over ssh\n\n"
        "Cells of the digits example on two boards: servers on the loopback address, each with a user and\n"
        f"one core of its own, one thread. {ROUNDS} rounds of sweeps in drawn order: of one board, of the\n"
        "other, and of both at the same time. CPU time of an inference as the sweep reports it, that of\n"
        "five processes. *alone*: median of the turns of that board by itself; then the smallest and the\n"
        "largest figure over it.\n\n"
        "| candidate | board | alone | range alone | range beside the other |\n|---|---|---|---|---|\n"
    )
    for key, times in sorted(alone.items(), key=lambda item: item[0][::-1]):
        middle = statistics.median(times)
        ranges = " | ".join(
            f"{min(each) / middle:.3f} to {max(each) / middle:.3f}" for each in (times, beside[key])
        )
        text += f"| {key[0]} | {key[1]} | {middle:.4f} ms | {ranges} |\n"
    outside = sum(each > by_itself[-1] for each in at_once)
    by_chance = len(at_once) / (len(by_itself) + 1)
    spent = {
        both: statistics.median(turn["seconds"] for turn in turns if (", " in turn["boards"]) == both)
        for both in (False, True)
    }
    return text + (
        "\nTwo figures of one candidate on one board, apart by:\n\n"
        "| turns | pairs | median | 95% | largest |\n|---|---|---|---|---|\n"
        f"| both alone (A/A) | {len(by_itself)} | {_words(by_itself)} |\n"
        f"| alone and beside the other | {len(at_once)} | {_words(at_once)} |\n\n"
        f"Beyond the largest of A/A: {outside} of {len(at_once)}; were both kinds of turns alike, "
        f"{by_chance:.1f} are to be expected,\nsince there are more of these pairs. Times beside the other "
        f"board are {100 * math.expm1(statistics.mean(shifts.values())):+.1f}% of those alone on average\n"
        f"(by candidate {100 * math.expm1(min(shifts.values())):+.1f}% to "
        f"{100 * math.expm1(max(shifts.values())):+.1f}%). A sweep of one board took {spent[False]:.0f} s, "
        f"one of both {spent[True]:.0f} s.\n"
    )
