"""Functions of units of work for tests of executors; other processes find them by the name of this module."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from edgeprune.errors import BudgetError
from edgeprune.executors.units import Unit, Work


def drawn(work: Work) -> list[float]:
    """Random numbers of the unit's own seed."""
    time.sleep(work.payload.get("pause_s", 0.0))
    return np.random.default_rng(work.seed).normal(size=4).tolist()


def shared_sum(work: Work) -> int:
    """The payload and what is shared."""
    return work.payload + sum(work.shared)


def refused(_work: Work) -> None:
    """An error with a sentence of its own."""
    raise BudgetError("nothing holds 3 bytes")


def faulty(_work: Work) -> None:
    """An exception that nobody meant."""
    raise KeyError("missing")


def not_picklable(_work: Work) -> object:
    """A result that cannot leave its process."""
    return lambda: None


def killed(work: Work) -> str:
    """End this process as the kernel does, so many times; how often is counted in a file."""
    counted = Path(work.payload["file"])
    times = len(counted.read_text()) if counted.exists() else 0
    if times < work.payload["times"]:
        counted.write_text("x" * (times + 1))
        print("about to go", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def hungry(work: Work) -> int:
    """Hold so many bytes for a while."""
    held = np.ones(work.payload["bytes"], dtype=np.uint8)
    time.sleep(work.payload.get("pause_s", 1.0))
    return int(held[0])


def without_memory(work: Work) -> None:
    """What a library raises where memory is short."""
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
    )


def noted(work: Work) -> int:
    """Leave the number of this process in a folder, then go on for long."""
    folder = Path(work.payload["folder"])
    (folder / f"{os.getpid()}").touch()
    try:
        time.sleep(work.payload["pause_s"])
    except KeyboardInterrupt:
        (folder / f"{os.getpid()}.cleaned").touch()
        raise
    return os.getpid()


def unit(function: object, name: str = "unit", **about: object) -> Unit:
    """A unit with a key like its name."""
    return Unit(name=name, key=name, function=function, **about)  # type: ignore[arg-type]


def process(_work: Work) -> int:
    """The process that it runs in."""
    return os.getpid()
