"""``inspect --graph``: which channels leave together, which stay and why, as one SVG or HTML file."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from edgeprune.errors import UsageError
from edgeprune.reporting.drawing import words
from edgeprune.reporting.drawing.facts import Facts, FlowStep, NetworkDrawing, StepKind, gather
from edgeprune.reporting.drawing.html import page
from edgeprune.reporting.drawing.svg import draw_network, frame, shifted, stay_swatch, swatch, text
from edgeprune.reporting.formatting import format_count, format_macs

__all__ = ["DRAWING_MARK", "FlowStep", "GraphFormat", "NetworkDrawing", "StepKind", "render_graph"]

DRAWING_MARK = "drawn by edgeprune inspect"
"""Marker near the start of every drawing, so that only drawings are ever replaced."""

_MARGIN = 24.0
_LEAST_WIDTH = 780.0
_ROW = 19.0
_CELL_WIDTH = 520.0
_CELL_CHARACTERS = 78
_CELL_INDENT = 38.0
_CHARACTER = 6.0


class GraphFormat(Enum):
    """Format of a drawing, by the suffix of its file."""

    SVG = ".svg"
    HTML = ".html"

    @classmethod
    def of(cls, path: str | Path) -> GraphFormat:
        """Format from the suffix of a file's name.

        Raises:
            UsageError: any other suffix.
        """
        suffix = Path(path).suffix
        for member in cls:
            if suffix.lower() == member.value:
                return member
        given = f"the suffix {suffix!r}" if suffix else "no suffix"
        raise UsageError(
            f"--graph {str(path)!r} has {given}; accepted are .svg (a drawing) and .html (the drawing with "
            "tables, to explore in a browser)"
        )


def render_graph(drawing: NetworkDrawing, form: GraphFormat) -> str:
    """The whole file as text; the same drawing gives the same text."""
    facts = gather(drawing)
    head = _headline(drawing, facts)
    lines, width, height = draw_network(drawing, facts)
    key, key_height = _key(facts)
    whole = max(width, _LEAST_WIDTH) + 2 * _MARGIN
    if form is GraphFormat.HTML:
        network = [*shifted(key, _MARGIN, 16), *shifted(lines, _MARGIN, key_height + 24)]
        svg = frame(network, whole, key_height + height + 24 + _MARGIN, head)
        return page(DRAWING_MARK, drawing, facts, head, svg)
    title = [text(0, 16, words.keep_end(drawing.source, 90), "title"), text(0, 34, head, "soft")]
    y = 52.0
    parts = [*shifted(title, _MARGIN, _MARGIN), *shifted(key, _MARGIN, _MARGIN + y)]
    y += _MARGIN + key_height + 12
    parts += shifted(lines, _MARGIN, y)
    y += height + 2 * _MARGIN
    tables, tables_height = _tables(drawing, facts, whole - 2 * _MARGIN)
    parts += shifted(tables, _MARGIN, y)
    svg = frame(parts, whole, y + tables_height + _MARGIN, f"{drawing.source}: {head}")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- {DRAWING_MARK} -->\n{svg}\n'


def _headline(drawing: NetworkDrawing, facts: Facts) -> str:
    layers, groups = len(facts.layers), len(facts.groups)
    return (
        f"input {drawing.inputs}, {format_count(drawing.parameters)} parameters, {format_macs(facts.macs)}, "
        f"{layers} layer{'s' * (layers != 1)}, {groups} coupled group{'s' * (groups != 1)} of channels"
    )


def _key(facts: Facts) -> tuple[list[str], float]:
    """Key of the drawing, with its height."""
    rows = [(text(42, 11.5, "12.3%", "right"), "share of the network's multiply-accumulates (MACs)")]
    if facts.groups:
        several = (swatch(22.0 * i, 0, 20, g.colour, str(g.number)) for i, g in enumerate(facts.groups[:2]))
        told = "bottom of a box: its output channels by coupled group; "
        told += "what has the same number and colour leaves together, wherever it is drawn"
        thin = f'<rect x="0" y="5" width="42" height="5" fill="{facts.groups[0].colour}"/>'
        entering = "top of a box: the channels that enter it; they go with the group whose colour they have"
        rows[:0] = [("".join(several), told), (thin, entering)]
    if facts.reasons:
        told = "output channels that stay; the letter is that of the reason, below"
        rows.insert(len(rows) - 1, (stay_swatch(0, 0, 42, "stay: A"), told))
    lines = []
    for index, (sample, meaning) in enumerate(rows):
        lines += shifted([sample, text(54, 11.5, meaning, "soft")], 0, _ROW * index)
    return lines, _ROW * len(rows)


def _tables(drawing: NetworkDrawing, facts: Facts, width: float) -> tuple[list[str], float]:
    """Reasons, groups and notes below the drawing."""
    columns = max(1, int(width // _CELL_WIDTH))
    groups = "Coupled groups: channels, MACs that go with all of them, and the layers that they leave"
    tables = (
        ("What stays, and why", _reason_rows(facts, width), 1),
        (groups, _group_rows(facts), columns),
        ("Notes", [line for note in drawing.notes for line in _wrapped(note, 0, width)], 1),
    )
    lines: list[str] = []
    y = 0.0
    for title, rows, across in tables:
        if rows:
            lines += [*shifted([text(0, 12, title, "head")], 0, y), *_grid(rows, across, y + 20)]
            y += 20 + _ROW * -(-len(rows) // across) + 20
    return lines, y


def _wrapped(content: str, x: float, width: float) -> list[str]:
    """Lines of text wrapped to the width."""
    return [text(x, 11.5, line) for line in textwrap.wrap(content, int((width - x) / _CHARACTER))]


def _reason_rows(facts: Facts, width: float) -> list[str]:
    rows = []
    for reason in facts.reasons:
        told = f"{reason.sentence}: {reason.channels} channels of {words.listed(reason.layers)}"
        first, *more = _wrapped(told, _CELL_INDENT, width)
        rows += [stay_swatch(0, 0, 30, reason.letter) + first, *more]
    return rows


def _group_rows(facts: Facts) -> list[str]:
    rows = []
    for group in facts.groups:
        share = words.percent(group.macs, facts.macs)
        told = f"{words.group_size(group)} ch, {share} MACs: "
        names = words.listed_within(group.layers, _CELL_CHARACTERS - len(told))
        shown = text(_CELL_INDENT, 11.5, told + names)
        rows.append(swatch(0, 0, 30, group.colour, str(group.number)) + shown)
    return rows


def _grid(rows: Sequence[str], columns: int, y: float) -> list[str]:
    """Rows laid out in columns, read downwards."""
    deep = -(-len(rows) // columns)
    lines = []
    for index, row in enumerate(rows):
        lines += shifted([row], _CELL_WIDTH * (index // deep), y + _ROW * (index % deep))
    return lines
