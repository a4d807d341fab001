"""JSON Schemas of the files written for other programs, derived from their dataclasses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprune.artifacts.choices import JsonDocument
from edgeprune.artifacts.codec import NON_FINITE
from edgeprune.artifacts.report import REPORT_SCHEMA_VERSION, RunReport
from edgeprune.reporting.ranking.facts import RANKING_SCHEMA_VERSION, RankingReport
from edgeprune.reporting.sweep.facts import SWEEP_SCHEMA_VERSION, SweepReport
from edgeprune.storage.outputs import MANIFEST_SCHEMA_VERSION, Manifest
from edgeprune.targets import TARGET_SCHEMA_VERSION, TargetProfile

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


_KINDS: dict[JsonDocument, tuple[type[Any], str]] = {
    JsonDocument.REPORT: (RunReport, REPORT_SCHEMA_VERSION),
    JsonDocument.RANKING: (RankingReport, RANKING_SCHEMA_VERSION),
    JsonDocument.MANIFEST: (Manifest, MANIFEST_SCHEMA_VERSION),
    JsonDocument.SWEEP: (SweepReport, SWEEP_SCHEMA_VERSION),
    JsonDocument.TARGET: (TargetProfile, TARGET_SCHEMA_VERSION),
}


def schema_version(document: JsonDocument) -> str:
    """Schema version that edgeprune writes."""
    return _KINDS[document][1]


def json_schema(document: JsonDocument) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``report.json``, ``ranking.json`` or ``manifest.json`` as written today.

    Every field is there and no other; what has no finite value is one of three strings. That of a target is
    of what is read from TOML: keys with a default may be left out.
    """
    from pydantic import TypeAdapter  # takes 50 ms, and few callers need it

    kind, version = _KINDS[document]
    if document is JsonDocument.TARGET:
        read = TypeAdapter(kind).json_schema(mode="validation")
        for definition in (read, *read.get("$defs", {}).values()):
            definition["additionalProperties"] = False
        return {"$schema": _DIALECT, "$id": f"urn:edgeprune:{document.value}:{version}", **read}
    schema = TypeAdapter(kind).json_schema(mode="serialization", schema_generator=_generator())
    schema["properties"]["schema_version"] = {"const": version}
    return {"$schema": _DIALECT, "$id": f"urn:edgeprune:{document.value}:{version}", **schema}


def _generator() -> type[Any]:
    from pydantic.json_schema import GenerateJsonSchema

    class Written(GenerateJsonSchema):
        """As ``artifacts/codec.py`` writes: all fields, no others, three names of non-finite values."""

        def float_schema(self, schema: Any) -> JsonSchemaValue:
            number = super().float_schema(schema)
            return {"anyOf": [number, {"enum": list(NON_FINITE.values())}]}

        def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
            definition = super().dataclass_schema(schema)
            definition = self.resolve_ref_schema(definition)
            definition["additionalProperties"] = False
            definition["required"] = list(definition.get("properties", {}))
            definition.pop("title", None)
            for field in definition.get("properties", {}).values():
                field.pop("title", None)
                field.pop("default", None)
            return definition

    return Written
