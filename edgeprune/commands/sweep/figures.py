"""Figures of a cell from its report, and what follows from those of all cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeprune.artifacts.latency import Provenance
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.report import DeploymentSection, Grade, RunReport
from edgeprune.options.sweep.sweep_file import SweepBudget
from edgeprune.reporting.budget_words import limits_in_words
from edgeprune.reporting.sweep.facts import (
    BestCell,
    CellFigures,
    CellReport,
    SharedStage,
    StageUse,
)


def figures_of(report: RunReport) -> CellFigures:
    """The figures of a finished compression."""
    usability, deployment = report.usability, report.deployment
    first = report.accuracy[0] if report.accuracy else None
    last = report.accuracy[-1] if report.accuracy else None
    before_ms, after_ms, origin = _latencies(deployment)
    return CellFigures(
        grade=Grade.INCONCLUSIVE if usability is None else usability.grade,
        headline="" if usability is None else usability.headline,
        quality_kind=report.accuracy_kind,
        quality_before=None if first is None else first.value,
        quality=None if last is None else last.value,
        quality_low=None if last is None else last.low,
        quality_high=None if last is None else last.high,
        images=0 if last is None else last.images,
        loss=None if usability is None else usability.loss,
        macs_before=deployment.original.macs,
        macs=deployment.compressed.macs,
        size_bytes_before=deployment.original.size_bytes,
        size_bytes=deployment.compressed.size_bytes,
        latency_ms_before=before_ms,
        latency_ms=after_ms,
        provenance=origin,
    )


def _latencies(deployment: DeploymentSection) -> tuple[float | None, float | None, Provenance | None]:
    """Latency on the target before and after: predicted for another device, measured on this one."""
    predicted = deployment.compressed_prediction
    if predicted is not None:
        original = deployment.original_prediction
        return None if original is None else original.latency_ms, predicted.latency_ms, predicted.provenance
    before, after = deployment.original.latency, deployment.compressed.latency
    if after is None:
        return None, None, None
    return None if before is None else before.latency_p50_ms, after.latency_p50_ms, after.provenance


def with_fronts(cells: Sequence[CellReport]) -> tuple[CellReport, ...]:
    """The cells, marked where they are on the front of their target and kind of quality."""
    return tuple(replace(cell, on_front=_is_on_front(cell, cells)) for cell in cells)


def _is_on_front(cell: CellReport, cells: Sequence[CellReport]) -> bool:
    own = _costs(cell)
    if own is None:
        return False
    rivals = (_costs(other) for other in cells if _comparable(cell, other))
    return not any(
        all(a <= b for a, b in zip(other, own, strict=True)) and other != own
        for other in rivals
        if other is not None
    )


def _comparable(cell: CellReport, other: CellReport) -> bool:
    a, b = cell.figures, other.figures
    return a is not None and b is not None and (cell.target, a.quality_kind) == (other.target, b.quality_kind)


def _costs(cell: CellReport) -> tuple[float, float, float] | None:
    """Quality turned so that less is better, latency and size; ``None`` where any is unknown."""
    figures = cell.figures
    if figures is None or figures.quality is None or figures.latency_ms is None:
        return None
    turned = figures.quality if figures.quality_kind.is_error else -figures.quality
    return turned, figures.latency_ms, float(figures.size_bytes)


def best_cells(cells: Sequence[CellReport]) -> tuple[BestCell, ...]:
    """For every target, budget and kind of quality the cell that keeps most."""
    best: dict[tuple[str, str, AccuracyKind], tuple[tuple[float, ...], str]] = {}
    for cell in cells:
        costs = _costs(cell)
        if costs is None or cell.figures is None:
            continue
        place = (cell.target, cell.budget, cell.figures.quality_kind)
        if place not in best or costs < best[place][0]:
            best[place] = (costs, cell.name)
    return tuple(
        BestCell(target=on, budget=within, quality_kind=kind, cell=name)
        for (on, within, kind), (_, name) in best.items()
    )  # fmt: skip


def budget_words(asked: SweepBudget) -> str:
    """A budget's name and what it asks for."""
    cut = "" if asked.ratio is None else f"a cut of {asked.ratio:.3g} of the MACs"
    parts = [part for part in (cut, limits_in_words(asked.budget)) if part]
    return f"{asked.name} ({', '.join(parts) or 'the default search'})"


def shared_stages(uses: Sequence[StageUse]) -> tuple[SharedStage, ...]:
    """Per stage, how often it was computed and how often taken."""
    found = []
    for stage in sorted({use.stage for use in uses}):
        own = [use for use in uses if use.stage == stage]
        computed = [use for use in own if use.computed]
        found.append(
            SharedStage(
                stage=own[0].stage,
                computed=len(computed),
                taken=len(own) - len(computed),
                damaged=sum(use.damaged for use in own),
                computed_s=sum(use.duration_s for use in computed),
                saved_s=sum(use.duration_s for use in own if not use.computed),
            )
        )
    return tuple(found)
