"""The published JSON Schemas are those of what is written, and what is written fits them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from synthetic_ranking import made_up
from synthetic_report import ruined_report, synthetic_default, synthetic_report

from edgeprune import JsonDocument, json_schema
from edgeprune.artifacts.codec import to_jsonable
from edgeprune.reporting import report_to_json
from edgeprune.reporting.ranking.files import ranking_to_json
from edgeprune.reporting.schemas import schema_version
from edgeprune.storage.outputs import Manifest, OutputFile

SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "schemas"
MANIFEST = Manifest(
    schema_version=schema_version(JsonDocument.MANIFEST),
    created_by="edgeprune",
    created_utc="2026-01-01T00:00:00+00:00",
    command="edgeprune compress m.pt",
    seed=0,
    versions={"torch": "2.13.0"},
    inputs={"m.pt": "0" * 64},
    outputs=(OutputFile(path="model.onnx", size_bytes=1, sha256="1" * 64),),
)
WRITTEN: dict[str, tuple[JsonDocument, str]] = {
    "report": (JsonDocument.REPORT, report_to_json(synthetic_report())),
    "report of a search": (
        JsonDocument.REPORT,
        report_to_json(replace(synthetic_report(), budget=synthetic_default())),
    ),
    "report of a ruined network": (JsonDocument.REPORT, report_to_json(ruined_report())),
    "ranking": (JsonDocument.RANKING, ranking_to_json(made_up())),
    "manifest": (JsonDocument.MANIFEST, json.dumps(to_jsonable(MANIFEST))),
}


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects of plain values, the outer one first."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(inner)


@pytest.mark.parametrize("document", JsonDocument)
def test_the_published_schema_is_that_of_what_is_written(document: JsonDocument, golden: Any) -> None:
    path = SCHEMAS / f"{document.value}-{schema_version(document)}.json"
    golden(path, json.dumps(json_schema(document), indent=2) + "\n")


@pytest.mark.parametrize("document", JsonDocument)
def test_it_is_a_schema(document: JsonDocument) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(document))


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_fits(name: str) -> None:
    document, text = WRITTEN[name]
    jsonschema.validate(json.loads(text), json_schema(document))


@pytest.mark.parametrize("name", WRITTEN)
def test_every_missing_and_every_other_field_is_seen(name: str) -> None:
    document, text = WRITTEN[name]
    validator = jsonschema.Draft202012Validator(json_schema(document))
    data = json.loads(text)
    fixed = [item for item in objects(data) if {"schema_version", "path", "stage", "layer"} & item.keys()]
    assert fixed
    for item in fixed:
        whole = copy.copy(item)
        for field in whole:
            del item[field]
            assert not validator.is_valid(data), field
            item[field] = whole[field]
        item["other"] = 1
        assert not validator.is_valid(data)
        del item["other"]


def test_figures_without_a_value_are_three_words() -> None:
    validator = jsonschema.Draft202012Validator(json_schema(JsonDocument.REPORT))
    data = json.loads(WRITTEN["report"][1])
    for value, accepted in [
        (1, True),
        (0.5, True),
        ("NaN", True),
        ("Infinity", True),
        ("1", False),
        (None, False),
    ]:
        data["accuracy"][0]["value"] = value
        assert validator.is_valid(data) is accepted, value
