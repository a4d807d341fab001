"""Plots of a ranking: values by layer, coalition size against value, removal curves."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgeprune.artifacts.report import AccuracyKind
from edgeprune.intervals import Z_95
from edgeprune.reporting.drawing.words import keep_end
from edgeprune.reporting.formatting import count_words, format_share, significant
from edgeprune.reporting.plots.svg import (
    Axis,
    Figure,
    Legend,
    Panel,
    PlotPoint,
    Reference,
    Series,
    draw,
    line_style,
)
from edgeprune.reporting.ranking.blocks import blocks_figure
from edgeprune.reporting.ranking.facts import (
    AbsentChannels,
    CriterionScores,
    GroupScores,
    RankedGroup,
    RankingReport,
    RemovalCurve,
    RemovalPoint,
    RemovedShare,
    SizeCurve,
    known,
)

_MOST_MARKERS = 64
_MOST_POINTS = 256
_BANDED_CURVES = 2
_MOST_LABELS = 6
_NAME_LENGTH = 34

REMOVAL_FILES = {
    AbsentChannels.RECONSTRUCTED: "removal-curves.svg",
    AbsentChannels.MASKED: "removal-curves-masked.svg",
}
"""File names of the removal curves, the leading one first."""

_ABSENT = {
    AbsentChannels.RECONSTRUCTED: "absent ones estimated from those present, in place of recovery",
    AbsentChannels.MASKED: "absent ones zero, without recovery",
}


def figure_files(report: RankingReport) -> dict[str, str]:
    """SVG text of every plot by file name, in the order in which they are shown."""
    if report.blocks is not None:
        return {"blocks.svg": blocks_figure(report, report.blocks)}
    files = {values_name(c.name): draw(values_figure(report, c)) for c in report.criteria}
    files["coalition-sizes.svg"] = draw(sizes_figure(report))
    for absent, name in REMOVAL_FILES.items():
        files[name] = draw(removal_figure(report, absent))
    return files


def values_name(criterion: str) -> str:
    """File name of a criterion's values; names of plug-ins are sanitized."""
    return f"values-{re.sub('[^A-Za-z0-9_-]+', '-', criterion)}.svg"


def values_figure(report: RankingReport, scores: CriterionScores) -> Figure:
    """One panel per group: values of its channels, highest first, with 95% intervals."""
    panels = tuple(
        _values_panel(group, group_scores)
        for group, group_scores in zip(report.groups, scores.groups, strict=True)
    )
    errors = any(group_scores.standard_errors is not None for group_scores in scores.groups)
    interval = "bars or band: 95% interval (1.96 standard errors)" if errors else "no standard errors"
    return Figure(
        title=f"Value of every channel by {scores.name}",
        subtitle=f"channels of each group from the highest value to the lowest; {interval}",
        panels=panels,
        columns=3,
        panel_width=330.0,
        panel_height=190.0,
    )


def _values_panel(group: RankedGroup, scores: GroupScores) -> Panel:
    order = sorted(range(len(scores.values)), key=lambda i: (-scores.values[i], i))
    every = -(-len(order) // _MOST_POINTS)
    points = tuple(
        _point(
            float(place),
            scores.values[i],
            None if scores.standard_errors is None else scores.standard_errors[i],
            f"channel {group.channels[i]}: {significant(scores.values[i])}",
        )
        for place, i in list(enumerate(order, start=1))[::every]
    )
    many = len(points) > _MOST_MARKERS
    series = Series(points=points, style=line_style(0), line=many, markers=not many, band=many)
    count = len(group.channels)
    return Panel(
        title=keep_end(group.name, _NAME_LENGTH),
        remark=count_words(count, "channel"),
        x=Axis(label="channels in order of value", low=0.5, high=count + 0.5, whole=True),
        y=Axis(label="value", low=_zero_or_none(points)),
        series=(series,),
    )


def _point(x: float, y: float, error: float | None, tooltip: str) -> PlotPoint:
    """A point with its 95% interval, where its standard error is known."""
    half = None if known(error) is None else Z_95 * (error or 0.0)
    return PlotPoint(
        x=x,
        y=y,
        low=None if half is None else y - half,
        high=None if half is None else y + half,
        tooltip=tooltip,
    )


def _zero_or_none(points: Sequence[PlotPoint]) -> float | None:
    """Lower limit of an axis: 0 if no value is negative, else ``None``."""
    return 0.0 if min(p.y if p.low is None else p.low for p in points) >= 0 else None


def sizes_figure(report: RankingReport) -> Figure:
    """v(S) by the share of players present: mean, spread and range over random coalitions."""
    curves = report.coalition_sizes
    single = len(curves) == 1
    drawn = max(p.coalitions for p in curves[0].points)
    over = count_words(curves[0].images, "image")
    return Figure(
        title="Coalition size against value",
        subtitle=(
            f"v(S) = minus the loss ({report.loss}), mean of {over}; {drawn} random coalitions of each size"
        ),
        panels=tuple(_sizes_panel(curve) for curve in curves),
        columns=1 if single else 3,
        panel_width=560.0 if single else 330.0,
        panel_height=280.0 if single else 210.0,
        notes=(
            "line: mean; dark band: one standard deviation over coalitions; light band: lowest to highest",
        ),
    )


def _sizes_panel(curve: SizeCurve) -> Panel:
    style = line_style(0)
    spread = tuple(
        PlotPoint(
            x=p.share,
            y=p.mean,
            low=max(p.lowest, p.mean - p.standard_deviation),
            high=min(p.highest, p.mean + p.standard_deviation),
            tooltip=f"{p.present} of {curve.players} present: {significant(p.mean)}",
        )
        for p in curve.points
    )
    reach = tuple(PlotPoint(x=p.share, y=p.mean, low=p.lowest, high=p.highest) for p in curve.points)
    title = "whole network" if curve.scope == "network" else keep_end(curve.scope, _NAME_LENGTH)
    return Panel(
        title=title,
        remark=count_words(curve.players, "player"),
        x=Axis(label="share of players present", low=0.0, high=1.0, percent=True),
        y=Axis(label="v(S)"),
        series=(
            Series(points=reach, style=style, line=False, markers=False, band=True),
            Series(points=spread, style=style, band=True),
        ),
        references=(Reference(y=curve.points[-1].mean, label="all present"),),
    )


def removal_figure(report: RankingReport, absent: AbsentChannels) -> Figure:
    """Quality and loss on held-out images against the share of filters removed, one line per criterion."""
    removal, curves = report.removal, report.removal.curves(absent)
    rated = removal.quality_kind is not AccuracyKind.RELATIVE_ERROR
    with_recovered = bool(removal.recovered) and absent is AbsentChannels.RECONSTRUCTED
    x = Axis(label=f"share of {removal.axis.value} removed", low=0.0, high=1.0, percent=True)
    quality = Panel(
        title=_capital(removal.quality_kind.value),
        x=x,
        y=Axis(label="share of images", low=0.0, high=1.0, percent=True),
        series=(
            *(_quality_series(report, i, curves) for i in range(len(curves)) if rated),
            *_recovered_series(report, absent, quality=True),
        ),
    )
    loss = Panel(
        title="Loss",
        x=x,
        y=Axis(label=report.loss, low=0.0),
        series=(
            *(_loss_series(report, i, curves) for i in range(len(curves))),
            *_recovered_series(report, absent, quality=False),
        ),
    )
    scope = "the whole network" if not report.settings.layers else ", ".join(report.settings.layers)
    return Figure(
        title=f"What is lost while filters go, absent channels {absent.value}",
        subtitle=(
            f"filters of {scope}, least removal cost per MAC first, {_ABSENT[absent]}; "
            f"{count_words(removal.images, 'held-out image')}"
        ),
        panels=(quality, loss) if rated else (loss,),
        columns=2,
        panel_width=400.0,
        panel_height=330.0,
        legend=_legend(report, absent, rated),
        notes=(
            "AUC: mean height of the curve over the share removed (± one standard error over images)",
            *(("single markers: networks that were pruned there and recovered",) if with_recovered else ()),
        ),
    )


def removed_share(report: RankingReport, point: RemovalPoint) -> float:
    """Removed share on the axis of the removal curves."""
    on_macs = report.removal.axis is RemovedShare.MACS
    return point.macs_removed_share if on_macs else point.removed_share


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _quality_series(report: RankingReport, index: int, curves: tuple[RemovalCurve, ...]) -> Series:
    curve = curves[index]
    points = tuple(
        PlotPoint(
            x=removed_share(report, p),
            y=p.quality if p.quality is not None else 0.0,
            low=p.quality_low,
            high=p.quality_high,
            tooltip=f"{curve.criterion}: {p.removed} filters removed, {format_share(p.quality or 0.0)}",
        )
        for p in curve.points
    )
    return _series(curves, index, points)


def _loss_series(report: RankingReport, index: int, curves: tuple[RemovalCurve, ...]) -> Series:
    curve = curves[index]
    points = tuple(
        _point(
            removed_share(report, p),
            p.loss,
            p.loss_standard_error,
            f"{curve.criterion}: {p.removed} filters removed, loss {significant(p.loss)}",
        )
        for p in curve.points
    )
    return _series(curves, index, points)


def _recovered_series(report: RankingReport, absent: AbsentChannels, *, quality: bool) -> list[Series]:
    """Single points with their intervals, in the styles of the criteria's curves."""
    if absent is AbsentChannels.MASKED:
        return []
    series = []
    for index, networks in enumerate(report.removal.recovered):
        points = []
        for p in networks.points:
            told = f"{networks.criterion}, recovered: {p.removed} filters removed, "
            x = removed_share(report, p)
            if not quality:
                tooltip = f"{told}loss {significant(p.loss)}"
                points.append(_point(x, p.loss, p.loss_standard_error, tooltip))
            elif p.quality is not None:
                tooltip = f"{told}{format_share(p.quality)}"
                points.append(
                    PlotPoint(x=x, y=p.quality, low=p.quality_low, high=p.quality_high, tooltip=tooltip)
                )
        if points:
            series.append(Series(points=tuple(points), style=line_style(index), line=False))
    return series


def _series(curves: tuple[RemovalCurve, ...], index: int, points: tuple[PlotPoint, ...]) -> Series:
    """Series of one curve, with intervals only if few curves leave room for them."""
    few = len(curves) <= _BANDED_CURVES
    several = 1 < len(curves) <= _MOST_LABELS
    label = curves[index].criterion if several else ""
    return Series(points=points, style=line_style(index), band=few, bars=False, label=label)


def _legend(report: RankingReport, absent: AbsentChannels, rated: bool) -> Legend:
    """Criteria with their areas, the best first."""
    entries = []
    for place in best_first(report, absent):
        curve = report.removal.curves(absent)[place]
        words = [curve.criterion]
        if curve.quality_auc is not None:
            words.append(area_words(curve.quality_auc, curve.quality_auc_standard_error))
        words.append(area_words(curve.loss_auc, curve.loss_auc_standard_error))
        entries.append((line_style(place), tuple(words)))
    quality = (quality_word(report),) if rated else ()
    return Legend(columns=("criterion", *(f"AUC {q}" for q in quality), "AUC loss"), entries=tuple(entries))


def best_first(report: RankingReport, absent: AbsentChannels) -> list[int]:
    """Indices of the removal curves: highest area under quality first, then lowest under loss."""
    curves = report.removal.curves(absent)
    return sorted(range(len(curves)), key=lambda i: (-(curves[i].quality_auc or 0.0), curves[i].loss_auc, i))


def quality_word(report: RankingReport) -> str:
    """The measure of quality in one word."""
    return "accuracy" if report.removal.quality_kind is AccuracyKind.TOP1 else "agreement"


def area_words(area: float, error: float | None) -> str:
    """An area with its standard error."""
    return f"{area:.3f}" if known(error) is None else f"{area:.3f} ± {error:.3f}"
