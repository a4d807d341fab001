"""What a run must not do, whatever it was given; independent of the code that keeps the promise."""

from __future__ import annotations

import re
import signal
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from fuzz_values import CANARY
from small_project import CHECKOUT, STAGE_LINE

from edgeprune.errors import SweepError

MOST_BYTES = 2 * 2**30
LARGE_INPUT = 2**22
"""Values of an input for which a model may take more: running it takes what it takes (docs/security.md)."""
LONGEST_LINE = 4_000
FAULT_STATUS = 70
_TURNING = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
_OF_PROGRESS_BARS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[[0-9]*[AK]|\x1b\[\?25[lh]|\r")
"""Colours, a line up, an erased line, the cursor shown and hidden: how rich draws on a terminal."""
_KNOWN = re.compile(
    r"(warning|info|debug|note|calibration data|try|error): .*|defaults from .*|([\w -]+ )?written to .*"
)
_LIBRARY_FILES = frozenset({".ses"})
"""onnxruntime keeps the number of a session there, once, for all processes of a machine."""


class Stop(Enum):
    """Why a run was killed."""

    TIME = "it hangs: still running after the limit"
    MEMORY = "it takes more than 2 GiB"


@dataclass(frozen=True, kw_only=True)
class Observed:
    """How a run ended. ``status`` is negative after a signal; ``verbose``: it was given ``-v``.

    ``results``: statuses that are no failure; those of a gate are three.

    ``made`` are paths that are new beside the inputs.

    ``changed`` are inputs that are not as they were; ``temporary`` is what stayed in the temporary folder;
    ``output_faults`` says what is wrong with what was written. ``input_values`` are those of the largest
    input that an ONNX file among the inputs states.
    """

    status: int
    results: frozenset[int] = frozenset({0})
    printed: str = ""
    said: str = ""
    terminal: bool = False
    verbose: bool = False
    stop: Stop | None = None
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    outputs: frozenset[str] = frozenset()
    made: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    temporary: tuple[str, ...] = ()
    output_faults: tuple[str, ...] = ()
    input_values: int = 0

    @property
    def of_large_input(self) -> bool:
        """Whether it was ended for memory that a large input explains."""
        return self.stop is Stop.MEMORY and self.input_values > LARGE_INPUT


def documented_statuses(page: Path = CHECKOUT / "docs" / "exit-statuses.md") -> frozenset[int]:
    """The first column of the table."""
    return frozenset(int(n) for n in re.findall(r"^\| *(\d+) *\|", page.read_text(encoding="utf-8"), re.M))


def faults(observed: Observed, statuses: Collection[int]) -> list[str]:
    """What was against the promise, in words; empty where nothing was."""
    if observed.of_large_input:
        return []  # it was killed, so its files and words say nothing
    found = []
    if observed.stop is not None:
        found.append(observed.stop.value)
    elif observed.peak_bytes > MOST_BYTES:
        found.append(Stop.MEMORY.value)
    else:
        found += _of_status(observed.status, statuses)
        found += _of_words(observed)
    said = observed.said + observed.printed
    if "Traceback (most recent call last)" in said:
        found.append("a traceback")
    found += _of_characters(observed)
    found += _of_files(observed)
    return found


def _of_status(status: int, statuses: Collection[int]) -> list[str]:
    if status < 0:
        return [f"it died of {signal.Signals(-status).name}"]
    if status == FAULT_STATUS:
        return ["status 70, a fault of edgeprune"]
    return [] if status in statuses else [f"status {status}, which is not documented"]


def _of_words(observed: Observed) -> list[str]:
    """One sentence for a failure, none else, and only edgeprune's own lines."""
    said = (
        _OF_PROGRESS_BARS.sub("", observed.said.replace("\r", "\n")) if observed.terminal else observed.said
    )
    lines = [line for line in said.split("\n") if line and not STAGE_LINE.fullmatch(line)]
    errors = [line for line in lines if line.startswith("error: ")]
    found = []
    well = observed.status in observed.results
    if not well and observed.status > 0 and len(errors) != 1 and observed.status not in (129, 130, 141, 143):
        found.append(f"{len(errors)} sentences for one failure")
    if well and errors:
        found.append(f"an error with status {observed.status}")
    strange = [line for line in lines if not _KNOWN.fullmatch(line)]
    if strange and not observed.terminal and not observed.verbose:  # with -v libraries may warn
        found.append(f"a line that is not edgeprune's: {strange[0][:150]!a}")
    if any(len(line) > LONGEST_LINE for line in lines):
        found.append("a line of more than 4,000 characters")
    return found


def _of_characters(observed: Observed) -> list[str]:
    said = _OF_PROGRESS_BARS.sub("", observed.said) if observed.terminal else observed.said
    printed = _OF_PROGRESS_BARS.sub("", observed.printed) if observed.terminal else observed.printed
    found = []
    for name, text in (("stdout", printed), ("stderr", said)):
        if odd := odd_characters(text):
            found.append(f"control characters on {name}: {', '.join(f'U+{ord(c):04X}' for c in odd)}")
    return found


def odd_characters(text: str) -> list[str]:
    """Control characters but ends of lines and tabs, what turns the writing, and halves of characters."""
    return sorted(
        c
        for c in set(text) - {"\n", "\t"}
        if unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c) in _TURNING
    )


def _of_files(observed: Observed) -> list[str]:
    found = []
    made = set(observed.made)
    if any(Path(path).name == CANARY for path in (*made, *observed.temporary)):
        found.append("code out of the file was run")
        made = {path for path in made if Path(path).name != CANARY}
    some_failed = observed.status == SweepError.exit_status  # of a sweep's cells; the others are written
    expected = observed.outputs if observed.status in observed.results or some_failed else set()
    if "out.journal" in made and "--resume" in observed.said:
        made = {path for path in made if path != "out.journal"}  # what is kept, as the sentence says
    if left := sorted(made - expected):
        found.append(f"left behind: {', '.join(map(ascii, left[:5]))}")
    if observed.changed:
        found.append(f"inputs were changed: {', '.join(map(ascii, observed.changed[:5]))}")
    if temporary := sorted(set(observed.temporary) - _LIBRARY_FILES):
        found.append(f"left in the temporary folder: {', '.join(map(ascii, temporary[:5]))}")
    return found + list(observed.output_faults)
