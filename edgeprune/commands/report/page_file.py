"""Write ``report.html`` of a run, or anew from the ``report.json`` of an older output folder."""

from __future__ import annotations

from pathlib import Path

from edgeprune.artifacts.illustrations import Illustrations
from edgeprune.artifacts.pruning import GroupPlan
from edgeprune.artifacts.report import RunReport
from edgeprune.commands.search.candidate_records import CANDIDATES_FOLDER, RECORD_NAME, read_record
from edgeprune.errors import UsageError
from edgeprune.reporting.json_report import read_json
from edgeprune.reporting.ranking.facts import RankingReport
from edgeprune.reporting.ranking.files import read_ranking
from edgeprune.reporting.web.facts import PageContents
from edgeprune.reporting.web.page import render_page
from edgeprune.storage import outputs
from edgeprune.storage.files import atomic_write_text

PAGE_NAME = "report.html"
_RANKING_NAME = "ranking.json"


def write_page(report: RunReport, folder: Path, *, shown_folder: Path, pictures: Illustrations) -> None:
    """Write the page of a run into ``folder``, which becomes ``shown_folder``.

    Raises:
        OutputError: the page cannot be written.
    """
    contents = PageContents(
        report=report,
        folder=str(shown_folder),
        illustrations=pictures,
        plans=_plans(folder),
        ranking=_ranking(report),
    )
    atomic_write_text(folder / PAGE_NAME, render_page(contents))


def rebuild_page(folder: Path) -> Path:
    """Write ``report.html`` anew from the ``report.json`` of an output folder, without pictures.

    Raises:
        UsageError: ``folder`` holds no report of a compression.
        OutputError: the page cannot be written.
    """
    path = folder / "report.json"
    if not path.is_file():
        raise UsageError(
            f"{str(folder)!r} holds no report.json; give the output folder of edgeprune compress"
        )
    write_page(read_json(path), folder, shown_folder=folder, pictures=Illustrations(missing={}))
    outputs.list_again(folder, folder / PAGE_NAME)
    return folder / PAGE_NAME


def _plans(folder: Path) -> dict[str, tuple[GroupPlan, ...]]:
    """Channels by group of every candidate in the folder."""
    stored = (read_record(path) for path in sorted((folder / CANDIDATES_FOLDER).glob(f"*/{RECORD_NAME}")))
    return {each.figures.name: each.plan.groups for each in stored}


def _ranking(report: RunReport) -> RankingReport | None:
    """The ranking that was given, if it is still where it was."""
    origin = report.ranking.origin
    if origin is None:
        return None
    given = Path(origin.path)
    try:
        return read_ranking(given / _RANKING_NAME if given.is_dir() else given)
    except UsageError:
        return None  # the page says that the run has none
