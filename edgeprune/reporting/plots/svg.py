"""Plots as SVG: panels with axes, lines, error bars, bands and a legend. No script, no outside resource."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edgeprune.reporting.drawing.layout import number
from edgeprune.reporting.drawing.words import escape, keep_start
from edgeprune.reporting.plots.labels import Box, label_boxes
from edgeprune.reporting.plots.ticks import nice_ticks, tick_labels

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Okabe and Ito's colour-blind-safe colours, without yellow, which is hard to see on white."""

_DASHES = ("", "6 3", "2 2.5")
_MARKERS = 5
_CHARACTER = 5.8
_TICK_CHARACTER = 5.4
_PADDING = 18.0
_HEAD = 50.0
_LEGEND_ROW = 19.0
_LEGEND_SAMPLE = 34.0

STYLE = """\
.plot text{font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;font-size:10px;fill:#1f2328}
.plot .title{font-size:15px;font-weight:600}
.plot .head{font-size:12px;font-weight:600}
.plot .entry{font-size:11px}
.plot .label{font-size:11px;font-weight:600}
.plot .soft{fill:#59636e}
.plot .middle{text-anchor:middle}
.plot .right{text-anchor:end}
.plot .paper{fill:#ffffff}
.plot .axis{stroke:#6e7781;stroke-width:1;fill:none}
.plot .grid{stroke:#e3e7eb;stroke-width:1}
.plot .reference{stroke:#6e7781;stroke-width:1;stroke-dasharray:3 3}
.plot .line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.plot .bar{stroke-width:1.2;fill:none}
.plot .band{stroke:none;opacity:.16}
.plot .range{stroke:none;opacity:.1}
"""


@dataclass(frozen=True, kw_only=True)
class LineStyle:
    """Colour, dashes and marker; the first 7 differ in colour, the first 21 in colour or dashes."""

    colour: str
    dash: str
    marker: int


def line_style(index: int) -> LineStyle:
    """Style of the series with this index."""
    turn = index // len(_COLOURS)
    return LineStyle(
        colour=_COLOURS[index % len(_COLOURS)],
        dash=_DASHES[turn % len(_DASHES)],
        marker=(index + turn) % _MARKERS,
    )


@dataclass(frozen=True, kw_only=True)
class PlotPoint:
    """A point with its error interval, if it has one; ``tooltip`` is shown on hover."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tooltip: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points in the order of x; intervals are drawn as bars, or as a band if ``band``.

    ``label`` is written beside the line if there is room.
    """

    points: tuple[PlotPoint, ...]
    style: LineStyle
    line: bool = True
    markers: bool = True
    band: bool = False
    bars: bool = True
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A level drawn across a panel, with its name."""

    y: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Plotted quantity and unit; limits are round numbers around the data if ``None``."""

    label: str
    low: float | None = None
    high: float | None = None
    percent: bool = False
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One coordinate system; ``remark`` stands beside its title."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    references: tuple[Reference, ...] = ()
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Legend:
    """A table of series: ``columns`` head the words of each entry, the first of which is its name."""

    columns: tuple[str, ...]
    entries: tuple[tuple[LineStyle, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Panels in rows of ``columns``, all of one size in pixels, and a legend to the right of them."""

    title: str
    subtitle: str
    panels: tuple[Panel, ...]
    columns: int = 3
    panel_width: float = 320.0
    panel_height: float = 200.0
    legend: Legend | None = None
    notes: tuple[str, ...] = field(default=())


def draw(figure: Figure) -> str:
    """The figure as a whole ``<svg>`` element; the same figure gives the same text."""
    columns = max(1, min(figure.columns, len(figure.panels)))
    rows = math.ceil(len(figure.panels) / columns)
    legend, legend_width, legend_height = _legend(figure.legend)
    panels_width, panels_height = columns * figure.panel_width, rows * figure.panel_height
    words = max(len(figure.title) * 8.3, len(figure.subtitle) * _CHARACTER)
    words = max([words, *(len(note) * _CHARACTER for note in figure.notes)])
    width = 2 * _PADDING + max(panels_width + legend_width, words)
    body = max(panels_height, legend_height)
    height = _HEAD + body + 14.0 * len(figure.notes) + _PADDING
    lines = [
        _text(_PADDING, 24, figure.title, "title"),
        _text(_PADDING, 41, figure.subtitle, "soft"),
    ]
    for index, panel in enumerate(figure.panels):
        left = _PADDING + (index % columns) * figure.panel_width
        top = _HEAD + (index // columns) * figure.panel_height
        drawn = _Frame(panel, figure.panel_width, figure.panel_height).draw()
        lines += [f'<g transform="translate({number(left)} {number(top)})">', *drawn, "</g>"]
    if legend:
        left = _PADDING + panels_width
        lines += [f'<g transform="translate({number(left)} {number(_HEAD)})">', *legend, "</g>"]
    for index, note in enumerate(figure.notes):
        lines.append(_text(_PADDING, _HEAD + body + 14.0 * (index + 1), note, "soft"))
    size = f'width="{number(width)}" height="{number(height)}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" '
        f'aria-label="{escape(figure.title)}" {size} viewBox="0 0 {number(width)} {number(height)}">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", f'<rect class="paper" {size}/>', *lines, "</svg>\n"])


class _Frame:
    """One panel in a box of ``width`` x ``height`` with origin (0, 0)."""

    def __init__(self, panel: Panel, width: float, height: float) -> None:
        panel = replace(panel, series=tuple(_drawable(s) for s in panel.series))
        self._panel = panel
        self._x_ticks, self._x_limits = _scale(panel.x, [p.x for s in panel.series for p in s.points])
        heights = [y for s in panel.series for p in s.points for y in (p.y, p.low, p.high) if y is not None]
        self._y_ticks, self._y_limits = _scale(panel.y, heights + [r.y for r in panel.references])
        self._y_labels, self._y_power = tick_labels(self._y_ticks, percent=panel.y.percent)
        self._x_labels, self._x_power = tick_labels(self._x_ticks, percent=panel.x.percent)
        self._left = 12.0 + _TICK_CHARACTER * max(len(label) for label in self._y_labels)
        self._right = width - 22.0
        self._top, self._bottom = 36.0, height - 38.0
        self._width = width

    def draw(self) -> list[str]:
        """Elements of the panel."""
        lines = [*self._titles(), *self._axes()]
        for reference in self._panel.references:
            lines += self._reference(reference)
        for series in self._panel.series:
            lines += self._series(series)
        return [*lines, *self._labels()]

    def _x(self, value: float) -> float:
        low, high = self._x_limits
        return self._left + (value - low) / (high - low) * (self._right - self._left)

    def _y(self, value: float) -> float:
        low, high = self._y_limits
        return self._bottom - (value - low) / (high - low) * (self._bottom - self._top)

    def _titles(self) -> list[str]:
        panel = self._panel
        room = int((self._width - len(panel.remark) * _CHARACTER - 16) / 7.0)
        lines = [_text(0, 13, keep_start(panel.title, max(8, room)), "head")]
        if panel.remark:
            lines.append(_text(self._right, 13, panel.remark, "soft right"))
        lines.append(_text(0, 28, " ".join(filter(None, (panel.y.label, self._y_power))), "soft"))
        middle = (self._left + self._right) / 2
        label = " ".join(filter(None, (panel.x.label, self._x_power)))
        return [*lines, _text(middle, self._bottom + 29, label, "soft middle")]

    def _axes(self) -> list[str]:
        lines = []
        for tick, label in zip(self._y_ticks, self._y_labels, strict=True):
            y = self._y(tick)
            lines.append(_line(self._left, y, self._right, y, "grid"))
            lines.append(_text(self._left - 6, y + 3.5, label, "right"))
        for tick, label in zip(self._x_ticks, self._x_labels, strict=True):
            x = self._x(tick)
            lines.append(_line(x, self._bottom, x, self._bottom + 4, "axis"))
            lines.append(_text(x, self._bottom + 15, label, "middle"))
        lines.append(_line(self._left, self._top, self._left, self._bottom, "axis"))
        lines.append(_line(self._left, self._bottom, self._right, self._bottom, "axis"))
        if self._y_limits[0] < 0 < self._y_limits[1]:
            lines.append(_line(self._left, self._y(0), self._right, self._y(0), "axis"))
        return lines

    def _reference(self, reference: Reference) -> list[str]:
        y = self._y(reference.y)
        line = _line(self._left, y, self._right, y, "reference")
        return [line, _text(self._right, y - 3, reference.label, "soft right")]

    def _series(self, series: Series) -> list[str]:
        colour, lines = series.style.colour, []
        if series.band:
            lines += self._band(series)
        elif series.bars:
            lines += self._bars(series)
        if series.line and len(series.points) > 1:
            path = "M" + "L".join(self._place(p.x, p.y) for p in series.points)
            dash = f' stroke-dasharray="{series.style.dash}"' if series.style.dash else ""
            lines.append(f'<path class="line" stroke="{colour}"{dash} d="{path}"/>')
        if series.markers:
            for point in series.points:
                drawn = marker(self._x(point.x), self._y(point.y), series.style)
                tooltip = f"<title>{escape(point.tooltip)}</title>" if point.tooltip else ""
                lines.append(f"<g>{tooltip}{drawn}</g>" if tooltip else drawn)
        return lines

    def _labels(self) -> list[str]:
        """Labels beside their lines, if there is room."""
        series = self._panel.series
        curves = [[(self._x(p.x), self._y(p.y)) for p in s.points] for s in series]
        frame = Box(left=self._left + 2, top=self._top, right=self._right, bottom=self._bottom - 2)
        boxes = label_boxes(curves, [s.label for s in series], frame)
        return [
            f'<text class="label" style="fill:{s.style.colour}" x="{number(box.left)}" '
            f'y="{number(box.bottom - 2)}">{escape(s.label)}</text>'
            for s, box in zip(series, boxes, strict=True)
            if box is not None
        ]

    def _place(self, x: float, y: float) -> str:
        return f"{number(self._x(x))} {number(self._y(y))}"

    def _band(self, series: Series) -> list[str]:
        bounds = [(p.x, p.low, p.high) for p in series.points if p.low is not None and p.high is not None]
        if len(bounds) < 2:
            return []
        upper = [self._place(x, high) for x, _, high in bounds]
        lower = [self._place(x, low) for x, low, _ in reversed(bounds)]
        outline = "L".join(upper + lower)
        return [f'<path class="band" fill="{series.style.colour}" d="M{outline}Z"/>']

    def _bars(self, series: Series) -> list[str]:
        cap = min(3.0, 0.35 * (self._right - self._left) / max(1, len(series.points)))
        lines = []
        for point in series.points:
            if point.low is None or point.high is None:
                continue
            x, top, bottom = self._x(point.x), self._y(point.high), self._y(point.low)
            a, b = number(x - cap), number(x + cap)
            path = (
                f"M{number(x)} {number(top)}V{number(bottom)}M{a} {number(top)}H{b}M{a} {number(bottom)}H{b}"
            )
            lines.append(f'<path class="bar" stroke="{series.style.colour}" d="{path}"/>')
        return lines


def _drawable(series: Series) -> Series:
    """Drop points and intervals that are not finite, since a masked network may overflow."""

    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    points = (replace(p, low=finite(p.low), high=finite(p.high)) for p in series.points)
    return replace(series, points=tuple(p for p in points if math.isfinite(p.y)))


def _scale(axis: Axis, values: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, float]]:
    """Ticks and limits of an axis; given limits are kept, others extend to the next tick."""
    low = min(values, default=0.0) if axis.low is None else axis.low
    high = max(values, default=1.0) if axis.high is None else axis.high
    ticks = nice_ticks(low, max(low, high))
    if axis.whole:
        ticks = tuple(t for t in ticks if t == round(t))
    first = ticks[0] if axis.low is None else axis.low
    last = ticks[-1] if axis.high is None else axis.high
    inside = tuple(t for t in ticks if first - 1e-12 <= t <= last + 1e-12)
    return inside or (first, last), (first, last)


def marker(x: float, y: float, style: LineStyle, size: float = 3.0) -> str:
    """A filled circle, square, triangle, diamond or upside-down triangle."""
    fill = f'fill="{style.colour}"'
    if style.marker == 0:
        return f'<circle {fill} cx="{number(x)}" cy="{number(y)}" r="{number(size)}"/>'
    s = size * 1.15
    corners = {
        1: ((-s, -s), (s, -s), (s, s), (-s, s)),
        2: ((0.0, -1.3 * s), (1.2 * s, s), (-1.2 * s, s)),
        3: ((0.0, -1.4 * s), (1.4 * s, 0.0), (0.0, 1.4 * s), (-1.4 * s, 0.0)),
        4: ((0.0, 1.3 * s), (1.2 * s, -s), (-1.2 * s, -s)),
    }[style.marker]
    path = "L".join(f"{number(x + dx)} {number(y + dy)}" for dx, dy in corners)
    return f'<path {fill} d="M{path}Z"/>'


def _legend(legend: Legend | None) -> tuple[list[str], float, float]:
    """Elements with origin (0, 0), width and height."""
    if legend is None:
        return [], 0.0, 0.0
    table = [legend.columns, *(words for _, words in legend.entries)]
    widths = [max(len(row[i]) for row in table) * 6.8 + 14 for i in range(len(legend.columns))]
    starts = [_LEGEND_SAMPLE + sum(widths[:i]) for i in range(len(widths))]
    lines = []
    for row, cells in enumerate(table):
        y = 13 + row * _LEGEND_ROW
        for column, words in enumerate(cells):
            classes = "head" if row == 0 else "entry"
            if column == 0:
                lines.append(_text(starts[0], y, words, classes))
            else:
                lines.append(_text(starts[column] + widths[column] - 14, y, words, f"{classes} right"))
    for row, (style, _) in enumerate(legend.entries, start=1):
        y = 13 + row * _LEGEND_ROW - 4
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        lines.append(f'<path class="line" stroke="{style.colour}"{dash} d="M2 {number(y)}H26"/>')
        lines.append(marker(14, y, style))
    return lines, starts[-1] + widths[-1], len(table) * _LEGEND_ROW


def _text(x: float, y: float, content: str, classes: str = "") -> str:
    """One line of text; ``y`` is its baseline."""
    named = f' class="{classes}"' if classes else ""
    return f'<text x="{number(x)}" y="{number(y)}"{named}>{escape(content)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return (
        f'<line class="{classes}" x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"/>'
    )
