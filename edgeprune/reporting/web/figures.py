"""The charts of a run: candidates, widths, importance, accuracy, operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.artifacts.budget import BudgetSection, Candidate
from edgeprune.artifacts.latency import OperatorTimes
from edgeprune.artifacts.pruning import GroupImportance
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.artifacts.report import LayerRow
from edgeprune.intervals import Z_95
from edgeprune.reporting.budget_words import on_front
from edgeprune.reporting.drawing.words import keep_end
from edgeprune.reporting.formatting import count_words, format_bytes, format_share, significant
from edgeprune.reporting.web.charts import (
    AFTER,
    BEFORE,
    CHOSEN,
    GONE,
    INK,
    SOFT,
    WIDTH,
    row_labels,
    rows,
    to_svg,
)
from edgeprune.reporting.web.facts import PlotFigure

MOST_LAYERS = 48
MOST_GROUPS = 12
_MOST_OPERATORS = 10
_NAME_LENGTH = 24
_ROW = 13
_FATES = {False: "kept", True: "removed"}


def pareto_figure(section: BudgetSection) -> PlotFigure:
    """Latency against what is lost, one point a candidate; those on the front are joined."""
    import altair as alt

    tried = [c for c in (section.original, *section.candidates) if c.drop_points is not None]
    values = [
        {
            "share": 100 * c.latency_share,
            "lost": c.drop_points,
            "kind": _kind(c, section),
            "front": on_front(c, section),
            "words": _words(c, section),
        }
        for c in tried
    ]
    x = alt.X("share:Q", title="latency, % of the original's", scale=alt.Scale(zero=False, padding=12))
    lost = [c.drop_points for c in tried if c.drop_points is not None]
    reach = alt.Scale(domain=[min([0.0, *lost]), max([1.0, *lost])], padding=8)
    y = alt.Y("lost:Q", title=f"points of {section.drop_of} lost", scale=reach)
    kinds = {"original": INK, "delivered": CHOSEN, "within the limits": AFTER, "exceeds a limit": GONE}
    there = [kind for kind in kinds if any(row["kind"] == kind for row in values)]
    colours = alt.Scale(domain=there, range=[kinds[kind] for kind in there])
    line = (
        alt.Chart(rows([row for row in values if row["front"]]))
        .mark_line(stroke=SOFT, strokeDash=[4, 3], strokeWidth=1.2, aria=False)
        .encode(x, y, order="share:Q")
    )
    points = (
        alt.Chart(rows(values))
        .mark_point(filled=True, size=110, opacity=1)
        .encode(
            x,
            y,
            color=alt.Color("kind:N", scale=colours),
            shape=alt.Shape("kind:N", scale=alt.Scale(domain=there, range=_SHAPES[: len(there)])),
            description="words:N",
        )
    )
    chart = alt.layer(line, points).properties(width=WIDTH + 60, height=220)
    told = (
        "Every candidate by its latency and its loss: down and left is better. The dashed line joins those "
        "that no other beats in latency, size and loss at once."
    )
    return PlotFigure(svg=to_svg(chart, "Candidates", "pareto"), caption=told, interactive=True)


_SHAPES = ["diamond", "circle", "square", "triangle-up"]


def _kind(candidate: Candidate, section: BudgetSection) -> str:
    if candidate.name == section.chosen:
        return "delivered"
    if candidate.name == section.original.name:
        return "original"
    return "exceeds a limit" if candidate.exceeded else "within the limits"


def _words(candidate: Candidate, section: BudgetSection) -> str:
    """Name and figures of a candidate; the page's script finds the plan by the name before the colon."""
    return (
        f"{candidate.name}: {format_share(candidate.latency_share)} of the latency "
        f"({candidate.latency_provenance.value}), {format_bytes(candidate.size_bytes)}, "
        f"{candidate.drop_points:.2f} points lost; {_kind(candidate, section)}"
    )


def widths_figure(layers: tuple[LayerRow, ...]) -> PlotFigure:
    """Channels of every layer before, behind what is left of them."""
    import altair as alt

    changed = sorted(
        range(len(layers)), key=lambda i: (layers[i].macs_after - layers[i].macs_before, i)
    )[:MOST_LAYERS]  # fmt: skip
    shown = [layers[index] for index in sorted(changed)]
    values = [
        {
            "place": place,
            "layer": keep_end(row.layer, _NAME_LENGTH),
            "before": row.channels_before,
            "after": row.channels_after,
            "words": f"{row.layer}: {row.channels_before} channels, {row.channels_after} left",
        }
        for place, row in enumerate(shown)
    ]
    names = [str(row["layer"]) for row in values]
    labels = alt.Axis(labelExpr=row_labels(names), ticks=False, domain=False, grid=False)
    y = alt.Y("place:O", title=None, axis=labels, scale=alt.Scale(padding=0.15))
    base = alt.Chart(rows(values))
    before = base.mark_bar(color=BEFORE, aria=False).encode(y, alt.X("before:Q", title="channels"))
    after = base.mark_bar(color=AFTER).encode(y, alt.X("after:Q"), description="words:N")
    chart = alt.layer(before, after).properties(width=WIDTH, height=_ROW * len(shown))
    part = "" if len(shown) == len(layers) else f" The {len(shown)} of {len(layers)} that lost most MACs."
    told = f"Output channels of every layer: what is left (blue) of what was there (grey).{part}"
    return PlotFigure(svg=to_svg(chart, "Widths of the layers before and after", "widths"), caption=told)


def importance_figure(group: GroupImportance, key: str) -> PlotFigure:
    """Values of a group's channels, highest first, with 95% intervals, and which of them went."""
    import altair as alt

    values = [
        {
            "place": each.place,
            "value": each.value,
            "low": each.value - Z_95 * (each.standard_error or 0.0),
            "high": each.value + Z_95 * (each.standard_error or 0.0),
            "kind": _FATES[each.removed],
            "words": f"place {each.place}: {significant(each.value)}, {_FATES[each.removed]}",
        }
        for each in group.shown
        if abs(each.value) < float("inf")
    ]
    there = [kind for kind in ("kept", "removed") if any(row["kind"] == kind for row in values)]
    colours = {"kept": AFTER, "removed": GONE}
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=there, range=[colours[k] for k in there]), legend=None
    )  # fmt: skip
    x = alt.X(
        "place:Q", title=None, scale=alt.Scale(domain=[0.5, group.channels + 0.5]),
        axis=alt.Axis(grid=False, tickMinStep=1, tickCount=5, format="d"),
    )  # fmt: skip
    base = alt.Chart(rows(values))
    bars = base.mark_rule(strokeWidth=1.2, aria=False).encode(
        x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour
    )
    shape = alt.Shape(
        "kind:N", legend=None,
        scale=alt.Scale(domain=there, range=["circle" if k == "kept" else "triangle-down" for k in there]),
    )  # fmt: skip
    y = alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=4))
    points = base.mark_point(filled=True, size=34, opacity=1).encode(
        x, y, colour, shape, description="words:N"
    )
    counts = f"{group.removed} of {count_words(group.channels, 'channel')} removed"
    heading = alt.TitleParams(keep_end(group.group, _NAME_LENGTH), subtitle=counts)
    chart = alt.layer(bars, points).properties(width=WIDTH + 10, height=110, title=heading)
    return PlotFigure(svg=to_svg(chart, f"Values of the channels of {group.group}", key), caption="")


def accuracy_figure(figures: Sequence[AccuracyFigure], kind: AccuracyKind) -> PlotFigure:
    """The measure by stage, with its 95% interval."""
    import altair as alt

    percent = 100.0 if kind.is_share else 1.0
    values = [
        {
            "place": place,
            "stage": figure.stage,
            "value": percent * figure.value,
            "low": percent * figure.low,
            "high": percent * figure.high,
        }
        for place, figure in enumerate(figures)
    ]
    names = [str(row["stage"]) for row in values]
    labels = alt.Axis(labelExpr=row_labels(names), grid=False, ticks=False)
    y = alt.Y("place:O", title=None, axis=labels)
    unit = f"{kind.value}{', %' if kind.is_share else ''}"
    x = alt.X("low:Q", title=unit, scale=alt.Scale(zero=False, padding=8))
    base = alt.Chart(rows(values))
    line = base.mark_rule(color=AFTER, strokeWidth=2, aria=False).encode(x, y, x2="high:Q")
    point = base.mark_point(filled=True, size=80, color=AFTER, opacity=1).encode(y, x="value:Q")
    chart = alt.layer(line, point).properties(width=WIDTH, height=24 * len(values))
    lower = " Lower is better." if kind.is_error else ""
    told = f"Quality on held-out images after every stage, with its 95% interval.{lower}"
    return PlotFigure(svg=to_svg(chart, "Quality by stage", "accuracy"), caption=told)


def operators_figure(times: OperatorTimes) -> PlotFigure:
    """Time by operator of both files."""
    import altair as alt

    total: dict[str, float] = {}
    for row in (*times.original, *times.compressed):
        total[row.operator] = max(total.get(row.operator, 0.0), row.time_ms)
    shown = sorted(total, key=lambda operator: (-total[operator], operator))[:_MOST_OPERATORS]
    values = [
        {"operator": row.operator, "file": name, "time": row.time_ms}
        for name, table in (("original", times.original), ("compressed", times.compressed))
        for row in table
        if row.operator in shown
    ]
    colours = alt.Scale(domain=["original", "compressed"], range=[BEFORE, AFTER])
    chart = (
        alt.Chart(rows(values))
        .mark_bar()
        .encode(
            y=alt.Y("operator:N", title=None, sort=shown, axis=alt.Axis(ticks=False)),
            yOffset=alt.YOffset("file:N", sort=["original", "compressed"]),
            x=alt.X("time:Q", title="ms in one run"),
            color=alt.Color("file:N", scale=colours, sort=["original", "compressed"]),
        )
        .properties(width=WIDTH, height=32 * len(shown))
    )
    told = (
        f"Wall-clock time of all nodes of an operator in one run, {times.provenance.value} "
        f"({count_words(times.threads, 'thread')}, median of {count_words(times.runs, 'run')}). Timing "
        "single nodes takes time itself, so the sum is more than the latency."
    )
    return PlotFigure(svg=to_svg(chart, "Time by operator", "operators"), caption=told)


@dataclass(frozen=True)
class Share:
    """Part of a whole, by name."""

    name: str
    share: float


def shares_figure(shares: Sequence[Share], told: str, key: str) -> PlotFigure:
    """Shares as bars, the largest first; ``key`` sets the drawing apart from others on the page."""
    import altair as alt

    largest = sorted(shares, key=lambda each: (-each.share, each.name))
    shown, rest = largest[:_MOST_OPERATORS], sum(each.share for each in largest[_MOST_OPERATORS:])
    values = [{"name": keep_end(each.name, _NAME_LENGTH), "share": 100 * each.share} for each in shown]
    if rest:
        values.append({"name": "others", "share": 100 * rest})
    order = [str(row["name"]) for row in values]
    chart = (
        alt.Chart(rows(values))
        .mark_bar(color=AFTER)
        .encode(
            y=alt.Y("name:N", title=None, sort=order, axis=alt.Axis(ticks=False)),
            x=alt.X("share:Q", title="% of a run"),
        )
        .properties(width=WIDTH, height=20 * len(values))
    )
    return PlotFigure(svg=to_svg(chart, told, key), caption=told)
