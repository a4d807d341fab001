"""The SVG writer: ticks, labels, positions, styles; well-formed and the same for the same figure."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.reporting.plots.labels import Box, label_boxes
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
from edgeprune.reporting.plots.ticks import nice_ticks, tick_labels

SVG = "{http://www.w3.org/2000/svg}"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_the_data_in_equal_round_steps(low: float, reach: float) -> None:
    high = low + reach
    ticks = nice_ticks(low, high)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= high - 1e-6 * step
    assert 2 <= len(ticks) <= 9
    for a, b in itertools.pairwise(ticks):
        assert b - a == pytest.approx(step, rel=1e-6)
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-4


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (0.0, 0.073, (0.0, 0.02, 0.04, 0.06, 0.08)),
        (-7.0, 0.0, (-8.0, -6.0, -4.0, -2.0, 0.0)),
        (3.0, 3.0, (1.0, 2.0, 3.0, 4.0, 5.0)),
        (0.0, 0.0, (-1.0, -0.5, 0.0, 0.5, 1.0)),
    ],
)
def test_ticks_of_common_ranges(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert nice_ticks(low, high) == expected


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.0, math.inf), (math.nan, 1.0)])
def test_no_axis_without_a_range(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="no axis"):
        nice_ticks(low, high)


@pytest.mark.parametrize(
    ("ticks", "percent", "labels", "power"),
    [
        ((0.0, 0.5, 1.0), False, ("0.0", "0.5", "1.0"), ""),
        ((0.0, 0.2), True, ("0%", "20%"), ""),
        ((-2.0, 0.0, 2.0), False, ("\u22122", "0", "2"), ""),
        ((0.0, 2e-4, 4e-4), False, ("0", "2", "4"), "\u00d710\u207b\u2074"),
        ((0.0, 5e5, 1e6), False, ("0.0", "0.5", "1.0"), "\u00d710\u2076"),
        ((0.0, 0.02, 0.08), False, ("0.00", "0.02", "0.08"), ""),
    ],
)
def test_tick_labels(ticks: tuple[float, ...], percent: bool, labels: tuple[str, ...], power: str) -> None:
    assert tick_labels(ticks, percent=percent) == (labels, power)


def test_the_first_styles_are_all_different() -> None:
    styles = [line_style(i) for i in range(21)]
    assert len({(s.colour, s.dash) for s in styles}) == 21
    assert len({s.colour for s in styles[:7]}) == 7


def figure(**changes: object) -> Figure:
    points = (
        PlotPoint(x=0.0, y=0.0, low=-1.0, high=1.0, tooltip="<first>"),
        PlotPoint(x=5.0, y=5.0),
        PlotPoint(x=10.0, y=10.0, low=9.0, high=10.0),
    )
    series = Series(points=points, style=line_style(0), label="line & name")
    panel = Panel(
        title="a <b> & c",
        x=Axis(label="across", low=0.0, high=10.0),
        y=Axis(label="up", low=-10.0, high=10.0),
        series=(series,),
        references=(Reference(y=5.0, label="half"),),
        remark="3 points",
    )
    legend = Legend(columns=("name", "AUC"), entries=((line_style(0), ("line", "0.5")),))
    known: dict[str, object] = {"panels": (panel,), "legend": legend, "notes": ("a note",)}
    return Figure(title="Title", subtitle="subtitle", **(known | changes))  # type: ignore[arg-type]


def words(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_the_drawing_is_well_formed_and_says_everything() -> None:
    root = ElementTree.fromstring(draw(figure()))
    assert {"Title", "subtitle", "a <b> & c", "across", "up", "half", "3 points", "a note"} <= set(
        words(root)
    )
    assert {"name", "AUC", "line", "0.5", "line & name"} <= set(words(root))
    assert [t.text for t in root.iter(f"{SVG}title")] == ["<first>"]


def test_the_same_figure_is_the_same_text() -> None:
    assert draw(figure()) == draw(figure())


def test_points_are_where_the_axes_say() -> None:
    root = ElementTree.fromstring(draw(figure()))
    ticks = {
        t.text: float(t.attrib["y"]) - 3.5 for t in root.iter(f"{SVG}text") if "right" in t.get("class", "")
    }
    across = {t.text: float(t.attrib["x"]) for t in root.iter(f"{SVG}text") if t.get("class", "") == "middle"}
    centres = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{SVG}circle")]
    assert centres[0] == pytest.approx((across["0"], ticks["0"]), abs=0.2)
    assert centres[2] == pytest.approx((across["10"], ticks["10"]), abs=0.2)
    assert centres[1] == pytest.approx(
        ((across["0"] + across["10"]) / 2, (ticks["0"] + ticks["10"]) / 2), abs=0.2
    )


def test_an_error_bar_reaches_from_low_to_high_and_points_without_one_have_none() -> None:
    root = ElementTree.fromstring(draw(figure()))
    bars = [p.attrib["d"] for p in root.iter(f"{SVG}path") if p.get("class") == "bar"]
    assert len(bars) == 2
    ticks = {
        t.text: float(t.attrib["y"]) - 3.5 for t in root.iter(f"{SVG}text") if "right" in t.get("class", "")
    }
    unit = (ticks["0"] - ticks["10"]) / 10
    top, bottom = re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", bars[0])[0]
    assert float(bottom) - float(top) == pytest.approx(2 * unit, abs=0.3)


def test_what_is_not_finite_is_left_out() -> None:
    points = (
        PlotPoint(x=0.0, y=1.0, low=-math.inf, high=2.0),
        PlotPoint(x=1.0, y=math.inf),
        PlotPoint(x=2.0, y=math.nan),
        PlotPoint(x=3.0, y=2.0, low=1.0, high=3.0),
    )
    for band in (False, True):
        series = Series(points=points, style=line_style(0), band=band)
        panel = Panel(title="t", x=Axis(label="x"), y=Axis(label="y"), series=(series,))
        text = draw(figure(panels=(panel,)))
        assert not re.search(r"\b(nan|inf)\b", text)
        root = ElementTree.fromstring(text)
        assert len(list(root.iter(f"{SVG}circle"))) == 2 + 1, "two points and the legend"
    nothing = replace_points(panel)
    assert "<svg" in draw(figure(panels=(nothing,)))


def replace_points(panel: Panel) -> Panel:
    series = Series(points=(PlotPoint(x=0.0, y=math.nan),), style=line_style(0))
    return Panel(title=panel.title, x=panel.x, y=panel.y, series=(series,))


def test_panels_stand_in_rows_without_overlap() -> None:
    many = figure().panels * 5
    root = ElementTree.fromstring(
        draw(figure(panels=many, columns=2, panel_width=300.0, panel_height=150.0, legend=None))
    )
    places = [
        re.findall(r"[\d.]+", g.attrib["transform"]) for g in root.iter(f"{SVG}g") if "transform" in g.attrib
    ]
    corners = [(float(x), float(y)) for x, y in places]
    assert len(set(corners)) == 5
    assert [x - corners[0][0] for x, _ in corners] == [0, 300, 0, 300, 0]
    assert [y - corners[0][1] for _, y in corners] == [0, 0, 150, 150, 300]
    assert float(root.attrib["height"]) >= corners[-1][1] + 150


def test_nothing_is_asked_of_the_network() -> None:
    text = draw(figure())
    assert "href" not in text
    assert "url(" not in text
    assert text.count("http") == 1, "the namespace only"


FRAME = Box(left=0.0, top=0.0, right=300.0, bottom=200.0)


def test_names_touch_no_line_and_stay_inside() -> None:
    rising = [(x, 190.0 - 0.6 * x) for x in range(0, 301, 30)]
    falling = [(x, 10.0 + 0.6 * x) for x in range(0, 301, 30)]
    boxes = label_boxes([rising, falling], ["rising", "falling"], FRAME)
    assert all(box is not None for box in boxes)
    for box, other in zip(boxes, (falling, rising), strict=True):
        assert box is not None
        assert FRAME.holds(box)
        assert min(box.distance(p) for p in other) > 10
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert not boxes[0].overlaps(boxes[1])


def test_lines_on_top_of_each_other_get_no_name() -> None:
    line = [(float(x), 100.0) for x in range(0, 301, 30)]
    assert label_boxes([line, line], ["one", "two"], FRAME) == [None, None]
    assert label_boxes([line], [""], FRAME) == [None]
