"""Ctrl-C is not lost.

Python raises ``KeyboardInterrupt`` wherever the main thread is. In a callback of the garbage collector
nobody can catch it, so that it is printed and forgotten, and large graphs spend seconds there.
"""

from __future__ import annotations

import _thread
import contextlib
import sys
import threading
from collections.abc import Iterator

_AGAIN_S = 0.05


@contextlib.contextmanager
def interrupts_heeded() -> Iterator[None]:
    """Raise a ``KeyboardInterrupt`` that was lost in a callback again, until it is heeded."""
    before = sys.unraisablehook
    waiting: list[threading.Timer] = []

    def again(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        # Raised from here, it would be lost in this very callback.
        timer = threading.Timer(_AGAIN_S, _thread.interrupt_main)
        timer.daemon = True
        waiting.append(timer)
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in waiting:
            timer.cancel()
