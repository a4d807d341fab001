"""Charts of a ranking: values by layer, coalition size against value, removal curves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgeprune.artifacts.quality import (
    AbsentChannels,
    AccuracyKind,
    RankingCurves,
    RemovalCurve,
    RemovalCurves,
    RemovalPoint,
    RemovedShare,
    SizeCurve,
)
from edgeprune.intervals import Z_95
from edgeprune.reporting.drawing.words import keep_end
from edgeprune.reporting.formatting import count_words, format_share, significant
from edgeprune.reporting.ranking.blocks import blocks_figure
from edgeprune.reporting.ranking.facts import CriterionScores, GroupScores, RankedGroup, RankingReport, known
from edgeprune.reporting.web.charts import AFTER, SERIES, SOFT, headed, rows, to_svg

if TYPE_CHECKING:
    import altair

_MOST_MARKERS = 64
_MOST_POINTS = 256
_BANDED_CURVES = 2
_NAME_LENGTH = 34
_COLUMNS = 3
_LONGEST_NAME = 100
_BAND, _RANGE = 0.16, 0.1
"""Opacities."""

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
    """SVG text of every chart by file name, in the order in which they are shown, in the page's colours."""
    if report.blocks is not None:
        return {"blocks.svg": blocks_figure(report, report.blocks)}
    files = {values_name(c.name): values_figure(report, c) for c in report.criteria}
    files["coalition-sizes.svg"] = sizes_figure(report.curves)
    for absent, name in REMOVAL_FILES.items():
        files[name] = removal_figure(report.curves, absent)
    return files


def values_name(criterion: str) -> str:
    """File name of a criterion's values; names of plug-ins are sanitized and not longer than files' are."""
    return f"values-{re.sub('[^A-Za-z0-9_-]+', '-', criterion)[:_LONGEST_NAME]}.svg"


def values_figure(report: RankingReport, scores: CriterionScores) -> str:
    """One panel per group: values of its channels, highest first, with 95% intervals."""
    panels = [
        _values_panel(group, group_scores)
        for group, group_scores in zip(report.groups, scores.groups, strict=True)
    ]
    errors = any(group_scores.standard_errors is not None for group_scores in scores.groups)
    interval = "bars or band: 95% interval (1.96 standard errors)" if errors else "no standard errors"
    title = f"Value of every channel by {scores.name}"
    told = f"channels of each group from the highest value to the lowest; {interval}"
    return _drawn(panels, title, [told], values_name(scores.name))


def _drawn(panels: list[Any], title: str, told: list[str], key: str) -> str:
    """The panels in rows, below what they show."""
    import altair as alt

    columns = min(_COLUMNS, len(panels))
    width = sum(panel.width + _BETWEEN for panel in panels[:columns])
    chart = alt.concat(*panels, columns=columns, title=headed(title, told, width))
    return to_svg(chart, title, key.removesuffix(".svg"), hover=True)


_BETWEEN = 50
"""Pixels of an axis and its labels."""


def _heading(title: str, remark: str) -> altair.TitleParams:
    import altair as alt

    return alt.TitleParams(keep_end(title, _NAME_LENGTH), subtitle=remark)


def _values_panel(group: RankedGroup, scores: GroupScores) -> Any:
    import altair as alt

    count = len(group.channels)
    order = sorted(range(count), key=lambda i: (-scores.values[i], i))
    errors = scores.standard_errors or (None,) * count
    places = list(enumerate(order, start=1))[:: -(-count // _MOST_POINTS)]
    values = [
        {
            "place": place,
            "value": scores.values[i],
            **_interval(scores.values[i], errors[i]),
            "words": f"channel {group.channels[i]}: {significant(scores.values[i])}",
        }
        for place, i in places
    ]
    x = alt.X(
        "place:Q", title="channels in order of value", scale=alt.Scale(domain=[0.5, count + 0.5], nice=False),
        axis=alt.Axis(grid=False, tickMinStep=1, tickCount=5, format="d"),
    )  # fmt: skip
    y = alt.Y("value:Q", title="value", axis=_SMALL_AXIS)
    base = alt.Chart(rows(values))
    if len(values) > _MOST_MARKERS:
        spread = base.mark_area(color=AFTER, opacity=_BAND, aria=False).encode(x, alt.Y("low:Q"), y2="high:Q")
        marks = base.mark_line(color=AFTER, strokeWidth=1.8, aria=False).encode(x, y)
    else:
        spread = base.mark_rule(color=AFTER, aria=False).encode(x, alt.Y("low:Q"), y2="high:Q")
        marks = base.mark_point(filled=True, size=30, color=AFTER, opacity=1).encode(
            x, y, description="words:N"
        )
    title = _heading(group.name, count_words(count, "channel"))
    return alt.layer(spread, marks).properties(width=250, height=110, title=title)


_SMALL_AXIS = {"tickCount": 4}


def _interval(value: float, error: float | None) -> dict[str, float | None]:
    """Ends of the 95% interval, where its standard error is known."""
    if known(error) is None:
        return {"low": None, "high": None}
    half = Z_95 * (error or 0.0)
    return {"low": value - half, "high": value + half}


def sizes_figure(ranked: RankingCurves) -> str:
    """v(S) by the share of players present: mean, spread and range over random coalitions."""
    curves = ranked.coalition_sizes
    drawn = max(p.coalitions for p in curves[0].points)
    over = count_words(curves[0].images, "image")
    told = [
        f"v(S) = minus the loss ({ranked.loss}), mean of {over}; {drawn} random coalitions of each size",
        "line: mean; dark band: one standard deviation over coalitions; light band: lowest to highest",
    ]
    size = (480, 220) if len(curves) == 1 else (250, 140)
    panels = [_sizes_panel(curve, size) for curve in curves]
    return _drawn(panels, "Coalition size against value", told, "coalition-sizes.svg")


def _sizes_panel(curve: SizeCurve, size: tuple[int, int]) -> Any:
    import altair as alt

    values = [
        {
            "share": p.share,
            "mean": p.mean,
            "lowest": p.lowest,
            "highest": p.highest,
            "low": max(p.lowest, p.mean - p.standard_deviation),
            "high": min(p.highest, p.mean + p.standard_deviation),
            "words": f"{p.present} of {curve.players} present: {significant(p.mean)}",
        }
        for p in curve.points
    ]
    x = _share("share", "share of players present")
    y = alt.Scale(zero=False)
    base = alt.Chart(rows(values))
    reach = base.mark_area(color=AFTER, opacity=_RANGE, aria=False).encode(
        x, alt.Y("lowest:Q", scale=y), y2="highest:Q"
    )
    spread = base.mark_area(color=AFTER, opacity=_BAND, aria=False).encode(x, alt.Y("low:Q"), y2="high:Q")
    mean = alt.Y("mean:Q", title="v(S)", axis=_SMALL_AXIS)
    line = base.mark_line(color=AFTER, strokeWidth=1.8, aria=False).encode(x, mean)
    points = base.mark_point(filled=True, size=30, color=AFTER, opacity=1).encode(
        x, mean, description="words:N"
    )
    level = alt.Chart(rows([{"mean": curve.points[-1].mean, "share": 1.0, "words": "all present"}]))
    rule = level.mark_rule(strokeDash=[3, 3], color=SOFT, aria=False).encode(alt.Y("mean:Q"))
    name = level.mark_text(align="right", dy=-5, fontSize=10, color=SOFT).encode(x, mean, text="words:N")
    whole = curve.scope == "network"
    title = _heading("whole network" if whole else curve.scope, count_words(curve.players, "player"))
    chart = alt.layer(reach, spread, rule, line, points, name)
    return chart.properties(width=size[0], height=size[1], title=title)


def _share(field: str, title: str) -> Any:
    """An axis from none to all."""
    import altair as alt

    return alt.X(
        f"{field}:Q", title=title, scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", tickCount=5, grid=False),
    )  # fmt: skip


def removal_figure(ranked: RankingCurves, absent: AbsentChannels) -> str:
    """Quality and loss on held-out images against the share of filters removed, one line per criterion."""
    removal = ranked.removal
    rated = removal.quality_kind is not AccuracyKind.RELATIVE_ERROR
    with_recovered = bool(removal.recovered) and absent is AbsentChannels.RECONSTRUCTED
    panels = [_removal_panel(ranked, absent, quality=True)] if rated else []
    panels.append(_removal_panel(ranked, absent, quality=False))
    scope = "the whole network" if not ranked.layers else ", ".join(ranked.layers)
    told = [
        f"filters of {scope}, least removal cost per MAC first, {_ABSENT[absent]}; "
        f"{count_words(removal.images, 'held-out image')}",
        "AUC: mean height of the curve over the share removed (± one standard error over images)",
        *(["single markers: networks that were pruned there and recovered"] if with_recovered else []),
    ]
    title = f"What is lost while filters go, absent channels {absent.value}"
    return _drawn(panels, title, told, REMOVAL_FILES[absent])


def removed_share(removal: RemovalCurves, point: RemovalPoint) -> float:
    """Removed share on the axis of the removal curves."""
    on_macs = removal.axis is RemovedShare.MACS
    return point.macs_removed_share if on_macs else point.removed_share


def _removal_panel(ranked: RankingCurves, absent: AbsentChannels, *, quality: bool) -> Any:
    """Quality or loss: a line per criterion, bands where there are few, and single recovered networks."""
    import altair as alt

    removal = ranked.removal
    curves = removal.curves(absent)
    shown = [curves[place] for place in best_first(removal, absent)]
    labels = {curve.criterion: _label(removal, curve) for curve in shown}
    lines = [_removal_row(removal, p, c.criterion, quality=quality) for c in shown for p in c.points]
    singles = [] if absent is AbsentChannels.MASKED else removal.recovered
    points = [
        _removal_row(removal, p, c.criterion, quality=quality, recovered=True)
        for c in singles
        for p in c.points
    ]
    for row in (*lines, *points):
        row["criterion"] = labels.get(row["criterion"], row["criterion"])
    axis = removal.axis.value
    x = _share("share", f"share of {axis} removed")
    title = "share of images" if quality else ranked.loss
    scale = alt.Scale(domain=[0, 1]) if quality else alt.Scale(zero=True)
    y = alt.Y("value:Q", title=title, scale=scale, axis=_SHARE_AXIS if quality else {"tickCount": 5})
    places = {curve.criterion: place for place, curve in enumerate(curves)}
    colour, dash, shape = _styles([*labels.values()], [places[name] for name in labels])
    base = alt.Chart(rows(lines))
    layers = [base.mark_line(strokeWidth=1.8, aria=False).encode(x, y, colour, dash)]
    layers.append(
        base.mark_point(filled=True, size=30, opacity=1).encode(x, y, colour, shape, description="words:N")
    )
    if len(curves) <= _BANDED_CURVES:
        band = base.mark_area(opacity=_BAND, aria=False)
        layers.insert(0, band.encode(x, alt.Y("low:Q"), colour, y2="high:Q"))
    if points:
        single = alt.Chart(rows(points))
        layers.append(single.mark_rule(aria=False).encode(x, alt.Y("low:Q"), colour, y2="high:Q"))
        layers.append(
            single.mark_point(filled=True, size=70, opacity=1).encode(
                x, y, colour, shape, description="words:N"
            )
        )
    name = _capital(removal.quality_kind.value) if quality else "Loss"
    return alt.layer(*layers).properties(width=330, height=230, title=alt.TitleParams(name))


_SHARE_AXIS = {"format": ".0%", "tickCount": 5}


def _removal_row(
    removal: RemovalCurves, point: RemovalPoint, criterion: str, *, quality: bool,
    recovered: bool = False,
) -> dict[str, Any]:  # fmt: skip
    told = f"{criterion}{', recovered' if recovered else ''}: {point.removed} filters removed, "
    row: dict[str, Any] = {"share": removed_share(removal, point), "criterion": criterion}
    if quality:
        words = format_share(point.quality or 0.0)
        interval = {"low": point.quality_low, "high": point.quality_high}
        return {**row, "value": point.quality, **interval, "words": told + words}
    interval = _interval(point.loss, point.loss_standard_error)
    return {**row, "value": point.loss, **interval, "words": f"{told}loss {significant(point.loss)}"}


def _styles(names: list[str], places: list[int]) -> tuple[Any, Any, Any]:
    """Colour, dashes and marker by the place of a criterion in the report, the same in every chart.

    The first seven differ in colour, 21 in colour or dashes.
    """
    import altair as alt

    def by(ways: tuple[Any, ...], turns: bool = False) -> alt.Scale:
        chosen = [place // len(SERIES) if turns else place for place in places]
        return alt.Scale(domain=names, range=[ways[place % len(ways)] for place in chosen])

    legend = alt.Legend(columns=1, labelLimit=600, symbolOpacity=1)
    return (
        alt.Color("criterion:N", scale=by(SERIES), legend=legend, sort=None),
        alt.StrokeDash("criterion:N", scale=by(_DASHES, turns=True), legend=legend, sort=None),
        alt.Shape("criterion:N", scale=by(_SHAPES), legend=None, sort=None),
    )


_DASHES = ([1, 0], [6, 3], [2, 2.5])
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down")


def _label(removal: RemovalCurves, curve: RemovalCurve) -> str:
    """A criterion with its areas."""
    areas = []
    if curve.quality_auc is not None:
        error = curve.quality_auc_standard_error
        areas.append(f"AUC {quality_word(removal)} {area_words(curve.quality_auc, error)}")
    areas.append(f"AUC loss {area_words(curve.loss_auc, curve.loss_auc_standard_error)}")
    return f"{curve.criterion}: {', '.join(areas)}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def best_first(removal: RemovalCurves, absent: AbsentChannels) -> list[int]:
    """Indices of the removal curves: highest area under quality first, then lowest under loss."""
    curves = removal.curves(absent)
    return sorted(range(len(curves)), key=lambda i: (-(curves[i].quality_auc or 0.0), curves[i].loss_auc, i))


def quality_word(removal: RemovalCurves) -> str:
    """The measure of quality in one word."""
    return "accuracy" if removal.quality_kind is AccuracyKind.TOP1 else "agreement"


def area_words(area: float, error: float | None) -> str:
    """An area with its standard error."""
    return f"{area:.3f}" if known(error) is None else f"{area:.3f} ± {error:.3f}"
