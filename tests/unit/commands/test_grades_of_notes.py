"""Plain facts are told once, as notes; what is to be looked at is a warning, too."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
from synthetic_report import synthetic_report

from edgeprune.artifacts.codec import to_jsonable
from edgeprune.commands.run.state import Run
from edgeprune.notes import Fact, graded
from edgeprune.options.runs import CompressOptions
from edgeprune.reporting.document import build_document
from edgeprune.reporting.markdown import render_markdown
from edgeprune.showing import for_people


def test_only_warnings_are_logged_as_such(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(options=CompressOptions(model="net.pt", calibration="images"))
    with caplog.at_level(logging.INFO, logger="edgeprune"):
        run.note(Fact("labels come from 'lab.csv'"))
        run.note("one of 40 images is 2.5 points")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "labels come from 'lab.csv'"),
        ("WARNING", "one of 40 images is 2.5 points"),
    ]
    assert run.notes == ["labels come from 'lab.csv'", "one of 40 images is 2.5 points"]


def test_grades_keep_the_order_and_each_note_once() -> None:
    notes = (Fact("b"), "a", Fact("b"), "a", Fact("c"))
    assert graded(notes) == (("a",), ("b", "c"))


def test_a_report_warns_of_no_fact() -> None:
    fact, hostile = Fact("imported from ONNX opset 13"), Fact("labels come from '\x1b[31m'")
    report = synthetic_report()
    report = dataclasses.replace(report, notes=(*report.notes, fact, hostile))
    document = build_document(for_people(report))
    assert document.facts == (fact, "labels come from '\\x1b[31m'")
    assert not set(document.facts) & set(document.alerts)
    text = render_markdown(report)
    warnings, _, facts = text.partition("> [!NOTE]")
    assert "opset 13" in facts
    assert "opset 13" not in warnings
    assert "> [!WARNING]" in warnings
    calm = dataclasses.replace(report, calibration=dataclasses.replace(report.calibration, warnings=()))
    assert "[!WARNING]" not in render_markdown(dataclasses.replace(calm, notes=(fact,)))
    assert json.loads(json.dumps(to_jsonable(report)))["notes"][-2] == str(fact)
