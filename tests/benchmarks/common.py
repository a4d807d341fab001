"""Shared by the benchmarks: research data, results as they come, the header of a page, atomic writing."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
from code_digests import PAGES

from edgeprune.commands.run.report_builder import package_versions
from edgeprune.storage.files import atomic_write_text
from edgeprune.system.host import machine_description

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "docs" / "benchmarks"
COMMITS = "commits.txt"
"""In a folder of results: those of the code that they were measured with."""
CODE = "code.txt"
"""In a folder of results: a line a module that they were measured with, its name and its digest."""
_measured_with: set[str] = set()


def research_data() -> Path:
    """Folder of the research data, which users do not have; ends the program with a reason where missing."""
    folder = Path(os.environ.get("EDGEPRUNE_RESEARCH_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "resnet20_cifar10.safetensors").is_file():
        print(f"skipped: no research data in {folder} (set EDGEPRUNE_RESEARCH_DATA)", file=sys.stderr)
        raise SystemExit(0)
    return folder


class NotMeasuredError(Exception):
    """A job could not be done here and now; its words, if any, are the reason, which the page gives."""


Jobs = dict[str, Callable[[Path], dict[str, Any]]]
"""What there is to do with a scratch folder, by the name of its result."""


def _nothing_lacks() -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A page of a benchmark. ``jobs`` are given the folder of results, the number of seeds and of threads.

    ``lacks`` says why the part cannot be measured on this machine, ``None`` where it can. ``page`` is the
    name of its page where that is not the benchmark's with the part's.
    """

    title: str
    jobs: Callable[[Path, int, int], Jobs]
    render: Callable[[list[dict[str, Any]]], str]
    seeded: bool = False
    lacks: Callable[[], str | None] = _nothing_lacks
    page: str | None = None


def run_parts(
    name: str,
    about: str | None,
    parts: dict[str, Part],
    *,
    threads: int,
    options_of_its_own: argparse.ArgumentParser | None = None,
) -> None:
    """The program ``bench_NAME.py``: measure what is not there yet, write ``NAME-PART.md`` of each.

    ``options_of_its_own`` (without ``--help``) are accepted as well; who gives them reads them.
    """
    own = [] if options_of_its_own is None else [options_of_its_own]
    parser = argparse.ArgumentParser(description=about, parents=own)
    parser.add_argument("--results", type=Path, help="keeps one JSON a result (default: a scratch folder)")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--limit-minutes", type=float, default=float("inf"))
    parser.add_argument(
        "--page", help="page to write for some of a part's results (default: that of the part)"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    deadline = time.monotonic() + 60 * options.limit_minutes
    with folder_or_scratch(options.results) as folder:
        for chosen in options.parts:
            part = parts[chosen]
            if (reason := part.lacks()) is not None:
                print(f"skipped {chosen}: {reason}", file=sys.stderr)
                continue
            rows, missing = results_of(part.jobs(folder, options.seeds, options.threads), folder, deadline)
            seeds = ", ".join(str(s) for s in range(options.seeds if part.seeded else 1))
            command = f"python tests/benchmarks/bench_{name}.py --results FOLDER --parts {chosen}"
            command += f" --page {options.page}" if options.page else ""
            text = header(part.title, command, seeds, options.threads, commits(folder))
            text += part.render(rows) if rows else ""
            text += f"\nNot run: {', '.join(missing)}.\n" if missing else ""
            page = options.page or part.page or f"{name}-{chosen}"
            write_result(f"{page}.md", text)
            write_code(page, folder)


@contextmanager
def folder_or_scratch(folder: Path | None) -> Iterator[Path]:
    """The folder, made where it is missing, or one that goes with the block: then nothing can be resumed."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def results_of(jobs: Jobs, folder: Path, deadline: float) -> tuple[list[dict[str, Any]], list[str]]:
    """What was measured before, or now until the deadline (monotonic), and the names of what was not.

    A job gets a scratch folder; its result is kept in ``folder`` under its name. What raises
    ``NotMeasuredError`` is not kept, so that it is tried again.
    """
    rows, missing = [], []
    for name, work in jobs.items():
        path = folder / f"{''.join(c if c.isalnum() or c in '._' else '-' for c in name)}.json"
        if not path.exists():
            if time.monotonic() > deadline:
                missing.append(name)
                continue
            try:
                with tempfile.TemporaryDirectory() as own:
                    found = work(Path(own))
            except NotMeasuredError as reason:
                if words := str(reason):
                    print(f"{name}: not measured: {words}", file=sys.stderr, flush=True)
                missing.append(f"{name} ({words})" if words else name)
                continue
            keep(path, found)
            print(f"{name}: {json.dumps(found)}", flush=True)
        rows.append(json.loads(path.read_text()))
    return rows, missing


def measured_with(digests: dict[str, str]) -> None:
    """Results that are kept from now on rest on these modules, which a child process had loaded."""
    _measured_with.update(f"{name} {digest}" for name, digest in digests.items())


@dataclass(frozen=True)
class Ended:
    """How a child process ended: exit status, wall and CPU time, the most memory it had (bytes), page faults.

    CPU time and page faults count those of its own children, too.
    """

    status: int
    seconds: float
    peak_bytes: int
    cpu_seconds: float
    page_faults: int


def ended(child: subprocess.Popen[Any], started: float) -> Ended:
    """Wait for a child that was started at ``started`` (``time.perf_counter``)."""
    _, waited, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    return Ended(
        status=os.waitstatus_to_exitcode(waited),
        seconds=seconds,
        peak_bytes=usage.ru_maxrss * 1024,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        page_faults=usage.ru_minflt,
    )


def succeeded(command: list[str]) -> Ended:
    """Run a command in a process of its own; raises ``RuntimeError`` where it fails."""
    found = ended(subprocess.Popen(command), time.perf_counter())
    if found.status:
        raise RuntimeError(f"{' '.join(command)} ended with {found.status}")
    return found


@cache
def commit() -> str:
    """Of this code, "changed" behind it where files that a result depends on are not as committed."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], check=True, capture_output=True)
        dirty = [*git, "status", "--porcelain", "--", ".", ":!docs"]
        changed = subprocess.run(dirty, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git repository)"
    return name.stdout.decode().strip() + (" changed" if changed else "")


def keep(path: Path, found: dict[str, Any]) -> None:
    """Put a result in place, and the commit of the code beside it."""
    atomic_write_text(path, json.dumps(found, indent=1))
    for name, lines in ((COMMITS, [commit()]), (CODE, sorted(_measured_with))):
        note = path.parent / name
        known = note.read_text().splitlines() if note.exists() else []
        if set(lines) - set(known):
            atomic_write_text(note, "".join(f"{line}\n" for line in dict.fromkeys([*known, *lines])))


def commits(folder: Path) -> list[str]:
    """Of all results kept in ``folder`` and below."""
    return _noted(folder, COMMITS)


def _noted(folder: Path, name: str) -> list[str]:
    noted = (path.read_text().splitlines() for path in sorted(folder.rglob(name)))
    return list(dict.fromkeys(line for lines in noted for line in lines))


def write_code(page: str, folder: Path) -> None:
    """Put the modules that results in ``folder`` rest on, where they are known, beside the pages."""
    modules: dict[str, list[str]] = {}
    for line in sorted(_noted(folder, CODE)):
        name, digest = line.split()
        modules.setdefault(name, []).append(digest)
    if modules:
        pages = json.loads(PAGES.read_text()) if PAGES.exists() else {}
        pages[page] = modules
        atomic_write_text(PAGES, json.dumps(dict(sorted(pages.items())), indent=1) + "\n")


def header(title: str, command: str, seeds: str, threads: int, made_by: list[str] | None = None) -> str:
    """First lines of a result file: what ran, where, with which versions.

    ``made_by`` are the commits that measured results which were kept; without them all were measured now.
    """
    made_by = [commit()] if made_by is None else made_by
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    return (
        f"# {title}\n\n"
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}; do not edit by hand.\n\n"
        f"- machine: {machine_description()}, {threads} threads\n- versions: {versions}\n"
        f"- measured with commit: {', '.join(made_by) or 'not noted'}\n- seeds: {seeds}\n\n"
    )


def write_result(name: str, text: str) -> None:
    """Put ``docs/benchmarks/NAME`` in place in one step."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    atomic_write_text(RESULTS / name, text)
    print(f"wrote docs/benchmarks/{name}")
