"""How a field of options is given on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Protocol


class Panel(StrEnum):
    """Heading of ``--help`` that an option is listed under."""

    MODEL = "Model"
    DATA = "Calibration data"
    GOAL = "Goal"
    RUN = "Run and output"


class Completion(Enum):
    """Names that a shell may complete an option with."""

    CRITERIA = "criteria"
    TARGETS = "targets"


class Limit(Protocol):
    """Accepted range of a number."""

    def check(self, option: str, value: Any) -> None:
        """Refuse a value outside of it, naming ``option``."""

    def reader(self, option: str) -> Callable[[Any], Any]:
        """Parser of the text of ``option``."""


@dataclass(frozen=True, kw_only=True)
class CliOption:
    """Annotation of a field that is an option of the command line under its own name.

    ``flags``: its spelling where that is not ``--name-of-the-field``; ``short``: another, shorter one.
    ``kind``: its type on the command line where Python takes more. ``limit`` or ``parser`` reads its text.
    """

    help: str
    panel: Panel
    flags: str | None = None
    short: str | None = None
    metavar: str | None = None
    kind: Any = None
    limit: Limit | None = None
    parser: Callable[[str], Any] | None = None
    completion: Completion | None = None

    def spelling(self, name: str) -> str:
        """Of the option of a field."""
        return self.flags or "--" + name.replace("_", "-")

    def reader(self, name: str) -> Callable[[Any], Any] | None:
        """What reads its text; ``None`` leaves that to the type."""
        return self.parser if self.limit is None else self.limit.reader(self.spelling(name))
