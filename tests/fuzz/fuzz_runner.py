"""Runs a case in a process forked from a warmed one, with limits, and looks at what is left."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import pty
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fuzz_cases import Case, built
from fuzz_child import CPU_LIMIT_S, apply, limited
from fuzz_commands import APPLY
from fuzz_judge import MOST_BYTES, Observed, Stop, faults, odd_characters
from google.protobuf.message import DecodeError
from onnx import ModelProto
from small_project import fork_command, snapshot

IDLE_LIMIT_S = 60.0
"""How long a case may wait for something. Of one that computes only processor time counts: the machine may be
busy with other things."""
_LOOK_EVERY_S = 0.03
_TERMINALS = 7
"""One case in so many writes to a terminal."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A case with what it typed, how it ended and what was against the promise."""

    case: Case
    arguments: tuple[str, ...]
    observed: Observed
    faults: tuple[str, ...]


def run_case(case: Case, seeds: Path, statuses: frozenset[int], keep: Path | None = None) -> Outcome:
    """Make the case's files in a folder of its own, run it, judge it.

    Where something is wrong, what was given and said is copied to ``keep``.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as base:
        folder, scratch = Path(base) / "case", Path(base) / "scratch"
        folder.mkdir()
        arguments = built(case, seeds, folder)
        given = Path(base) / "given"
        shutil.copytree(folder, given, symlinks=True)
        observed = observe(arguments, folder, scratch, terminal=case.seed % _TERMINALS == 3)
        observed = replace(observed, input_values=_input_values(given))
        found = faults(observed, statuses)
        if found and keep is not None:
            _keep(keep / str(case).replace(":", "-"), given, case, arguments, observed, found)
    return Outcome(case=case, arguments=arguments, observed=observed, faults=tuple(found))


def _input_values(folder: Path) -> int:
    """Values, but for the batch, of the largest input that an ONNX file in a folder states."""
    found = 0
    for path in folder.glob("*.onnx"):
        try:
            inputs = ModelProto.FromString(path.read_bytes()).graph.input
        except (DecodeError, OSError):
            continue
        shapes = [[max(d.dim_value, 1) for d in i.type.tensor_type.shape.dim[1:]] for i in inputs]
        found = max([found, *map(math.prod, shapes)])
    return found


def observe(arguments: Sequence[str], folder: Path, scratch: Path, *, terminal: bool = False) -> Observed:
    """Run a command in ``folder``, with its temporary files in ``scratch``."""
    scratch.mkdir()
    streams_folder = scratch.with_name("streams")
    streams_folder.mkdir()
    before = snapshot(folder)
    with _streams(streams_folder, terminal) as (streams, read):
        started = time.monotonic()
        process = fork_command(
            *arguments[1:] if arguments[0] == APPLY else arguments,
            cwd=folder,
            scratch=scratch,
            streams=streams,
            prepare=limited,
            main=apply if arguments[0] == APPLY else None,
        )
        use = _watched(process)
        seconds = time.monotonic() - started
        printed, said = read()
    after = snapshot(folder)
    outputs = _outputs(arguments)
    results = _RESULTS.get(arguments[0], frozenset({0}))
    made = _topmost(set(after) - set(before))
    return Observed(
        status=process.exitcode,
        results=results,
        printed=printed,
        said=said,
        terminal=terminal,
        verbose="-v" in arguments,
        stop=_stopped(use.stop, process.exitcode),
        seconds=seconds,
        cpu_s=use.cpu_s,
        peak_bytes=use.peak_bytes,
        outputs=outputs,
        made=tuple(path for path in made if path not in before),
        # A journal is finished and goes, or says why not.
        changed=tuple(p for p in before if after.get(p) != before[p] and not p.startswith("out.journal")),
        temporary=tuple(sorted(os.listdir(scratch))),
        output_faults=tuple(_output_faults(folder, outputs, well=process.exitcode in results)),
    )


@dataclass(kw_only=True)
class _Use:
    """The most memory that a process had, its processor time, and why it was killed, if it was."""

    peak_bytes: int = 0
    cpu_s: float = 0.0
    stop: Stop | None = None


def _watched(process: Any) -> _Use:
    """Wait for a process, and kill its group where it takes too long or too much."""
    use, last_s = _Use(), time.monotonic()
    while process.is_alive() and use.stop is None:
        process.join(_LOOK_EVERY_S)
        use.peak_bytes = max(use.peak_bytes, memory_bytes(process.pid))
        cpu_s = cpu_seconds(process.pid)
        if cpu_s > use.cpu_s or _is_running(process.pid):
            use.cpu_s, last_s = max(cpu_s, use.cpu_s), time.monotonic()
        if use.peak_bytes > MOST_BYTES:
            use.stop = Stop.MEMORY
        elif use.cpu_s > CPU_LIMIT_S or time.monotonic() - last_s > IDLE_LIMIT_S:
            use.stop = Stop.TIME
    kill_group(process.pid)
    process.join()
    return use


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its children had so far; 0 where it is gone."""
    fields = _stat(pid)
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0
    return own + sum(cpu_seconds(child) for child in _children(pid))


def _is_running(pid: int) -> bool:
    """Whether a process or a child of it computes, or waits for a processor to do so."""
    return _stat(pid)[:1] == ["R"] or any(_is_running(child) for child in _children(pid))


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill_group(pid: int) -> None:
    """Kill a process with all that it started; nothing where they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def memory_bytes(pid: int) -> int:
    """The most memory that a process had so far, with that of its children; 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    most = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(most.split()[1]) * 1024 + sum(memory_bytes(child) for child in _children(pid))


def _stopped(stop: Stop | None, status: int) -> Stop | None:
    return Stop.TIME if stop is None and status in (-signal.SIGXCPU, -signal.SIGKILL) else stop


@contextlib.contextmanager
def _streams(
    folder: Path, terminal: bool
) -> Iterator[tuple[tuple[Path, Path], Callable[[], tuple[str, str]]]]:
    """Where stdout and stderr go, files or one terminal each, and what reads them in the end."""
    if not terminal:
        files = (folder / "stdout", folder / "stderr")
        yield files, lambda: (_text(files[0].read_bytes()), _text(files[1].read_bytes()))
        return
    pairs = [pty.openpty() for _ in range(2)]
    parts: list[list[bytes]] = [[], []]
    readers = [
        threading.Thread(target=_drain, args=(master, found), daemon=True)
        for (master, _), found in zip(pairs, parts, strict=True)
    ]
    for reader in readers:
        reader.start()

    def read() -> tuple[str, str]:
        for _, slave in pairs:
            os.close(slave)
        for reader in readers:
            reader.join(10)
        printed, said = (_text(b"".join(found)).replace("\r\n", "\n") for found in parts)
        return printed, said

    names = tuple(Path(os.ttyname(slave)) for _, slave in pairs)
    try:
        yield (names[0], names[1]), read
    finally:
        for master, _ in pairs:
            os.close(master)


def _drain(master: int, found: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # how a terminal says that nobody has its other end any longer
        while data := os.read(master, 65_536):
            found.append(data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _topmost(paths: set[str]) -> list[str]:
    return sorted({path.split("/")[0] if "/" in path else path for path in paths})


def _outputs(arguments: Sequence[str]) -> frozenset[str]:
    """What the command was asked to write."""
    named = {after for option, after in itertools.pairwise(arguments) if option in _WRITTEN}
    return frozenset(named) if "--dry-run" not in arguments else frozenset()


_RESULTS = {"check": frozenset({0, 1, 3})}
"""A gate that passes, fails or cannot tell."""
_WRITTEN = ("-o", "--graph", "--html", "--markdown", "--junit", "--summary", "--comment")


def _output_faults(folder: Path, outputs: frozenset[str], *, well: bool) -> Iterator[str]:
    """Whether what was written is whole, and harmless to read on a terminal."""
    for name in sorted(outputs) if well else ():
        path = folder / name
        if not path.exists():
            yield f"no {name}"
            continue
        texts = [path] if path.suffix == ".svg" else sorted(path.glob("*.md")) if path.is_dir() else []
        for text in texts:
            if odd := odd_characters(text.read_text(encoding="utf-8")):
                yield f"control characters in {text.name}: {', '.join(f'U+{ord(c):04X}' for c in odd)}"
        if path.is_dir():
            yield from _manifest_faults(path)


def _manifest_faults(folder: Path) -> Iterator[str]:
    listed = {f["path"]: f["sha256"] for f in json.loads((folder / "manifest.json").read_text())["outputs"]}
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    del found["manifest.json"]
    if set(listed) != set(found):
        yield f"the manifest and the folder differ in {sorted(set(listed) ^ set(found))[:3]}"
    for name in set(listed) & set(found):
        if hashlib.sha256(found[name].read_bytes()).hexdigest() != listed[name]:
            yield f"{name} is not what the manifest says"


def _keep(
    folder: Path, given: Path, case: Case, arguments: Sequence[str], observed: Observed, found: Sequence[str]
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(given, folder / "given", symlinks=True)
    told = {
        "case": f"python tests/fuzz/run.py --case {case}",
        "arguments": list(arguments),
        "faults": list(found),
        "status": observed.status,
        "seconds": round(observed.seconds, 2),
        "peak_bytes": observed.peak_bytes,
        "stdout": observed.printed[-20_000:],
        "stderr": observed.said[-20_000:],
    }
    (folder / "finding.json").write_text(json.dumps(told, indent=1) + "\n")


def describe(outcome: Outcome) -> str:
    """One line on how a case ended."""
    seen = outcome.observed
    words = "; ".join(outcome.faults) or "as promised"
    used = f"{seen.seconds:.1f} s ({seen.cpu_s:.1f} s CPU), {seen.peak_bytes / 2**20:.0f} MiB"
    return f"{outcome.case}: status {seen.status}, {used}: {words}"


def show(outcome: Outcome) -> None:
    """All about a case, for whoever looks into it."""
    seen = outcome.observed
    print(f"edgeprune {' '.join(map(ascii, outcome.arguments))}"[:3000])
    print(f"stdout: {ascii(seen.printed)[:3000]}\nstderr: {ascii(seen.said)[-3000:]}")
    print(describe(outcome))
    sys.stdout.flush()
