"""Grades of notes: plain facts, and everything else, which is a warning."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple


class Fact(str):
    """A note that only says what is so, such as where labels are from.

    It is told once, among the notes of the result. Any other note is a warning: it is told as soon as it is
    known, too. In JSON both are strings.
    """

    __slots__ = ()


def tell(log: logging.Logger, note: str) -> None:
    """Log a note by its grade: a warning, or information that ``-v`` shows."""
    log.log(logging.INFO if isinstance(note, Fact) else logging.WARNING, "%s", note)


class Graded(NamedTuple):
    """Notes by their grade."""

    warnings: tuple[str, ...]
    facts: tuple[str, ...]


def graded(notes: Iterable[str]) -> Graded:
    """Warnings and facts, each of them once and in order."""
    once = tuple(dict.fromkeys(notes))
    facts = tuple(note for note in once if isinstance(note, Fact))
    return Graded(tuple(note for note in once if not isinstance(note, Fact)), facts)
