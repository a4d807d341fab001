"""The files of a ranking: exact figures as JSON and CSV, plots as SVG, and one page that holds them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from edgeprune.artifacts.codec import to_jsonable
from edgeprune.reporting.json_report import read_document
from edgeprune.reporting.ranking.blocks import blocks_to_csv
from edgeprune.reporting.ranking.facts import RANKING_SCHEMA_VERSION, RankingReport, known
from edgeprune.reporting.ranking.figures import figure_files
from edgeprune.reporting.ranking.html import render_page
from edgeprune.reporting.web.charts import as_file
from edgeprune.showing import escaped_json, plain
from edgeprune.storage.files import atomic_write_text

CSV_COLUMNS = (
    "criterion",
    "group",
    "layers",
    "channel",
    "value",
    "standard_error",
    "removal_cost",
    "rank_in_group",
    "rank_in_network",
)


def write_ranking(report: RankingReport, folder: str | Path) -> None:
    """Write ``ranking.json``, ``ranking.csv``, the plots and ``ranking.html`` into an existing folder.

    If blocks were ranked, ``blocks.csv`` replaces ``ranking.csv``.

    Raises:
        OutputError: a file cannot be written.
    """
    figures = figure_files(report)
    files = {
        "ranking.json": ranking_to_json(report),
        **_tables(report),
        **{name: as_file(svg) for name, svg in figures.items()},
        "ranking.html": render_page(report, figures),
    }
    for name, text in files.items():
        atomic_write_text(Path(folder) / name, text)


def _tables(report: RankingReport) -> dict[str, str]:
    if report.blocks is not None:
        return {"blocks.csv": blocks_to_csv(report.blocks)}
    return {"ranking.csv": ranking_to_csv(report)}


def ranking_to_json(report: RankingReport) -> str:
    """The text of ``ranking.json``; names are not shortened, since a later run matches them."""
    text = json.dumps(to_jsonable(report), indent=2, ensure_ascii=False, allow_nan=False)
    return escaped_json(text) + "\n"


def ranking_to_csv(report: RankingReport) -> str:
    """One row per criterion and player; layers are joined by spaces, unknown errors are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for criterion in report.criteria:
        for group, scores in zip(report.groups, criterion.groups, strict=True):
            errors = scores.standard_errors or (None,) * len(scores.values)
            for i, channel in enumerate(group.channels):
                writer.writerow(
                    (
                        criterion.name,
                        plain(group.name),
                        plain(" ".join(group.layers)),
                        channel,
                        repr(scores.values[i]),
                        "" if known(errors[i]) is None else repr(errors[i]),
                        repr(scores.removal_costs[i]),
                        scores.ranks_in_group[i],
                        scores.ranks_in_network[i],
                    )
                )
    return stream.getvalue()


def read_ranking(path: str | Path) -> RankingReport:
    """Read a ``ranking.json``.

    Raises:
        UsageError: no such file, no ranking, or one of a schema version that this edgeprune does not know.
    """
    return read_document(RankingReport, path, (RANKING_SCHEMA_VERSION,), name="ranking", again="rank")
