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
from edgeprune.artifacts.quantization import (
    IntegerFormat,
    IntegerReport,
    MixedReport,
    PieceRow,
    Precision,
    RangeMethod,
)
from edgeprune.artifacts.report import Deviation, InnerParity, QuantizationSection, RunReport
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


def in_pieces(count: int, of: int) -> QuantizationSection:
    """Quantization of a file in mixed precision, ``count`` of ``of`` pieces of it in 8 bits."""
    deviation = Deviation(
        reference="fp32", candidate="auto", max_abs_error=0.1, mean_abs_error=0.01, relative_error=0.01,
        cosine=1.0, top1_agreement=1.0, images=8,
    )  # fmt: skip
    integer = IntegerReport(
        format=IntegerFormat(signed_activations=True, reduce_range=False, reason="the fastest"),
        method=RangeMethod.MSE, images=8, nodes={"Conv": 7}, equalized=0, corrected=0, kept_float=(),
    )  # fmt: skip
    pieces = tuple(
        PieceRow(ends_with=f"p{place}", weighted_nodes=1, integer=place < count, alone=None, why="faster")
        for place in range(of)
    )
    return QuantizationSection(
        precision=Precision.AUTO,
        integer=None,
        mixed=MixedReport(pieces=pieces, measured=3, integer=integer if count else None, harm=None),
        float16=None,
        deviation=deviation,
        inner=InnerParity(compared=0, tolerance=0.1, farthest=None, first_apart=None),
        float_size_bytes=1000,
    )


@pytest.mark.parametrize(
    ("count", "gone", "stage"),
    [
        (
            7,
            "- bits: 8 bits in 7 of 8 pieces and 32 bits elsewhere, chosen piece by piece\n",
            "8 bits in 7 of",
        ),
        (0, "", "all in 32 bits |"),
    ],
)
def test_the_card_says_which_bits_were_chosen(count: int, gone: str, stage: str) -> None:
    report = synthetic_report()
    last = replace(report.accuracy[-1], stage="auto")
    report = replace(report, accuracy=(*report.accuracy[:-1], last), quantization=in_pieces(count, 8))
    card = render_model_card(facts_of_report(report), [])
    assert gone in card
    assert ("- bits" in card) == bool(gone)
    assert f"| {report.accuracy_kind.value}, {stage}" in card
    assert "auto" not in card


def test_the_card_of_a_candidate_says_its_bits() -> None:
    mixed = replace(candidate("candidate 1", 1.0, 5_000, drop=0.0), precision=Precision.AUTO, fewer_bits=True)
    facts = facts_of_candidate(synthetic_report(), mixed, "loses nothing", "edgeprune pick out/")
    card = render_model_card(facts, [])
    assert "- bits: 8 bits where they pay and 32 bits elsewhere\n" in card
    assert "recovered;" not in card, "nothing was pruned"


def test_what_stays_was_recovered_only_where_something_was_removed() -> None:
    report = synthetic_report()
    assert "What stays was recovered; `report.md`" in render_model_card(facts_of_report(report), [])
    whole = replace(report.pruning, players_removed=0, macs_removed_share=0.0, blocks_dropped=())
    card = render_model_card(facts_of_report(replace(report, pruning=whole)), [])
    assert "What stays was recovered" not in card
    assert "`report.md` has every step" in card


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
