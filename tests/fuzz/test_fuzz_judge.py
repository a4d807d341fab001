"""The judge finds each kind of broken promise, and nothing where there is none."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from fuzz_judge import LARGE_INPUT, MOST_BYTES, Observed, Stop, documented_statuses, faults, odd_characters
from fuzz_values import CANARY, CONTROLS

STATUSES = documented_statuses()
FAILED = Observed(status=3, said="[0:00] load\nwarning: slow\nerror: 'x' is no model; give one\n")
DONE = Observed(
    status=0, printed="a table\n", said="written to out\n", outputs=frozenset({"out"}), made=("out",)
)
UNDOCUMENTED = 69
KEPT = "warning: kept in out.journal; --resume goes on\n"


def test_documented_statuses_are_those_of_the_page() -> None:
    assert {0, 1, 2, 3, 13, 70, 130, 141, 143} <= STATUSES
    assert STATUSES.isdisjoint({UNDOCUMENTED, 71, 139, 255})


@pytest.mark.parametrize("observed", [
    FAILED,
    DONE,
    replace(FAILED, status=2, said="error: no such option\ntry: edgeprune --help\n"),
    replace(FAILED, said=FAILED.said + KEPT, made=("out.journal",)),
    replace(FAILED, terminal=True, said="\x1b[2K\x1b[1A\x1b[32mload\x1b[0m\x1b[?25l\rerror: no\n"),
    replace(DONE, temporary=(".ses",)),
    replace(DONE, printed="é ü ° \t µs\n"),
])  # fmt: skip
def test_what_is_as_promised(observed: Observed) -> None:
    assert faults(observed, STATUSES) == []


BROKEN: dict[str, tuple[Observed, str]] = {
    "traceback": (replace(FAILED, said=f"Traceback (most recent call last):\n{FAILED.said}"), "a traceback"),
    "status": (replace(FAILED, status=UNDOCUMENTED), f"status {UNDOCUMENTED}, which is not documented"),
    "fault": (replace(FAILED, status=70), "status 70"),
    "signal": (replace(FAILED, status=-signal.SIGSEGV), "died of SIGSEGV"),
    "silent": (replace(FAILED, said=""), "0 sentences for one failure"),
    "two sentences": (replace(FAILED, said=2 * FAILED.said), "2 sentences for one failure"),
    "error and 0": (replace(DONE, said="error: no\n"), "an error with status 0"),
    "library": (replace(DONE, said="/x.py:3: UserWarning: odd\n"), "a line that is not edgeprune's"),
    "long": (replace(FAILED, said=f"error: {'x ' * 4000}\n"), "more than 4,000 characters"),
    "left": (replace(FAILED, made=("out",)), "left behind: 'out'"),
    "left hidden": (replace(DONE, made=("out", ".edgeprune-1.tmp")), "left behind: '.edgeprune-1.tmp'"),
    "journal untold": (replace(FAILED, made=("out.journal",)), "left behind: 'out.journal'"),
    "temporary": (replace(DONE, temporary=("edgeprune-1",)), "left in the temporary folder: 'edgeprune-1'"),
    "changed": (replace(DONE, changed=("model.pt",)), "inputs were changed: 'model.pt'"),
    "code": (replace(FAILED, made=(CANARY,)), "code out of the file was run"),
    "code elsewhere": (replace(FAILED, temporary=(CANARY,)), "code out of the file was run"),
    "hang": (replace(FAILED, stop=Stop.TIME, status=-signal.SIGKILL), "it hangs"),
    "memory": (replace(DONE, peak_bytes=MOST_BYTES + 1), "more than 2 GiB"),
    "memory of a small input": (
        replace(DONE, stop=Stop.MEMORY, status=-signal.SIGKILL, input_values=LARGE_INPUT),
        "more than 2 GiB",
    ),
    "hang of a large input": (replace(DONE, stop=Stop.TIME, input_values=2 * LARGE_INPUT), "it hangs"),
    "output": (replace(DONE, output_faults=("no out with status 0",)), "no out with status 0"),
}


def test_memory_that_a_large_input_explains_is_no_fault() -> None:
    observed = replace(DONE, stop=Stop.MEMORY, status=-signal.SIGKILL, input_values=LARGE_INPUT + 1)
    assert faults(observed, STATUSES) == []


@pytest.mark.parametrize("kind", BROKEN)
def test_each_broken_promise_is_told(kind: str) -> None:
    observed, words = BROKEN[kind]
    assert any(words in fault for fault in faults(observed, STATUSES)), faults(observed, STATUSES)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("stream", ["printed", "said"])
def test_control_characters_of_a_file_are_told_from_those_of_progress(
    control: str, terminal: bool, stream: str
) -> None:
    observed = replace(FAILED if stream == "said" else DONE, terminal=terminal)
    text = getattr(observed, stream).replace("\n", f" {control} x\n")
    found = faults(replace(observed, **{stream: text}), STATUSES)
    assert any("control characters on" in fault for fault in found)
    assert odd_characters(control)
