"""A worker process as its starter sees it."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO, cast

from edgeprune.executors.units import Answer, Failure, FailureKind, Unit
from edgeprune.executors.worker import COMMAND, argument, read_message, write_message
from edgeprune.showing import in_short

Inbox = queue.SimpleQueue[tuple["WorkerProcess", Answer | None]]
"""Answers of all workers; ``None`` where one has ended."""
_TOLD_BYTES = 4096
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class WorkerProcess:
    """One process that performs units, each after the other; it ends with its starter.

    Args:
        shared: what every unit is called with.
        inbox: where its answers go.
    """

    def __init__(self, shared: Any, inbox: Inbox) -> None:
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, argument()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            start_new_session=True,  # Ctrl-C of a terminal goes to its starter alone
        )
        self._asked = cast(BinaryIO, self._process.stdin)
        self._inbox = inbox
        self._reader = threading.Thread(target=self._receive, daemon=True)
        self._reader.start()
        self._send(shared)

    def give(self, unit: Unit) -> None:
        """Begin a unit; its answer, or the end of the worker, comes into the inbox."""
        self._send(unit)

    def resident_bytes(self) -> int:
        """Memory that the process and what it started have in use; 0 where the system does not tell."""
        return sum(map(_resident_bytes, _with_children(self._process.pid)))

    def kill(self) -> None:
        """End it, and what it started, at once; its end comes into the inbox."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, which what it is about has to notice."""
        with contextlib.suppress(OSError):
            self._process.terminate()
        with contextlib.suppress(OSError):
            self._asked.close()

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, and kill it, and what it started, where that takes longer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._asked, cast(BinaryIO, self._process.stdout), self._told):
            with contextlib.suppress(OSError):
                stream.close()

    def cause_of_end(self) -> Failure:
        """Why it ended without an answer; waits until it has."""
        status = self._process.wait()
        self._told.seek(0, os.SEEK_END)
        self._told.seek(max(0, self._told.tell() - _TOLD_BYTES))
        lines = self._told.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        said = f"; the last that it said was {in_short(last)}" if last else ""
        if status == -signal.SIGKILL:
            how = "was killed, as the system does where memory runs out"
        elif status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        else:
            how = f"ended with status {status}"
        return Failure(kind=FailureKind.KILLED, sentence=f"its process {how}{said}")

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # where it has ended already, the inbox says so
            write_message(self._asked, message)

    def _receive(self) -> None:
        answers = cast(BinaryIO, self._process.stdout)
        read_message(answers)  # ready
        while (data := read_message(answers)) is not None:
            self._inbox.put((self, pickle.loads(data)))
        self._inbox.put((self, None))


def _with_children(pid: int) -> list[int]:
    found, ahead = [], [pid]
    while ahead:
        each = ahead.pop()
        found.append(each)
        with contextlib.suppress(OSError, ValueError):
            text = Path(f"/proc/{each}/task/{each}/children").read_text(encoding="ascii")
            ahead += [int(child) for child in text.split()]
    return found


def _resident_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.split()[1]) * _PAGE_BYTES
