"""What the page of a run shows, and the pieces that its template lays out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeprune.artifacts.illustrations import Illustrations, Picture
from edgeprune.artifacts.pruning import GroupPlan
from edgeprune.artifacts.quality import RankingCurves
from edgeprune.artifacts.report import RunReport
from edgeprune.reporting.ranking.facts import RankingReport
from edgeprune.reporting.table import Table


@dataclass(frozen=True, kw_only=True)
class PageContents:
    """A run's report and what it does not hold itself.

    ``folder``: name of the output folder, for commands. ``plans``: channels by group of every candidate, by
    its name. ``ranking``: the one that was given, if it can be read.
    """

    report: RunReport
    folder: str
    illustrations: Illustrations
    plans: Mapping[str, tuple[GroupPlan, ...]] = field(default_factory=dict)
    ranking: RankingReport | None = None

    @property
    def curves(self) -> RankingCurves | None:
        """Those of this run, or of the ranking that it was given."""
        given = None if self.ranking is None else self.ranking.curves
        return self.report.curves if self.report.curves is not None else given


@dataclass(frozen=True, kw_only=True)
class PlotFigure:
    """A drawing as SVG text with its caption; ``interactive``: its points lead to the plans below."""

    svg: str
    caption: str
    interactive: bool = False


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """Pictures in a row, under a heading, with a line about them."""

    heading: str
    pictures: tuple[Picture, ...]
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class CandidatePlan:
    """A candidate with its plan, and the command that picks it (empty: no limits do, ``why`` says so)."""

    name: str
    words: str
    command: str
    why: str
    table: Table | None


_TITLES = {
    "sizes": "Original and compressed",
    "candidates": "Candidates and Pareto front",
    "widths": "The network before and after",
    "importance": "Importance by layer",
    "coalitions": "Coalition size against value",
    "removal": "What is lost while filters go",
    "accuracy": "Accuracy from stage to stage",
    "operators": "Latency by operator",
    "precision": "Precision by layer",
    "parity": "Parity chain",
    "maps": "Feature maps",
    "saliency": "Saliency",
    "changed": "Answers that changed",
    "fallbacks": "Frozen, skipped, fallen back",
    "repeat": "How to reproduce",
    "file": "The file",
    "notes": "Notes",
}


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a page, by the key of its title; ``empty`` says why there is nothing else in it."""

    key: str
    words: tuple[str, ...] = ()
    figures: tuple[PlotFigure, ...] = ()
    drawings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    pictures: tuple[PictureRow, ...] = ()
    plans: tuple[CandidatePlan, ...] = ()
    alerts: tuple[str, ...] = ()
    empty: str = ""

    @property
    def title(self) -> str:
        """Heading of the section."""
        return _TITLES[self.key]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A figure before and after, for the top of the page."""

    title: str
    before: str
    after: str
    change: str = ""
    words: str = ""
