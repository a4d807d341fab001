"""The plots of a ranking on one self-contained page, with short explanations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.artifacts.quality import AbsentChannels
from edgeprune.reporting.formatting import count_words, format_macs
from edgeprune.reporting.pages import render
from edgeprune.reporting.ranking.facts import RankingReport
from edgeprune.reporting.ranking.figures import REMOVAL_FILES, values_name
from edgeprune.reporting.ranking.words import (
    areas_table,
    blocks_table,
    blocks_words,
    channels_table,
    criterion_words,
    recovered_table,
)
from edgeprune.reporting.table import Table


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A text, optionally after a name, with a figure and a table below."""

    name: str = ""
    words: str = ""
    svg: str = ""
    table: Table | None = None


@dataclass(frozen=True, kw_only=True)
class _Section:
    title: str
    parts: tuple[_Part, ...]


def render_page(report: RankingReport, figures: Mapping[str, str]) -> str:
    """Render the page; it loads nothing from the network, by its policy. ``figures``: SVG by name."""
    return render(
        "ranking.html.j2",
        title=f"Ranking of {report.model.source}",
        head=_head(report),
        sections=_sections(report, figures),
        remarks=report.notes,
    )


def _head(report: RankingReport) -> str:
    calibration = report.calibration
    if report.blocks is not None:
        players = count_words(len(report.blocks.blocks), "residual block")
        kind = "labelled image" if calibration.labelled else "unlabelled image"
        return (
            f"{players}, {format_macs(report.macs)} an image; {count_words(calibration.fitting_images, kind)}"
            f" to rank with, {calibration.held_out_images} held out to judge; seed {report.settings.seed}"
        )
    ranked = sum(len(g.channels) for g in report.groups)
    labelled = "labelled image" if calibration.labelled else "unlabelled image"
    return (
        f"{ranked:,} of {report.players:,} prunable channels in {count_words(len(report.groups), 'group')}, "
        f"{format_macs(report.macs)} an image; {count_words(calibration.fitting_images, labelled)} "
        f"to rank with, {calibration.held_out_images} held out to judge; for a cut of "
        f"{report.settings.ratio:.0%} of the MACs; seed {report.settings.seed}"
    )


def _sections(report: RankingReport, figures: Mapping[str, str]) -> tuple[_Section, ...]:
    if report.blocks is not None:
        told = (
            "Each block's branch is a player; without it only the shortcut is left. A value is the block's "
            "mean share in what all blocks together gain, over all orders in which they could be added."
        )
        blocks = _Part(
            words=f"{told} {blocks_words(report, report.blocks)}.",
            svg=figures["blocks.svg"],
            table=blocks_table(report.blocks),
        )
        return (_Section(title="Residual blocks", parts=(blocks,)),)
    return (_removal(report, figures), _sizes(figures["coalition-sizes.svg"]), _values(report, figures))


def _removal(report: RankingReport, figures: Mapping[str, str]) -> _Section:
    removal = report.removal
    places = ""
    if removal.reconstructing_points < removal.mask_points:
        places = (
            f" This is so at {removal.reconstructing_points} of {removal.mask_points} places; at the others "
            "absent channels are masked here, too."
        )
    told = {
        AbsentChannels.RECONSTRUCTED: (
            "Filters go one after another, those first that a criterion says cost least per MAC saved; the "
            "last of each group stays. Absent channels are replaced by their best linear estimate from those "
            "present, found on the images to rank with and judged on those held out. That stands for "
            "recovery, which solves every layer anew and mostly keeps more. The higher the accuracy and the "
            f"lower the loss stay, the better.{places}"
        ),
        AbsentChannels.MASKED: (
            "The same orders with absent channels at zero: the pruned networks as they are before recovery."
        ),
    }
    parts = [_Part(table=recovered_table(report))] if removal.recovered else []
    parts += [
        _Part(words=told[absent], svg=figures[name], table=areas_table(report, absent))
        for absent, name in REMOVAL_FILES.items()
    ]
    return _Section(title="What is lost while filters go", parts=tuple(parts))


def _sizes(svg: str) -> _Section:
    told = (
        "What random sets of channels are worth. Where the curve is flat, channels stand in for each other; "
        "where it is steep, every one counts. Wide bands say that it matters which ones are present."
    )
    return _Section(title="Coalition size against value", parts=(_Part(words=told, svg=svg),))


def _values(report: RankingReport, figures: Mapping[str, str]) -> _Section:
    parts = [
        _Part(name=scores.name, words=criterion_words(scores), svg=figures[values_name(scores.name)])
        for scores in report.criteria
    ]
    return _Section(title="Values by layer", parts=(*parts, _Part(table=channels_table(report))))
