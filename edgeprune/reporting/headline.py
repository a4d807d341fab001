"""Headline of a report: whether the delivered network is usable, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.report import Grade, RunReport, Usability, Verdict


class Tone(Enum):
    """Severity of a headline."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BAD = "bad"


_TONES = {
    Grade.USABLE: Tone.GOOD,
    Grade.INCONCLUSIVE: Tone.DOUBTFUL,
    Grade.DEGRADED: Tone.DOUBTFUL,
    Grade.NOT_USABLE: Tone.BAD,
}


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One sentence, and what to do about it (empty: nothing)."""

    text: str
    what_to_do: str
    tone: Tone


def build_headline(report: RunReport) -> Headline | None:
    """Headline of a report; ``None`` if its schema has none. A failed check takes precedence."""
    usability = report.usability
    if usability is None:
        return None
    plain = headline_of(usability)
    text, tone, advice = plain.text, plain.tone, plain.what_to_do
    if any(figure.verdict is not Verdict.PASSED for figure in report.parity):
        text, tone = f"A CHECK FAILED; {text}", Tone.BAD
    return Headline(text=text, what_to_do=advice, tone=tone)


def headline_of(usability: Usability) -> Headline:
    """Headline for the usability of a network."""
    tone = _TONES[usability.grade]
    if usability.slower and tone is Tone.GOOD:
        tone = Tone.DOUBTFUL
    return Headline(text=usability.headline, what_to_do=advice_in_words(usability), tone=tone)


def advice_in_words(usability: Usability) -> str:
    """Advice in one line; empty if there is none."""
    if not usability.what_to_do:
        return ""
    *first, last = usability.what_to_do
    return f"what to do: {', '.join(first)}, or {last}" if first else f"what to do: {last}"


def answers_in_words(report: RunReport) -> str:
    """Remark on the answers behind a headline; empty if there are none."""
    counts = None if report.usability is None else report.usability.answers
    if counts is None:
        return ""
    if report.accuracy_kind is AccuracyKind.AGREEMENT:
        return f" Of the original's {counts.kept_from:,} answers {counts.lost:,} are lost."
    others = counts.images - counts.kept_from
    gained = f"; of the {others:,} others {counts.gained:,} are put right" if others else ""
    return f" Of {counts.kept_from:,} right answers of the original {counts.lost:,} are lost{gained}."


def as_sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
