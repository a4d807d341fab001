"""Pick another model from the candidates of a search, without searching again."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

from edgeprune.artifacts.budget import Budget, BudgetSection, Candidate
from edgeprune.commands.search.budget_aims import binding_limit, budget_used, exceeded_limits, in_words
from edgeprune.commands.search.candidate_records import CANDIDATES_FOLDER, RECORD_NAME, read_record
from edgeprune.errors import BudgetError, UsageError
from edgeprune.reporting.json_report import read_json
from edgeprune.storage import outputs
from edgeprune.storage.files import sha256_file


def pick_candidate(
    folder: Path, budget: Budget, *, output: Path | None, overwrite: bool, command: str
) -> BudgetSection:
    """The candidate of a finished search that holds ``budget`` and loses least; copied to ``output``.

    Raises:
        UsageError: ``folder`` is no output of a search, or is damaged.
        BudgetError: no candidate holds the budget; names the nearest.
        OutputError: ``output`` cannot be written.
    """
    report = folder / "report.json"
    if not report.is_file():
        raise UsageError(
            f"{str(folder)!r} holds no report.json; give the folder that compress wrote with --max-latency, "
            "--max-size, --max-memory or --max-drop"
        )
    section = read_json(report).budget
    if section is None:
        raise UsageError(
            f"{str(folder)!r} was compressed without a budget, so there is nothing to pick from: run "
            "compress with --max-latency, --max-size, --max-memory or --max-drop"
        )
    _check_figures(section, report)
    if output is not None:
        outputs.check_destination(output, overwrite=overwrite, reads={"searched folder": folder})
    original = section.original
    judged = tuple(replace(c, exceeded=exceeded_limits(c, budget)) for c in section.candidates)
    holding = [c for c in judged if not c.exceeded]
    if not holding:
        raise BudgetError(_nearest(judged, original, budget))
    chosen = max(holding, key=lambda c: (-(c.drop_points or 0.0), -c.latency_share))
    if output is not None:
        _copy(folder, _place(folder, chosen), output, overwrite=overwrite, command=command)
    return replace(
        section,
        budget=budget,
        candidates=judged,
        chosen=chosen.name,
        binding=binding_limit(chosen, original, budget),
    )


def _check_figures(section: BudgetSection, report: Path) -> None:
    """Refuse candidates that nobody can have measured."""
    figures = [
        value
        for c in (section.original, *section.candidates)
        for value in (c.latency_ms, c.latency_share, c.size_bytes, c.macs_share)
    ]
    drops = [c.drop_points for c in section.candidates if c.drop_points is not None]
    names = {c.name for c in section.candidates}
    possible = all(math.isfinite(x) and x > 0 for x in figures) and all(map(math.isfinite, drops))
    if not possible or len(names) < max(1, len(section.candidates)):
        raise UsageError(
            f"{str(report)!r} is damaged: it has no candidates, or figures of them that cannot be measured; "
            "run compress again"
        )


def _nearest(judged: tuple[Candidate, ...], original: Candidate, budget: Budget) -> str:
    def short(found: Candidate) -> float:
        drop = found.drop_points or 0.0
        by_drop = 0.0 if budget.max_drop_points is None else drop / max(budget.max_drop_points, 1e-9)
        return max(budget_used(found, original, budget), by_drop)

    found = min(judged, key=short)
    loses = "" if found.drop_points is None else f" and loses {found.drop_points:.2f} points"
    return (
        f"none of the {len(judged)} candidates holds the budget: the nearest, {found.name}, has "
        f"{in_words(found)}{loses}, which exceeds {' and '.join(found.exceeded)}; ask for less, or search "
        "again with compress"
    )


def _place(folder: Path, chosen: Candidate) -> Path:
    for record in sorted((folder / CANDIDATES_FOLDER).glob(f"*/{RECORD_NAME}")):
        if read_record(record).figures.name == chosen.name:
            return record.parent
    raise UsageError(
        f"the files of {chosen.name} are not below {str(folder / CANDIDATES_FOLDER)!r}: the output folder is "
        "not whole; run compress again"
    )


def _copy(folder: Path, place: Path, output: Path, *, overwrite: bool, command: str) -> None:
    manifest = outputs.read_manifest(folder)
    for path in place.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UsageError(
                f"{str(path)!r} is no regular file, so edgeprune did not write it: the output folder is not "
                "whole; run compress again"
            )
    with outputs.staged_output(output, overwrite=overwrite) as staging:
        shutil.copytree(place, staging, dirs_exist_ok=True)
        outputs.write_manifest(
            staging,
            inputs={str(folder / "report.json"): sha256_file(folder / "report.json")},
            seed=manifest.seed if manifest is not None else 0,
            command=command,
            versions=manifest.versions if manifest is not None else {},
        )
