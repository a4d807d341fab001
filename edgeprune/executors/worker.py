"""The process of a worker: units come in on its standard input, answers go out on its standard output.

A message is its length in eight bytes and a pickle, and comes from the process that started this one. What
libraries print goes to standard error, so that it cannot end up between answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import struct
import sys
import threading
from typing import Any, BinaryIO

from edgeprune.executors.performing import failure_of, perform
from edgeprune.executors.units import Answer

_LENGTH = struct.Struct(">Q")
_GRACE_S = 10.0
COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edgeprune.executors.worker import main; main()"
)
"""Run by Python with the import path of the starting process, as JSON, behind it."""


def argument() -> str:
    """The argument that :data:`COMMAND` is run with."""
    return json.dumps(sys.path)


def write_message(stream: BinaryIO, message: Any) -> None:
    """Write one message and flush.

    Raises:
        OSError: the reader is gone.
    """
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_message(stream: BinaryIO) -> bytes | None:
    """The pickle of the next message; ``None`` where the writer is gone, even within a message."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    return data if len(data) == length else None


def main() -> None:
    """Perform units until standard input ends; that stops a unit in progress, too, as SIGTERM does."""
    asked, answers = _own_streams()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    signal.signal(signal.SIGTERM, _interrupt)
    inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(asked, inbox), daemon=True).start()
    try:
        write_message(answers, "ready")
        shared = None
        first = inbox.get()
        if first is not None:
            shared = pickle.loads(first)
            while (message := inbox.get()) is not None:
                write_message(answers, _answer(message, shared))
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    with contextlib.suppress(OSError):
        answers.close()
    os._exit(0)  # not waiting for what threads of libraries are about


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return asked, answers


def _answer(message: bytes, shared: Any) -> Answer:
    try:
        unit = pickle.loads(message)
    except Exception as error:
        return Answer(failure=failure_of(error))
    answer = perform(unit, shared)
    try:
        pickle.dumps(answer)
    except Exception as error:
        return Answer(failure=failure_of(error))
    return answer


def _receive(asked: BinaryIO, inbox: queue.SimpleQueue[bytes | None]) -> None:
    while (message := read_message(asked)) is not None:
        inbox.put(message)
    inbox.put(None)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE_S)
    os._exit(1)


def _interrupt(_number: int, _frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what it stops has to finish cleaning up
    raise KeyboardInterrupt
