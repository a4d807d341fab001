"""Geometry of a layered drawing: rows become columns side by side, edges become SVG paths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.reporting.drawing.ranks import Box, Ranked, Slot, rank_boxes

_ROW_GAP = 20.0
_WIDE_ROW_GAP = 28.0
_SLANT = 60.0
_GUTTER = 44.0
_TRACK = 8.0
_PORT_INSET = 9.0
_CORNER = 5.0
_SHORTEST_COLUMN = 860.0
_WIDTH_TO_HEIGHT = 1.5
_BREAK_WINDOW = 0.2


@dataclass(frozen=True, kw_only=True)
class PlacedBox:
    """Top left corner and size in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Position of every box and SVG path data of every edge, with origin (0, 0)."""

    width: float
    height: float
    boxes: dict[str, PlacedBox]
    paths: dict[tuple[str, str], str]


@dataclass(frozen=True)
class _Columns:
    """Rows with their tops and heights, and the column of each row."""

    tops: list[float]
    heights: list[float]
    of_row: list[int]
    shifts: list[float]
    bottoms: list[float]
    rights: list[float]
    top: float
    width: float


def arrange(boxes: Sequence[Box], edges: Sequence[tuple[str, str]]) -> Layout:
    """Lay out boxes, given in topological order, top-down; a deep network continues in the next column."""
    ranked = rank_boxes(boxes, edges)
    columns = _columns(ranked)
    for slot in ranked.slots:
        slot.x += columns.shifts[columns.of_row[slot.rank]]
    placed = {}
    for slot in ranked.slots:
        if slot.name is not None:
            x, y = slot.x - slot.width / 2, _slot_top(slot, columns)
            placed[slot.name] = PlacedBox(x=x, y=y, width=slot.width, height=slot.height)
    tracks = _tracks(ranked, columns)
    paths = {edge: _path(ranked, chain, columns, tracks) for edge, chain in ranked.chains.items()}
    height = max(columns.bottoms, default=0.0) + _TRACK * (1 + max(_crossing_counts(ranked), default=0))
    return Layout(width=columns.width, height=height, boxes=placed, paths=paths)


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _slot_top(slot: Slot, columns: _Columns) -> float:
    return columns.tops[slot.rank] + (columns.heights[slot.rank] - slot.height) / 2


def _crossing_counts(ranked: Ranked) -> list[int]:
    """Number of lines from each row to the next; edges from one box share a line."""
    return [sum(bool(ranked.slots[i].below) for i in row) for row in ranked.rows[:-1]]


def _row_gaps(ranked: Ranked) -> list[float]:
    gaps = []
    for row in ranked.rows[:-1]:
        slant = max(abs(ranked.slots[i].x - ranked.slots[n].x) for i in row for n in ranked.slots[i].below)
        gaps.append(_WIDE_ROW_GAP if slant > _SLANT else _ROW_GAP)
    return gaps


def _extent(ranked: Ranked, first: int, last: int) -> tuple[float, float]:
    slots = [ranked.slots[i] for row in ranked.rows[first : last + 1] for i in row]
    return min(s.x - s.width / 2 for s in slots), max(s.x + s.width / 2 for s in slots)


def _columns(ranked: Ranked) -> _Columns:
    """Split the rows into columns of about equal height, where few edges are cut."""
    heights = [max(ranked.slots[i].height for i in row) for row in ranked.rows]
    gaps = [*_row_gaps(ranked), 0.0]
    crossing = _crossing_counts(ranked)
    first, last = _breaks(heights, gaps, crossing, ranked)
    cut = [crossing[end] for end in last[:-1]]
    top = _TRACK * (max(cut, default=0) + 1) + (8.0 if cut else 0.0)
    tops: list[float] = []
    of_row, shifts, bottoms, rights = [], [], [], []
    left = 0.0
    for column, (start, end) in enumerate(zip(first, last, strict=True)):
        y = top
        for row in range(start, end + 1):
            tops.append(y)
            of_row.append(column)
            y += heights[row] + gaps[row]
        low, high = _extent(ranked, start, end)
        shifts.append(left - low)
        bottoms.append(y - gaps[end])
        rights.append(left + high - low)
        left = rights[-1] + _GUTTER + _TRACK * (cut[column] if column < len(cut) else 0)
    return _Columns(tops, heights, of_row, shifts, bottoms, rights, top, rights[-1])


def _breaks(
    heights: list[float], gaps: list[float], crossing: list[int], ranked: Ranked
) -> tuple[list[int], list[int]]:
    """First and last row of every column."""
    ends = []
    y = 0.0
    for height, gap in zip(heights, gaps, strict=True):
        ends.append(y + height)
        y += height + gap
    total = ends[-1]
    low, high = _extent(ranked, 0, len(heights) - 1)
    wanted = max(_SHORTEST_COLUMN, math.sqrt(total * (high - low + _GUTTER) / _WIDTH_TO_HEIGHT))
    count = max(1, round(total / wanted))
    last: list[int] = []
    for column in range(1, count):
        ideal, size = total * column / count, total / count
        free = range(last[-1] + 1 if last else 0, len(heights) - 1)
        near = [r for r in free if abs(ends[r] - ideal) <= _BREAK_WINDOW * size]
        if near:
            last.append(min(near, key=lambda r: (crossing[r] + 3 * abs(ends[r] - ideal) / size, r)))
    first = [0, *(end + 1 for end in last)]
    return first, [*last, len(heights) - 1]


def _tracks(ranked: Ranked, columns: _Columns) -> dict[int, int]:
    """Track of every line that leaves a column, by slot, counted from the rightmost so that none cross."""
    tracks: dict[int, int] = {}
    for upper, lower in itertools.pairwise(ranked.rows):
        if columns.of_row[ranked.slots[upper[0]].rank] == columns.of_row[ranked.slots[lower[0]].rank]:
            continue
        leaving = [i for i in reversed(upper) if ranked.slots[i].below]
        tracks.update({index: track for track, index in enumerate(leaving)})
    return tracks


def _path(ranked: Ranked, chain: tuple[int, ...], columns: _Columns, tracks: dict[int, int]) -> str:
    """Path data from the bottom of the first box to the top of the last, with its arrow head."""
    slots = ranked.slots
    start, end = slots[chain[0]], slots[chain[-1]]
    parts: list[str] = []
    x = 0.0
    for upper, lower in itertools.pairwise(chain):
        one, other = slots[upper], slots[lower]
        x_from, x_to = (one.x, other.x) if upper in tracks else _ports(one, other)
        if not parts:
            parts.append(f"M{number(x_from)} {number(_slot_top(start, columns) + start.height)}")
        bottom = columns.tops[one.rank] + columns.heights[one.rank]
        if upper in tracks:
            parts.append(_around(x_from, x_to, columns.of_row[one.rank], tracks[upper], columns))
        else:
            parts.append(_curve(x_from, x_to, bottom, columns.tops[other.rank]))
        x = x_to
    tip = _slot_top(end, columns)
    head = f"V{number(tip)}M{number(x - 3.5)} {number(tip - 6)}L{number(x)} {number(tip)}L{number(x + 3.5)}"
    return "".join(parts) + f"{head} {number(tip - 6)}"


def _ports(one: Slot, other: Slot) -> tuple[float, float]:
    """x coordinates where an edge leaves and enters: straight down if the slots overlap."""
    half_one, half_other = (max(s.width / 2 - _PORT_INSET, 0.0) if s.is_box else 0.0 for s in (one, other))
    low = max(one.x - half_one, other.x - half_other)
    high = min(one.x + half_one, other.x + half_other)
    if low <= high:
        x = min(max(one.x if half_one <= half_other else other.x, low), high)
        return x, x
    return (
        min(max(other.x, one.x - half_one), one.x + half_one),
        min(max(one.x, other.x - half_other), other.x + half_other),
    )


def _curve(x_from: float, x_to: float, top: float, bottom: float) -> str:
    if abs(x_from - x_to) < 0.05:
        return f"V{number(bottom)}"
    middle = (top + bottom) / 2
    ends = f"{number(x_from)} {number(middle)} {number(x_to)} {number(middle)}"
    return f"V{number(top)}C{ends} {number(x_to)} {number(bottom)}"


def _around(x_from: float, x_to: float, column: int, track: int, columns: _Columns) -> str:
    """Path down, through the gutter, and into the top of the next column."""
    down = columns.bottoms[column] + _TRACK * (track + 1)
    gutter = columns.rights[column] + _GUTTER / 2 + _TRACK * track
    up = _TRACK * (track + 1) - 4.0
    corner = _CORNER
    return (
        f"V{number(down - corner)}Q{number(x_from)} {number(down)} {number(x_from + corner)} {number(down)}"
        f"H{number(gutter - corner)}Q{number(gutter)} {number(down)} {number(gutter)} {number(down - corner)}"
        f"V{number(up + corner)}Q{number(gutter)} {number(up)} {number(gutter + corner)} {number(up)}"
        f"H{number(x_to - corner)}Q{number(x_to)} {number(up)} {number(x_to)} {number(up + corner)}"
        f"V{number(columns.top)}"
    )
