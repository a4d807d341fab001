"""The bill of materials, ``bom.cdx.json``: CycloneDX 1.6 with a model card."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.sharing.facts import Metric, ModelFacts, without_folders
from edgeprune.storage.files import sha256_file

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_MODEL_REF, _SOURCE_REF, _IMAGES_REF = "model", "source", "calibration-images"


def render_bill(facts: ModelFacts, model: Path) -> str:
    """The bill of the ONNX file ``model`` as JSON.

    Its serial number follows from the hash of the model and of the source, and its time is that of the
    report, so that the same report gives the same bytes.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output.json import JsonV1Dot6

    digest = sha256_file(model)
    name = f"edgeprune:{facts.source_sha256}:{digest}"
    described = _model(facts, digest, model.name)
    images = _images(facts)
    bill = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, name),
        metadata=BomMetaData(
            timestamp=datetime.fromisoformat(facts.created_utc), component=described, tools=_tools(facts)
        ),
        components=[images],
    )
    bill.register_dependency(described, [images])
    document = json.loads(JsonV1Dot6(bill).output_as_string())
    # The library (11) has no model card yet; the standard has.
    document["metadata"]["component"]["modelCard"] = _card(facts)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _model(facts: ModelFacts, digest: str, file_name: str) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    given = (
        []
        if facts.source_sha256 is None
        else [HashType(alg=HashAlgorithm.SHA_256, content=facts.source_sha256)]
    )
    kind = ComponentType.MACHINE_LEARNING_MODEL
    source = Component(name=facts.source, type=kind, bom_ref=_SOURCE_REF, hashes=given)
    return Component(
        name=file_name,
        type=kind,
        bom_ref=_MODEL_REF,
        description=facts.name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        pedigree=Pedigree(ancestors=[source], notes=f"Removed: {'; '.join(facts.removed)}"),
        properties=[
            Property(name="edgeprune:command", value=without_folders(facts.command)),
            Property(name="edgeprune:seed", value=str(facts.seed)),
            Property(name="edgeprune:target", value=facts.target),
        ],
    )


def _images(facts: ModelFacts) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    fingerprint = Property(name="edgeprune:fingerprint-sha256", value=facts.fingerprint_sha256)
    return Component(
        name="calibration images",
        type=ComponentType.DATA,
        bom_ref=_IMAGES_REF,
        description=facts.images,
        properties=[fingerprint],
    )


def _tools(facts: ModelFacts) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from packageurl import PackageURL

    versions = {"edgeprune": facts.edgeprune, **facts.packages}
    return ToolRepository(
        components=[
            Component(
                name=package,
                version=number,
                bom_ref=f"tool-{package}",
                type=ComponentType.APPLICATION if package == "edgeprune" else ComponentType.LIBRARY,
                purl=PackageURL("pypi", None, package, number),
            )
            for package, number in sorted(versions.items())
        ]
    )


def _card(facts: ModelFacts) -> dict[str, Any]:
    image = f"float32 image, {facts.inputs} (channels, height, width)"
    parameters: dict[str, Any] = {
        "datasets": [{"ref": _IMAGES_REF}],
        "inputs": [{"format": image if facts.single_image else f"float32 inputs, {facts.inputs}"}],
    }
    if facts.hub is not None:
        parameters["task"] = facts.hub.task
    limits = ["The figures hold for images like those that judged the model.", *facts.notes]
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [_metric(metric) for metric in facts.metrics]},
        "considerations": {
            "useCases": [f"What {facts.source} is used for, on a smaller device ({facts.target})."],
            "technicalLimitations": limits,
            "performanceTradeoffs": [f"{facts.loss} {facts.advice}".strip()],
        },
    }


def _metric(metric: Metric) -> dict[str, Any]:
    value = metric.words if metric.value is None else str(metric.value)
    entry: dict[str, Any] = {"type": metric.name, "value": value, "slice": metric.provenance}
    if metric.low is not None and metric.high is not None:
        entry["confidenceInterval"] = {"lowerBound": str(metric.low), "upperBound": str(metric.high)}
    return entry
