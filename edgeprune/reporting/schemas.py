"""JSON Schemas of what is written for other programs, made from the dataclasses that are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprune.artifacts.choices import JsonDocument
from edgeprune.artifacts.codec import NON_FINITE
from edgeprune.artifacts.report import REPORT_SCHEMA_VERSION, RunReport
from edgeprune.reporting.ranking.facts import RANKING_SCHEMA_VERSION, RankingReport
from edgeprune.storage.outputs import MANIFEST_SCHEMA_VERSION, Manifest

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


_KINDS: dict[JsonDocument, tuple[type[Any], str]] = {
    JsonDocument.REPORT: (RunReport, REPORT_SCHEMA_VERSION),
    JsonDocument.RANKING: (RankingReport, RANKING_SCHEMA_VERSION),
    JsonDocument.MANIFEST: (Manifest, MANIFEST_SCHEMA_VERSION),
}


def schema_version(document: JsonDocument) -> str:
    """The version that edgeprune writes."""
    return _KINDS[document][1]


def json_schema(document: JsonDocument) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``report.json``, ``ranking.json`` or ``manifest.json`` as written today.

    Every field is there and no other; what has no finite value is one of three strings.
    """
    from pydantic import TypeAdapter  # a twentieth of a second, and few need it

    kind, version = _KINDS[document]
    schema = TypeAdapter(kind).json_schema(mode="serialization", schema_generator=_generator())
    schema["properties"]["schema_version"] = {"const": version}
    return {"$schema": _DIALECT, "$id": f"urn:edgeprune:{document.value}:{version}", **schema}


def _generator() -> type[Any]:
    from pydantic.json_schema import GenerateJsonSchema

    class Written(GenerateJsonSchema):
        """As ``artifacts/codec.py`` writes: all fields, no others, three names of what is not finite."""

        def float_schema(self, schema: Any) -> JsonSchemaValue:
            number = super().float_schema(schema)
            return {"anyOf": [number, {"enum": list(NON_FINITE.values())}]}

        def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
            found = super().dataclass_schema(schema)
            found = self.resolve_ref_schema(found)
            found["additionalProperties"] = False
            found["required"] = list(found.get("properties", {}))
            found.pop("title", None)
            for field in found.get("properties", {}).values():
                field.pop("title", None)
                field.pop("default", None)
            return found

    return Written
