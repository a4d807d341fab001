"""Handling of Ctrl-C, SIGTERM and SIGHUP, which end a run in the same way.

Python raises ``KeyboardInterrupt`` wherever the main thread is. In a callback of the garbage collector it
cannot be caught: it is printed and dropped, and large graphs spend seconds there.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from edgeprune.errors import INTERRUPTED_EXIT_STATUS

_AGAIN_S = 0.05
_NAMES = ("SIGTERM", "SIGHUP")


class Interrupts:
    """The signal that ended a run: Ctrl-C, or another one, which then also raises ``KeyboardInterrupt``."""

    def __init__(self) -> None:
        self._signal = signal.SIGINT
        self._lost = False
        self._waiting: list[threading.Timer] = []
        self.came = False
        """Whether any signal came, Ctrl-C included: libraries may convert its exception while they load."""

    @property
    def exit_status(self) -> int:
        """128 plus the number of the signal, as in shells."""
        return INTERRUPTED_EXIT_STATUS - signal.SIGINT + self._signal

    @property
    def by(self) -> str:
        """``" by SIGTERM"``; empty for Ctrl-C."""
        return "" if self._signal == signal.SIGINT else f" by {self._signal.name}"

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Handle signals in the block, and raise a ``KeyboardInterrupt`` lost in a callback again."""
        before = sys.unraisablehook

        def again(lost: sys.UnraisableHookArgs) -> None:
            if not issubclass(lost.exc_type, KeyboardInterrupt):
                before(lost)
                return
            # Raised from here, it would be lost in this very callback.
            self._lost = True
            timer = threading.Timer(_AGAIN_S, _thread.interrupt_main, (self._signal,))
            timer.daemon = True
            self._waiting.append(timer)
            timer.start()

        sys.unraisablehook = again
        try:
            with self._taken():
                yield
        finally:
            sys.unraisablehook = before
            for timer in self._waiting:
                timer.cancel()

    @contextlib.contextmanager
    def _taken(self) -> Iterator[None]:
        """Handle signals that would end the process at once; ignored ones (``nohup``) stay ignored."""
        taken: list[int] = []
        defaults: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
            defaults = dict.fromkeys(numbers, signal.SIG_DFL)
            defaults[signal.SIGINT] = signal.default_int_handler
            taken = [n for n, default in defaults.items() if signal.getsignal(n) is default]
        for number in taken:
            signal.signal(number, self._interrupt if number == signal.SIGINT else self._stop)
        try:
            yield
        finally:
            for number in taken:
                signal.signal(number, defaults[number])

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        """Interrupt once: a closing terminal sends its signal twice, and a run that is ending must finish."""
        if self._signal != signal.SIGINT and not self._lost:
            return
        self._lost, self.came = False, True
        self._signal = signal.Signals(number)
        raise KeyboardInterrupt
