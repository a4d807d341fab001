"""Altair charts as static SVG that follows the colours of the page, light or dark."""

from __future__ import annotations

import json
import math
import re
import textwrap
from typing import TYPE_CHECKING, Any

from edgeprune.reporting.drawing.words import visible

if TYPE_CHECKING:
    import altair

INK, SOFT, GRID = "var(--ink)", "var(--soft)", "var(--line)"
BEFORE, AFTER, GONE, CHOSEN = "var(--before)", "var(--after)", "var(--gone)", "var(--chosen)"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", INK, "#e69f00", "#56b4e9")
"""Okabe and Ito's colour-blind-safe colours, without yellow, which is hard to see on white."""
WIDTH = 230
"""Of a plot without its labels: what a phone has room for."""
LABEL_WIDTH = 130
_PADDING = {"left": 18, "right": 12, "top": 4, "bottom": 4}
"""A browser's own font may be wider than the one that places are reckoned with."""
_SIZE = re.compile(r'<svg ([^>]*?)width="([\d.]+)" height="([\d.]+)"')
_OWN_ID = re.compile(r'\bid="([^"]+)"')


_ON_WHITE = {INK: "#1f2328", SOFT: "#59636e", GRID: "#d1d9e0", BEFORE: "#afb8c1", AFTER: "#0969da"}
_MARK = re.compile(r'<path aria-label="([^"]*)"([^>]*)/>')


def to_svg(chart: altair.TopLevelMixin, label: str, key: str, *, hover: bool = False) -> str:
    """The chart as an ``<svg>`` element with ``label`` for people who cannot see it.

    ``key`` sets its inner names apart from those of other charts on the page; ``hover``: names of marks are
    shown under the pointer, on pages without a script. The same chart gives the same text; nothing is asked
    of the network.
    """
    import vl_convert

    text = vl_convert.vegalite_to_svg(_plain(_configured(chart).to_dict()))
    for name in sorted(set(_OWN_ID.findall(text))):
        text = text.replace(f'id="{name}"', f'id="{key}-{name}"').replace(f"#{name})", f"#{key}-{name})")
    named = _attribute(visible(label))
    if hover:
        text = _MARK.sub(r'<path aria-label="\1"\2><title>\1</title></path>', text)
    # "group", not "img": the points of a chart have names of their own.
    return _SIZE.sub(rf'<svg role="group" aria-label="{named}" \1width="\2" height="\3"', text, count=1)


def headed(title: str, told: list[str], width: int) -> altair.TitleParams:
    """A title above lines that fit into a drawing of ``width`` pixels, which Vega would cut off."""
    import altair as alt

    lines = [line for text in told for line in textwrap.wrap(visible(text), int(width / _CHARACTER))]
    return alt.TitleParams(title, subtitle=lines, limit=width, fontSize=14, offset=12)


_CHARACTER = 5.8


def as_file(svg: str) -> str:
    """The drawing with colours of its own on white, for files and viewers without the page's stylesheet."""
    for variable, colour in _ON_WHITE.items():
        svg = svg.replace(variable, colour)
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return re.sub(r"(<svg [^>]*>)", rf"\1{paper}", svg, count=1)


def row_labels(names: list[str]) -> str:
    """Expression of Vega's for names of rows by their place, which nothing in a name ends."""
    return json.dumps([visible(name) for name in names], ensure_ascii=True) + "[datum.value]"


def rows(values: list[dict[str, Any]]) -> altair.Data:
    """Data of a chart."""
    import altair as alt

    return alt.Data(values=values)  # type: ignore[no-untyped-call]  # Altair has no types for it


def _plain(part: Any) -> Any:
    """A specification whose texts, names of others among them, hold nothing that cannot be seen.

    The drawing library ends the process where it measures a control character.
    """
    if isinstance(part, dict):
        return {key: _plain(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_plain(value) for value in part]
    if isinstance(part, float) and not math.isfinite(part):
        return None  # a mark without a place is not drawn
    return visible(part) if isinstance(part, str) else part


def _attribute(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return escaped.replace("\\", r"\\")


def _configured(chart: Any) -> Any:
    """Colours of the page's stylesheet, so that one drawing serves light and dark."""
    words = {"labelColor": SOFT, "titleColor": SOFT, "labelFontSize": 11, "titleFontSize": 11}
    return (
        chart.configure(background="transparent", font="system-ui, sans-serif", padding=_PADDING)
        .configure_axis(
            **words, gridColor=GRID, domainColor=SOFT, tickColor=SOFT, titleFontWeight="normal",
            labelLimit=LABEL_WIDTH,
        )
        .configure_legend(**words, orient="bottom", title=None, labelLimit=300, columns=2)
        .configure_title(
            color=INK, subtitleColor=SOFT, fontSize=12, subtitleFontSize=11, anchor="start", limit=300
        )
        .configure_view(stroke=None)
        .configure_text(color=INK)
    )  # fmt: skip
