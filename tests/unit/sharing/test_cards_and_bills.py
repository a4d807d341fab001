"""The model card and the bill of materials say what the report says, and hold for machines that read them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from synthetic_report import candidate, synthetic_report

from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.report import RunReport
from edgeprune.sharing.bill_of_materials import render_bill
from edgeprune.sharing.companions import write_companions
from edgeprune.sharing.facts import facts_of_candidate, facts_of_report, without_folders
from edgeprune.sharing.model_card import render_model_card

HOSTILE = 'odd](x)`|\n# <b>name</b>\x1b[31m: "q" --- é'


def reports() -> list[RunReport]:
    report = synthetic_report()
    named = replace(report, model=replace(report.model, source=f"/home/me/{HOSTILE}", sha256=None))
    return [
        report,
        named,
        replace(report, accuracy_kind=AccuracyKind.AGREEMENT),
        replace(report, usability=None, accuracy=(), notes=(HOSTILE,)),
    ]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"a model")
    return path


@pytest.mark.parametrize("report", reports())
def test_the_bill_holds_by_the_schema_and_is_the_same_again(report: RunReport, model: Path) -> None:
    text = render_bill(facts_of_report(report), model)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert render_bill(facts_of_report(report), model) == text
    bill = json.loads(text)
    component = bill["metadata"]["component"]
    assert component["hashes"][0]["content"] == hashlib.sha256(b"a model").hexdigest()
    assert component["type"] == "machine-learning-model"
    assert bill["metadata"]["timestamp"] == report.created_utc
    metrics = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert len([m for m in metrics if "confidenceInterval" in m]) == min(2, len(report.accuracy))
    model.write_bytes(b"another")
    other = json.loads(render_bill(facts_of_report(report), model))
    assert other["serialNumber"] != bill["serialNumber"]


@pytest.mark.parametrize("report", reports())
def test_the_card_can_be_read_by_a_hub_and_names_no_license(report: RunReport) -> None:
    card = render_model_card(facts_of_report(report), ["model.onnx", "infer.py"])
    _, front, body = card.split("---\n", 2)
    read = yaml.safe_load(front)
    assert read["library_name"] == "onnx"
    assert "license" not in read
    if report.accuracy_kind is AccuracyKind.TOP1 and report.accuracy:
        (metric,) = read["model-index"][0]["results"][0]["metrics"]
        assert metric["value"] == report.accuracy[-1].value
        assert metric["confidence_interval_95"] == [report.accuracy[-1].low, report.accuracy[-1].high]
    if report.accuracy_kind is AccuracyKind.AGREEMENT:
        assert "metrics" not in read, "an agreement with the original is no accuracy"
    assert re.findall(r"^## (.+)$", body, re.MULTILINE) == [
        "Intended use", "How it was made", "What it costs and what it lost", "Limits", "Reproduce it", "Files"
    ]  # fmt: skip
    assert "<b>" not in body
    assert "\x1b" not in card
    assert "/home/me" not in card
    assert "predicted" in body
    assert "| `infer.py` |" in body
    assert "surgery.json" not in body.partition("## Files")[2]


def test_a_picked_candidate_has_its_own_figures(model: Path) -> None:
    report, chosen = synthetic_report(), candidate("candidate 2", 0.6, 50_000, drop=2.0)
    facts = facts_of_candidate(report, chosen, "loses 2 of 100 answers: usable", "edgeprune pick out/")
    card = render_model_card(facts, [])
    assert "candidate 2" in card
    assert "2.00 points lost" in card
    assert "Loses 2 of 100 answers" in card
    assert "edgeprune pick out/" in card
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(render_bill(facts, model)) is None


def test_they_are_put_beside_the_model(model: Path) -> None:
    write_companions(model.parent, facts_of_report(synthetic_report()))
    assert {p.name for p in model.parent.iterdir()} == {
        "model.onnx", "README.md", "bom.cdx.json", "infer.py"
    }  # fmt: skip
    card = (model.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in card for name in ("model.onnx", "infer.py", "bom.cdx.json"))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("edgeprune compress /home/me/m.pt2 -o out/", "edgeprune compress m.pt2 -o out/"),
        ("edgeprune.compress (Python API)", "edgeprune.compress (Python API)"),
        ("edgeprune compress '/home/me/my model.pt2'", "edgeprune compress 'my model.pt2'"),
        ("edgeprune compress m --arch=/home/me/net.py:make", "edgeprune compress m --arch=net.py:make"),
    ],
)  # fmt: skip
def test_private_folders_are_left_out_of_commands(command: str, expected: str) -> None:
    assert without_folders(command) == expected
    assert "/home" not in without_folders(f"{command} 'unbalanced /home/me/x")
