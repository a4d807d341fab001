"""Ctrl-C while Python is where nobody can catch it."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOST = """
import os, signal, sys, time, weakref
from edgeprune.cli import entry
from edgeprune.cli.process.session import Session

signal.signal(signal.SIGINT, signal.default_int_handler)
times = int(sys.argv[1])

class Thing:
    pass

def pressed(_gone):
    os.kill(os.getpid(), signal.SIGINT)

def action():
    for _ in range(times):
        thing = Thing()
        reference = weakref.ref(thing, pressed)
        del thing
    for _ in range(200):
        time.sleep(0.05)
    return 0

sys.exit(entry.guarded(action, Session()))
"""


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_in_a_callback_of_the_collector_is_heeded(times: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, str(times)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "interrupted: nothing was written\n"


def test_what_else_is_lost_in_callbacks_is_still_reported() -> None:
    script = LOST.replace("os.kill(os.getpid(), signal.SIGINT)", "raise ValueError('odd')")
    script = script.replace("range(200)", "range(1)")
    done = subprocess.run(
        [sys.executable, "-c", script, "1"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "ValueError: odd" in done.stderr
