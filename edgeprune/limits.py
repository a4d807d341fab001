"""Which numbers are accepted, wherever they are given: on the command line, in a file or in Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from edgeprune.errors import UsageError
from edgeprune.showing import without_middle


@dataclass(frozen=True, kw_only=True)
class WholeNumbers:
    """Whole numbers from ``least`` to ``most``."""

    least: int
    most: int

    @property
    def accepted(self) -> str:
        """What is accepted, in words."""
        return f"a whole number from {self.least} to {self.most}"

    def holds(self, value: object) -> TypeGuard[int]:
        """Whether a value is one of them."""
        return isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.most

    def check(self, option: str, value: int | None) -> None:
        """Refuse another value than ``None``.

        Raises:
            UsageError: names ``option``, the value and what is accepted.
        """
        if value is not None and not self.holds(value):
            raise _refused(option, value, self.accepted)

    def reader(self, option: str) -> Callable[[str | int], int]:
        """What turns the text of an option into such a number.

        Raises:
            UsageError: when called with another text.
        """

        def whole_number(value: str | int) -> int:
            text = str(value).strip()
            if text.isascii() and text.removeprefix("-").isdigit() and len(text) <= _MOST_DIGITS:
                number = int(text)
                if self.holds(number):
                    return number
            raise _refused(option, value, self.accepted)

        return whole_number


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Numbers from ``least`` to ``most``, both excluded where ``open``."""

    least: float
    most: float
    open: bool
    what: str

    @property
    def accepted(self) -> str:
        """What is accepted, in words."""
        ends = "above {} and below {}" if self.open else "from {} to {}"
        return f"{self.what}, {ends.format(f'{self.least:g}', f'{self.most:g}')}"

    def check(self, option: str, value: float) -> None:
        """Refuse other numbers.

        Raises:
            UsageError: names ``option``, the value and what is accepted.
        """
        inside = self.least < value < self.most if self.open else self.least <= value <= self.most
        if not inside:
            raise _refused(option, value, self.accepted)

    def reader(self, option: str) -> Callable[[str | float], float]:
        """What turns the text of an option into such a number.

        Raises:
            UsageError: when called with another text.
        """

        def number(value: str | float) -> float:
            try:
                found = float(value)
            except ValueError:
                raise _refused(option, value, self.accepted) from None
            self.check(option, found)
            return found

        return number


def is_finite(value: object) -> bool:
    """Whether a value is a number that a float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _refused(option: str, value: object, accepted: str) -> UsageError:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    shown = text if len(text) <= _SHOWN else without_middle(text, head=_SHOWN // 2, tail=_SHOWN // 4)
    return UsageError(f"{option} {shown} was given; accepted is {accepted}")


_MOST_DIGITS = 40
_SHOWN = 60

SEED = WholeNumbers(least=0, most=2**63 - 1)
"""What torch and NumPy both take."""
THREADS = WholeNumbers(least=1, most=1024)
PIXELS = WholeNumbers(least=1, most=8192)
"""Sides of an image; one of three channels takes 800 MB at that."""
IMAGES = WholeNumbers(least=1, most=10**9)
EVALUATIONS = WholeNumbers(least=1, most=10**12)
WIDTH_QUANTUM = WholeNumbers(least=1, most=4096)
BATCH_SIZE = WholeNumbers(least=1, most=4096)
SIZE = WholeNumbers(least=1, most=2**16)
"""One size of an input."""
MOST_INPUT_VALUES = 2**28
"""Of one input without the batch: 1 GiB in single precision."""
HELD_OUT = Shares(
    least=0.0,
    most=1.0,
    open=True,
    what="the share of the calibration images kept back to judge the result",
)
RUN_TIMEOUT_S = 60.0
"""Of a single run of a model of somebody else: a hundred times what a large network takes."""
TIMEOUT = Shares(least=0.0, most=1e13, open=True, what="seconds for a single run of the model")
TOLERANCE = Shares(
    least=0.0, most=1e6, open=True, what="the largest error of an output over the largest output that passes"
)
