"""Report of a candidate picked after a search: its usability first, then all candidates."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.artifacts.budget import BudgetSection
from edgeprune.artifacts.report import RunReport, Usability
from edgeprune.reporting.budget_words import limits_in_words
from edgeprune.reporting.document import Document, candidates_table
from edgeprune.reporting.formatting import format_bytes, format_ms, format_share
from edgeprune.reporting.headline import headline_of
from edgeprune.reporting.quantization_words import bits_of_candidate


def build_picked_document(report: RunReport, section: BudgetSection, usability: Usability) -> Document:
    """Document from the search's ``report`` and the candidate that ``section`` has chosen."""
    chosen = next(c for c in section.candidates if c.name == section.chosen)
    latency = format_ms(chosen.latency_ms, chosen.latency_provenance)
    verdict = [
        ("asked for", limits_in_words(section.budget)),
        ("picked", f"{chosen.name} of {len(section.candidates)}"),
        ("MACs", f"{format_share(chosen.macs_share)} of the original's"),
        ("latency", f"{latency}, {format_share(chosen.latency_share)} of the original's"),
        ("ONNX file", format_bytes(chosen.size_bytes)),
    ]
    if stored := bits_of_candidate(chosen):
        verdict.append(("stored as", stored))
    if chosen.dropped:
        verdict.append(("residual blocks", f"{', '.join(chosen.dropped)} dropped as a whole"))
    verdict.append(("searched by", report.environment.command))
    return Document(
        headline=headline_of(usability),
        title=f"edgeprune: {chosen.name} of {report.model.source} for {report.deployment.target}",
        verdict=tuple(verdict),
        passed=True,
        alerts=(),
        tables=(candidates_table(replace(section, by_default=False)),),
    )
