"""Accepted ranges of numbers given on the command line, in a file or in Python."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from edgeprune.errors import UsageError
from edgeprune.showing import in_short, without_middle


@dataclass(frozen=True, kw_only=True)
class WholeNumbers:
    """Whole numbers from ``least`` to ``most``."""

    least: int
    most: int

    @property
    def accepted(self) -> str:
        """Description of the accepted values."""
        return f"a whole number from {self.least} to {self.most}"

    def holds(self, value: object) -> TypeGuard[int]:
        """Whether a value is in the range."""
        return isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.most

    def check(self, option: str, value: object) -> None:
        """Reject a value outside the range.

        Raises:
            UsageError: names ``option``, the value and what is accepted.
        """
        if not self.holds(value):
            raise _refused(option, in_short(value), self.accepted)

    def reader(self, option: str) -> Callable[[str | int], int]:
        """Parser from the text of an option to such a number.

        Raises:
            UsageError: when called with text that is not accepted.
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
class ImageSizes:
    """Sizes of an image in pixels: a side, or height and width."""

    sides: WholeNumbers

    @property
    def accepted(self) -> str:
        """What is accepted, in words."""
        return f"{self.sides.accepted} of pixels, or height x width such as 64x96"

    def read(self, value: object) -> int | tuple[int, int] | None:
        """The size of a number, ``64x96``, ``64,96`` or a list of two; ``None`` where it is none."""
        if isinstance(value, str):
            texts = value.strip().lower().replace(",", "x").split("x")
            digits = [t.strip() for t in texts if t.strip().isascii() and t.strip().isdigit()]
            value = [int(t) for t in digits if len(t) <= _MOST_DIGITS] if len(digits) == len(texts) else None
            value = value[0] if value is not None and len(value) == len(texts) == 1 else value
        if self.sides.holds(value):
            return value
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(self.sides.holds, value)):
            return value[0], value[1]
        return None

    def check(self, option: str, value: object) -> None:
        """Refuse what is no such size.

        Raises:
            UsageError: names ``option``, the value and what is accepted.
        """
        if self.read(value) is None:
            raise _refused(option, in_short(value), self.accepted)

    def reader(self, option: str) -> Callable[[object], int | tuple[int, int]]:
        """What turns the text of an option into such a size.

        Raises:
            UsageError: when called with another text.
        """

        def image_size(value: object) -> int | tuple[int, int]:
            size = self.read(value)
            if size is None:
                raise _refused(option, value, self.accepted)
            return size

        return image_size


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Numbers from ``least`` to ``most``, both excluded where ``open``."""

    least: float
    most: float
    open: bool
    what: str

    @property
    def accepted(self) -> str:
        """Description of the accepted values."""
        ends = "above {} and below {}" if self.open else "from {} to {}"
        return f"{self.what}, {ends.format(f'{self.least:g}', f'{self.most:g}')}"

    def check(self, option: str, value: float) -> None:
        """Reject a number outside the range.

        Raises:
            UsageError: names ``option``, the value and what is accepted.
        """
        if not is_finite(value):
            raise _refused(option, in_short(value), self.accepted)
        inside = self.least < value < self.most if self.open else self.least <= value <= self.most
        if not inside:
            raise _refused(option, value, self.accepted)

    def reader(self, option: str) -> Callable[[str | float], float]:
        """Parser from the text of an option to such a number.

        Raises:
            UsageError: when called with text that is not accepted.
        """

        def number(value: str | float) -> float:
            parsed = read_number(value) if isinstance(value, str) else float(value)
            if parsed is None:
                raise _refused(option, value, self.accepted)
            self.check(option, parsed)
            return parsed

        return number


@dataclass(frozen=True, kw_only=True)
class ChannelNumbers:
    """Numbers from ``least`` to ``most``, one for all channels of an image or one for each."""

    least: float
    most: float
    remark: str

    @property
    def accepted(self) -> str:
        """Description of the accepted values."""
        ends = f"each from {self.least:g} to {self.most:g} ({self.remark})"
        return f"one number, or one per channel separated by commas (at most {MOST_CHANNELS}), {ends}"

    def hold(self, values: Sequence[object]) -> bool:
        """Whether all values are accepted."""
        return 0 < len(values) <= MOST_CHANNELS and all(
            is_finite(value) and self.least <= float(value) <= self.most  # type: ignore[arg-type]
            for value in values
        )

    def check(self, option: str, values: Sequence[float]) -> None:
        """Reject values that are not accepted.

        Raises:
            UsageError: names ``option``, the values and what is accepted.
        """
        if not self.hold(values):
            raise _refused(option, in_short(tuple(values)), self.accepted)


def check_counts(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Reject means and deviations with different channel counts.

    Raises:
        UsageError: names both numbers.
    """
    counts = [len(values) for values in (mean, std) if values is not None and len(values) > 1]
    if len(set(counts)) > 1:
        raise UsageError(
            f"--mean has {counts[0]} values and --std {counts[1]}; accepted is one number, or one per "
            "channel, for each of them"
        )


def read_number(text: str) -> float | None:
    """Parse a number in ASCII digits, ``nan`` and ``inf`` included; ``None`` if it is not a number."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def read_fraction(text: str) -> float | None:
    """Parse a number, or a quotient of two such as ``127/255``; ``None`` if it is neither."""
    above, slash, below = text.partition("/")
    dividend, divisor = read_number(above), read_number(below) if slash else 1.0
    if dividend is None or not divisor:
        return None
    return dividend / divisor


def is_finite(value: object) -> bool:
    """Whether a value is a finite number that fits in a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _refused(option: str, value: object, accepted: str) -> UsageError:
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else in_short(value)
    shown = text if len(text) <= _SHOWN else without_middle(text, head=_SHOWN // 2, tail=_SHOWN // 4)
    return UsageError(f"{option} {shown} was given; accepted is {accepted}")


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+|nan|inf(inity)?)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_MOST_DIGITS = 40
_SHOWN = 60

MOST_CHANNELS = 4096
_OF_PIXELS = "of pixels scaled to 0..1, so divide what is for 0..255 by 255, as in 127/255"
MEANS = ChannelNumbers(least=-8.0, most=8.0, remark=_OF_PIXELS)
"""Means of pixels from 0 to 1 lie between 0 and 1; 127 would make all images the same."""
DEVIATIONS = ChannelNumbers(least=1e-6, most=8.0, remark=_OF_PIXELS)
"""Below the minimum, float32 loses precision; 1/255 rescales pixels to 0..255."""
SEED = WholeNumbers(least=0, most=2**63 - 1)
"""Seeds that both torch and NumPy accept."""
THREADS = WholeNumbers(least=1, most=1024)
UNITS_AT_ONCE = WholeNumbers(least=1, most=1024)
PIXELS = WholeNumbers(least=1, most=8192)
"""Sides of an image; one of three channels takes 800 MB at that."""
IMAGE_SIZES = ImageSizes(sides=PIXELS)
PAD_VALUES = WholeNumbers(least=0, most=255)
"""Of 8-bit pixels."""
IMAGES = WholeNumbers(least=1, most=10**9)
EVALUATIONS = WholeNumbers(least=1, most=10**12)
WIDTH_QUANTUM = WholeNumbers(least=1, most=4096)
BATCH_SIZE = WholeNumbers(least=1, most=4096)
SIZE = WholeNumbers(least=1, most=2**16)
"""One dimension of an input."""
MOST_INPUT_VALUES = 2**28
"""Values of one input without the batch: 1 GiB in single precision."""
FINETUNE_STEPS = WholeNumbers(least=1, most=100_000)
TIME_S = Shares(least=0.0, most=3.2e7, open=True, what="a number of seconds")
"""Up to a year."""
HELD_OUT = Shares(
    least=0.0,
    most=1.0,
    open=True,
    what="the share of the calibration images kept back to judge the result",
)
RUN_TIMEOUT_S = 60.0
"""Timeout of one run of an untrusted model: a hundred times that of a large network."""
TOLERANCE = Shares(
    least=0.0, most=1e6, open=True, what="the largest error of an output over the largest output that passes"
)
