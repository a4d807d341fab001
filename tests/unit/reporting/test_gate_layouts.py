"""The gate and the comparison in every form: golden files, escapes where each goes, lengths."""

from __future__ import annotations

import io
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gate_files import synthetic_comparison, synthetic_gate
from rich.console import Console, RenderableType

from edgeprune.artifacts.codec import to_jsonable
from edgeprune.gate.outcomes import Difference, Interval, Metric, OnInconclusive, Unit
from edgeprune.reporting.gate.ci import gate_annotations, gate_junit
from edgeprune.reporting.gate.layouts import (
    COMMENT_BYTES,
    COMMENT_MARK,
    comparison_markdown,
    comparison_page,
    comparison_terminal,
    gate_comment,
    gate_markdown,
    gate_terminal,
    within,
)
from edgeprune.reporting.gate.words import differences_table, interval_words
from edgeprune.showing import for_people, plain_values

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def terminal(found: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160, color_system=None).print(found)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def as_json(found: object) -> str:
    return json.dumps(plain_values(to_jsonable(found)), indent=2, ensure_ascii=False) + "\n"


GATE, COMPARISON = synthetic_gate(), synthetic_comparison()
FORMS = {
    "check.md": lambda: gate_markdown(GATE),
    "check.json": lambda: as_json(GATE),
    "check.txt": lambda: terminal(gate_terminal(for_people(GATE))),
    "check-junit.xml": lambda: gate_junit(GATE),
    "compare.md": lambda: comparison_markdown(COMPARISON),
    "compare.json": lambda: as_json(COMPARISON),
    "compare.txt": lambda: terminal(comparison_terminal(for_people(COMPARISON))),
}


@pytest.mark.parametrize("name", FORMS)
def test_golden(name: str, golden: Any) -> None:
    golden(GOLDEN / name, FORMS[name]())


def test_no_form_has_control_characters_or_markup_of_names() -> None:
    forms = {name: form() for name, form in FORMS.items()} | {"page": comparison_page(COMPARISON)}
    assert not [name for name, text in forms.items() if "\x1b" in text]
    assert not [
        name for name in ("check.md", "compare.md", "page") if re.search(r"(?<!\\)<[bi]>", forms[name])
    ]
    assert not [name for name in ("check.md", "compare.md") if re.search(r"(?<!\\)\|<", forms[name])]


@pytest.mark.parametrize(
    ("asked", "tag", "kind"),
    [
        (OnInconclusive.REPORT, "error", "warning"),
        (OnInconclusive.FAIL, "failure", "error"),
        (OnInconclusive.PASS, "skipped", "notice"),
    ],
)
def test_an_open_check_is_what_was_asked_for(asked: OnInconclusive, tag: str, kind: str) -> None:
    result = synthetic_gate(asked)
    cases = list(ET.fromstring(gate_junit(result)).iter("testcase"))
    assert [[child.tag for child in case] for case in cases] == [["system-out"], [tag], ["failure"]]
    lines = gate_annotations(result)
    assert [line.split(" ")[0] for line in lines] == ["::error", f"::{kind}"]


def test_an_annotation_is_one_line_with_one_title() -> None:
    for line in gate_annotations(GATE):
        assert line.count("\n") == 0
        title, text = re.fullmatch(r"::\w+ title=([^:,]*)::(.*)", line).groups()  # type: ignore[union-attr]
        assert "edgeprune check%3A" in title
        assert not re.search(r"%(?!25|0A|0D)", text)


def test_a_comment_begins_with_its_mark_and_is_short_enough() -> None:
    many = replace(GATE, checks=GATE.checks * 300)
    text = gate_comment(many)
    assert text.startswith(f"{COMMENT_MARK}\n")
    assert len(text.encode()) <= COMMENT_BYTES
    assert "left out" in text
    assert gate_comment(GATE) == f"{COMMENT_MARK}\n{gate_markdown(GATE)}"


@pytest.mark.parametrize("text", ["é" * 500, "line\n" * 200, "x" * 300])
def test_a_text_is_cut_to_bytes(text: str) -> None:
    cut = within(text, 250)
    assert len(cut.encode()) <= 250
    assert cut.endswith("JSON._\n")
    assert within(text, 2000) == text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.0, 0.471, "0.456x (at most 0.471x)"),
        (0.44, math.inf, "0.456x (at least 0.440x)"),
        (0.44, 0.471, "0.456x (0.440x to 0.471x)"),
        (0.456, 0.456, "0.456x"),
    ],
)
def test_bounds_from_one_side_are_told_as_such(low: float, high: float, words: str) -> None:
    assert interval_words(Interval(value=0.456, low=low, high=high), Unit.RATIO) == words


@pytest.mark.parametrize(
    ("unit", "ends", "change", "meaning"),
    [
        (Unit.RATIO, (1.0002, 1.0002, 1.0002), "1.000x", "no difference"),
        (Unit.RATIO, (0.9998, 0.9998, 0.9998), "1.000x", "no difference"),
        (Unit.RATIO, (1.0, 1.0, 1.0), "1.000x", "no difference"),
        (Unit.RATIO, (1.0002, 1.0001, 1.0003), "1.000x (1.000x to 1.000x)", "no difference"),
        (Unit.RATIO, (1.0004, 1.0001, 1.002), "1.000x (1.000x to 1.002x)", "no clear difference"),
        (Unit.RATIO, (0.9996, 0.99, 0.9999), "1.000x (0.990x to 1.000x)", "no clear difference"),
        (Unit.RATIO, (1.001, 1.001, 1.001), "1.001x", "WORSE"),
        (Unit.RATIO, (0.999, 0.998, 0.9994), "0.999x (0.998x to 0.999x)", "better"),
        (Unit.RATIO, (math.inf, math.inf, math.inf), "unbounded", "WORSE"),
        (Unit.POINTS, (-0.001, -0.001, -0.001), "+0.00 points", "no difference"),
        (Unit.POINTS, (-0.01, -0.02, -0.01), "-0.01 points (-0.02 to -0.01)", "WORSE"),
    ],
)
def test_a_difference_that_is_not_shown_is_none(
    unit: Unit, ends: tuple[float, float, float], change: str, meaning: str
) -> None:
    value, low, high = ends
    one = Difference(
        metric=Metric.LATENCY, unit=unit, change=Interval(value=value, low=low, high=high), basis="it"
    )
    (row,) = differences_table(replace(COMPARISON, differences=((one,),))).rows
    assert row[2:4] == (change, meaning)
