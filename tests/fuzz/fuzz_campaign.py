"""Cases one after the other for a time, kept going whatever is found, and the page about them."""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import header, write_result
from fuzz_cases import PAIRS, Case
from fuzz_judge import LARGE_INPUT, documented_statuses
from fuzz_runner import Outcome, describe, run_case
from killed import RUNS, Killed, kill_at_points

PAGE, KILLED_PAGE = "robustness.md", "robustness-killed.md"
SAY_EVERY_S = 30.0


def campaign(options: argparse.Namespace, seeds: Path) -> int:
    """What ``run.py`` was asked for; 1 where anything was against the promise."""
    killed = kill_at_points(options.kills, seeds, options.seed, runs=options.run or RUNS)
    outcomes = list(_outcomes(options, seeds))
    if options.page and outcomes:
        write_result(PAGE, _page(options, outcomes))
    if options.page and killed:
        write_result(KILLED_PAGE, _killed(options, killed))
    against = sum(bool(o.faults) for o in outcomes) + sum(bool(k.faults) for k in killed)
    cpu_s = sum(o.observed.cpu_s for o in outcomes)
    print(
        f"{len(outcomes)} cases ({cpu_s:.0f} s of processor time) and {len(killed)} killed runs, "
        f"{against} against the promise"
    )
    return int(against > 0)


def _outcomes(options: argparse.Namespace, seeds: Path) -> Iterator[Outcome]:
    """One case of every format and command in turn, until the time is over."""
    statuses = documented_statuses()
    pairs = [pair for pair in PAIRS if ":".join(pair).startswith(options.only)]
    began_s = said_s = time.monotonic()
    count = against = 0
    for number in itertools.count(options.seed):
        for name, command in pairs:
            now_s = time.monotonic()
            if now_s - began_s > 60 * options.minutes:
                return
            if now_s - said_s > SAY_EVERY_S:
                said_s, left = now_s, options.minutes - (now_s - began_s) / 60
                print(f"{count} cases, {against} against the promise, {left:.0f} min left", flush=True)
            outcome = run_case(Case(name, command, number), seeds, statuses, options.findings)
            count += 1
            if outcome.faults:
                against += 1
                print(describe(outcome), flush=True)
            yield outcome


def _page(options: argparse.Namespace, outcomes: Sequence[Outcome]) -> str:
    command = f"python tests/fuzz/run.py --kills 0 --minutes {options.minutes:g} --seed {options.seed}"
    against = [o for o in outcomes if o.faults]
    title = "Robustness: changed files of every format"
    text = header(title, command, f"{options.seed} and following", 1)
    text += (
        f"{len(outcomes)} cases in {options.minutes:g} minutes, each in a process of its own with at most "
        f"60 s of processor time and 2 GiB; {len(against)} against the promise of `docs/exit-statuses.md` "
        "and `docs/security.md`: a traceback, a status that is not documented, 70, death by a signal, no or "
        "more than one sentence, a control character (one case in seven writes to a terminal), a file left "
        f"behind, an output that is not whole, code of the file that was run, a hang, more than 2 "
        f"GiB.{_large(outcomes)}\n\n"
        "Statuses are followed by how often they were seen; *longest* is processor time.\n\n"
        "| format | command | cases | against | statuses | longest | most memory |\n"
        "|---|---|---:|---:|---|---:|---:|\n"
    )
    by_pair: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_pair[outcome.case.format, outcome.case.command].append(outcome)
    text += "".join(_row(*pair, found) for pair, found in by_pair.items())
    return text + _findings(against)


def _large(outcomes: Sequence[Outcome]) -> str:
    count = sum(o.observed.of_large_input for o in outcomes)
    if not count:
        return ""
    return (
        f" Not counted: {count} ended at 2 GiB, of models whose input has more than {LARGE_INPUT} values; "
        "what running a model takes is not promised."
    )


def _row(name: str, command: str, found: Sequence[Outcome]) -> str:
    seen = Counter(o.observed.status for o in found)
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(seen.items()))
    longest = max(o.observed.cpu_s for o in found)
    most = max(o.observed.peak_bytes for o in found) / 2**20
    against = sum(bool(o.faults) for o in found)
    return (
        f"| {name} | {command} | {len(found)} | {against} | {statuses} | {longest:.1f} s | {most:.0f} MiB |\n"
    )


def _findings(against: Sequence[Outcome]) -> str:
    if not against:
        return "\nNothing was against the promise.\n"
    lines = "".join(f"- `{o.case}`: {'; '.join(o.faults)}\n" for o in against)
    return f"\n## Against the promise\n\n`python tests/fuzz/run.py --case CASE` runs one again.\n\n{lines}"


def _killed(options: argparse.Namespace, killed: Sequence[Killed]) -> str:
    command = f"python tests/fuzz/run.py --minutes 0 --kills {options.kills} --seed {options.seed}"
    command += "".join(f" --run '{run}'" for run in options.run or ())
    text = header("Robustness: runs that are killed", command, f"{options.seed} and following", 1)
    text += (
        "SIGKILL to the whole process group at a random point of the processor "
        "time of the undisturbed run, then the same command with `--resume`. *The same*: every file has the "
        "bytes of the undisturbed run, but for times, measurements and the command that reports and the "
        "manifest name, and nothing is left beside the output or in the temporary folder.\n\n"
        "| run | killed | of these with a journal to go on from | points | the same | not |\n"
        "|---|---:|---:|---|---:|---:|\n"
    )
    for run in dict.fromkeys(k.run for k in killed):
        own = [k for k in killed if k.run == run]
        shares = sorted(k.share for k in own)
        against = sum(bool(k.faults) for k in own)
        text += (
            f"| {run} | {len(own)} | {sum(k.kept for k in own)} | {shares[0]:.0%} to {shares[-1]:.0%} | "
            f"{len(own) - against} | {against} |\n"
        )
    return text + "".join(
        f"\n- {k.run} at {k.share:.1%}: {'; '.join(k.faults)}\n" for k in killed if k.faults
    )
