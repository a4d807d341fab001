"""Tables of a ranking for people: areas per criterion, and both ends of every group's order."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from edgeprune.artifacts.quality import AbsentChannels, AccuracyKind
from edgeprune.reporting.drawing.words import listed
from edgeprune.reporting.formatting import count_words, format_macs, format_share, significant
from edgeprune.reporting.ranking.blocks import block_rows, quality_words
from edgeprune.reporting.ranking.facts import (
    BlockRanking,
    CriterionScores,
    GroupScores,
    RankedGroup,
    RankingReport,
    known,
)
from edgeprune.reporting.ranking.figures import area_words, best_first, quality_word
from edgeprune.reporting.table import Table
from edgeprune.reporting.tables import TerminalTable

_NAMED_LAYERS = 2


def criterion_words(scores: CriterionScores) -> str:
    """Measure, settings and effort of a criterion."""
    images = count_words(scores.images, "image")
    passes = count_words(scores.evaluations, "batch pass", "batch passes")
    effort = f"{passes} over {images}" if scores.evaluations else images if scores.images else "no images"
    parts = [scores.summary, scores.choice, effort, *scores.notes]
    return "; ".join(part for part in dict.fromkeys(parts) if part)


def areas_table(report: RankingReport, absent: AbsentChannels) -> Table:
    """Areas under the removal curves, the best criterion first."""
    curves = report.removal.curves(absent)
    rated = curves[0].quality_auc is not None
    effort = {c.name: c.evaluations for c in report.criteria}
    rows = []
    for place in best_first(report.removal, absent):
        curve = curves[place]
        areas = [area_words(curve.loss_auc, curve.loss_auc_standard_error)]
        if curve.quality_auc is not None:
            areas.insert(0, area_words(curve.quality_auc, curve.quality_auc_standard_error))
        rows.append((curve.criterion, *areas, f"{effort[curve.criterion]:,}"))
    quality = (f"AUC {quality_word(report.removal)}",) if rated else ()
    better = f"More {quality_word(report.removal)} and less" if rated else "Less"
    columns = ("criterion", *quality, "AUC loss", "evaluations")
    return Table(
        title=f"Absent channels {absent.value}: AUC over the share of {report.removal.axis.value} removed "
        f"({count_words(report.removal.images, 'held-out image')}, ± one standard error)",
        columns=columns,
        rows=tuple(rows),
        numeric_columns=frozenset(range(1, len(columns))),
        remark=f"Filters leave in the order of each criterion. {better} loss is better.",
    )


def recovered_table(report: RankingReport) -> Table:
    """Quality and loss of the recovered networks, cut by cut, least loss first."""
    removal = report.removal
    rated = removal.quality_kind is not AccuracyKind.RELATIVE_ERROR
    rows = []
    for place in range(len(removal.recovered[0].points)):
        for networks in sorted(removal.recovered, key=lambda r: r.points[place].loss):
            p = networks.points[place]
            cells = [format_share(p.macs_removed_share), networks.criterion]
            if p.quality is not None:
                cells.append(f"{format_share(p.quality)} ({p.quality_low:.1%} to {p.quality_high:.1%})")
            error = known(p.loss_standard_error)
            cells.append(significant(p.loss) + ("" if error is None else f" ± {significant(error, 2)}"))
            rows.append(tuple(cells))
    columns = ("MACs removed", "criterion", *((quality_word(report.removal),) if rated else ()), "loss")
    return Table(
        title=f"Recovered networks ({count_words(removal.images, 'held-out image')}, 95% interval, "
        "± one standard error)",
        columns=columns,
        rows=tuple(rows),
        numeric_columns=frozenset({0, *range(2, len(columns))}),
    )


def removal_tables(report: RankingReport) -> tuple[Table, ...]:
    """Tables of networks with channels removed, those nearest to the delivered one first."""
    recovered = (recovered_table(report),) if report.removal.recovered else ()
    return (*recovered, *(areas_table(report, absent) for absent in AbsentChannels))


def channels_table(report: RankingReport) -> Table:
    """Channels of every group that leave first and stay longest, by the first criterion."""
    first = report.criteria[0]
    rows = tuple(
        (
            listed(group.layers or (group.name,), _NAMED_LAYERS),
            str(len(group.channels)),
            _channel(group, scores, last=True),
            _channel(group, scores, last=False),
        )
        for group, scores in zip(report.groups, first.groups, strict=True)
    )
    return Table(
        title=f"Channels by {first.name}",
        columns=("layers", "channels", "leaves first", "stays longest"),
        rows=rows,
        numeric_columns=frozenset({1}),
        remark="Index of the channel in its layer, with its value (± one standard error). ranking.json has "
        "all channels by every criterion.",
    )


def _channel(group: RankedGroup, scores: GroupScores, *, last: bool) -> str:
    """The channel at an end of the order, with its value."""
    place = scores.ranks_in_group.index(len(scores.ranks_in_group) if last else 1)
    error = None if scores.standard_errors is None else known(scores.standard_errors[place])
    spread = "" if error is None else f" ± {significant(error, 2)}"
    return f"{group.channels[place]} ({significant(scores.values[place])}{spread})"


def blocks_table(blocks: BlockRanking) -> Table:
    """Every block with its value and the network's quality without it, in graph order."""
    rated = blocks.quality is not None
    rows = tuple(row if rated else (*row[:3], row[4]) for row in block_rows(blocks))
    quality = (f"{quality_words(blocks)} without it",) if rated else ()
    return Table(
        title=f"Residual blocks ({count_words(blocks.held_out_images, 'held-out image')} without each)",
        columns=("block", "value", "rank", *quality, "loss without it"),
        rows=rows,
        numeric_columns=frozenset(range(1, 5 if rated else 4)),
    )


def blocks_words(report: RankingReport, blocks: BlockRanking) -> str:
    """Meaning of the values, their estimation, and the quality of the whole network."""
    images = count_words(blocks.images, "image")
    passes = count_words(blocks.evaluations, "batch pass", "batch passes")
    gain = blocks.whole_value - blocks.empty_value
    whole = f"loss {significant(blocks.loss)}"
    if blocks.quality is not None:
        whole = f"{blocks.quality_kind.value} {format_share(blocks.quality)}, {whole}"
    return (
        f"Shapley values ({blocks.choice}; {passes} over {images}) share out what all blocks together gain, "
        f"{significant(gain)} ({report.loss}); whole network on held-out images: {whole}"
    )


def _render_blocks(report: RankingReport, blocks: BlockRanking) -> RenderableType:
    table = blocks_table(blocks)
    head = f"{report.model.source}: {count_words(len(blocks.blocks), 'residual block')} ranked"
    return Group(
        Text(head),
        Text(blocks_words(report, blocks)),
        Text(),
        Text(table.title, style="bold"),
        _rich(table),
        *(Text(f"note: {note}") for note in report.notes),
    )


def render_ranking(report: RankingReport) -> RenderableType:
    """The report for a terminal; names in it are never read as markup."""
    if report.blocks is not None:
        return _render_blocks(report, report.blocks)
    ranked = sum(len(g.channels) for g in report.groups)
    head = Text(
        f"{report.model.source}: {ranked:,} of {report.players:,} prunable channels ranked in "
        f"{count_words(len(report.groups), 'group')}, {format_macs(report.macs)} an image"
    )
    base = report.removal.masked[0].points[0]
    kept = (
        "" if base.quality is None else f"{report.removal.quality_kind.value} {format_share(base.quality)}, "
    )
    told = Text(f"before removal: {kept}loss {significant(base.loss)} ({report.loss})")
    parts: list[RenderableType] = [head, told]
    for table in (channels_table(report), *removal_tables(report)):
        parts += [Text(), Text(table.title, style="bold"), _rich(table)]
        parts += [Text(table.remark, style="dim")] if table.remark else []
    parts += [Text(f"note: {note}") for note in (*report.notes, *_criterion_notes(report))]
    return Group(*parts)


def _criterion_notes(report: RankingReport) -> list[str]:
    return [f"{c.name}: {note}" for c in report.criteria for note in c.notes]


def _rich(table: Table) -> TerminalTable:
    grid = TerminalTable(header_style="bold", box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(table.columns):
        justify = "right" if index in table.numeric_columns else "left"
        grid.add_column(Text(column), justify=justify, overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(cell) for cell in row))
    return grid
