"""Pick another model from the candidates of a search, without searching again."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

from edgeprune.artifacts.budget import Budget, BudgetSection, Candidate
from edgeprune.artifacts.report import Grade, RunReport, Usability
from edgeprune.commands.run.usability import Circumstances, judge_answers, judge_points
from edgeprune.commands.search.budget_aims import binding_limit, budget_used, exceeded_limits, in_words
from edgeprune.commands.search.candidate_records import (
    CANDIDATES_FOLDER,
    ONLY_TO_RESUME,
    RECORD_NAME,
    damaged,
    read_record,
)
from edgeprune.errors import BudgetError, UsageError
from edgeprune.reporting.json_report import read_json
from edgeprune.reporting.markdown import render_document as render_markdown
from edgeprune.reporting.picked import build_picked_document
from edgeprune.results import PickedCandidate
from edgeprune.sharing.companions import write_companions
from edgeprune.sharing.facts import ModelFacts, facts_of_candidate
from edgeprune.storage import outputs
from edgeprune.storage.documents import UnreadableError
from edgeprune.storage.files import atomic_write_text, sha256_file
from edgeprune.storage.records import check_files


def pick_candidate(
    folder: Path, budget: Budget, *, output: Path | None, overwrite: bool, command: str
) -> PickedCandidate:
    """The candidate of a finished search within ``budget`` that loses least, with its usability.

    Its files are copied to ``output``, with a ``report.md``.

    Raises:
        UsageError: ``folder`` is no output of a search, or is damaged.
        BudgetError: no candidate is within the budget; names the nearest.
        OutputError: ``output`` cannot be written.
    """
    report_path = folder / "report.json"
    if not report_path.is_file():
        raise UsageError(
            f"{str(folder)!r} holds no report.json; give the folder that compress wrote with --max-latency, "
            "--max-size, --max-memory or --max-drop"
        )
    report = read_json(report_path)
    section = report.budget
    if section is None:
        raise UsageError(
            f"{str(folder)!r} was compressed without a budget, so there is nothing to pick from: run "
            "compress with --max-latency, --max-size, --max-memory or --max-drop"
        )
    _check_figures(section, report_path)
    if output is not None:
        outputs.check_destination(output, overwrite=overwrite, reads={"searched folder": folder})
    original = section.original
    judged = tuple(replace(c, exceeded=exceeded_limits(c, budget)) for c in section.candidates)
    holding = [c for c in judged if not c.exceeded]
    if not holding:
        raise BudgetError(_nearest(judged, original, budget))
    chosen = max(holding, key=lambda c: (-(c.drop_points or 0.0), -c.latency_share))
    section = replace(
        section,
        budget=budget,
        candidates=judged,
        chosen=chosen.name,
        binding=binding_limit(chosen, original, budget),
        by_default=False,
    )
    picked = _picked(report, section, chosen)
    if output is not None:
        words = render_markdown(picked.document)
        facts = facts_of_candidate(report, chosen, picked.usability.headline, command)
        _copy(folder, _place(folder, chosen), output, words, facts, overwrite=overwrite)
    return picked


def _picked(report: RunReport, section: BudgetSection, chosen: Candidate) -> PickedCandidate:
    """Grade the candidate by its answers on the same held-out images as the delivered network's."""
    delivered, paired = report.usability, chosen.paired
    answers = None if delivered is None else delivered.answers
    circumstances = Circumstances(
        macs_removed_share=1.0 - chosen.macs_share,
        in_budget=True,
        finetuned=report.recovery.distillation is not None,
        recipe=report.recovery.recipe,
        fitting_images=report.calibration.fitting_images,
        precision=chosen.precision,
    )
    before = report.accuracy[0].value
    if paired is not None and paired.lost is None and chosen.drop_points is not None and before > 0:
        usability = judge_points(report.accuracy_kind, before, chosen.drop_points, paired, circumstances)
    elif (
        paired is None or paired.lost is None or paired.gained is None
        or answers is None or answers.images != paired.images
    ):  # fmt: skip
        why = "cannot be judged: the answers that it loses were not counted"
        if delivered is not None and answers is None and chosen.drop_points is not None:
            why = (
                f"cannot be judged: loses {chosen.drop_points:.1f} points of {section.drop_of}, whose "
                "interval was not kept"
            )
        usability = Usability(
            grade=Grade.INCONCLUSIVE,
            headline=why,
            what_to_do=("compare it with the original on images of your own (edgeprune verify)",),
            loss=None, low=None, high=None, images=0, answers=None,
        )  # fmt: skip
    else:
        counts = replace(answers, lost=paired.lost, gained=paired.gained)
        usability = judge_answers(report.accuracy_kind, counts, circumstances)
    return PickedCandidate(
        usability=usability,
        budget=section,
        document=build_picked_document(report, section, usability),
    )


def _check_figures(section: BudgetSection, report: Path) -> None:
    """Check that the candidates' figures are possible measurements."""
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
    def short(candidate: Candidate) -> float:
        drop = candidate.drop_points or 0.0
        by_drop = 0.0 if budget.max_drop_points is None else drop / max(budget.max_drop_points, 1e-9)
        return max(budget_used(candidate, original, budget), by_drop)

    nearest = min(judged, key=short)
    loses = "" if nearest.drop_points is None else f" and loses {nearest.drop_points:.2f} points"
    return (
        f"none of the {len(judged)} candidates holds the budget: the nearest, {nearest.name}, has "
        f"{in_words(nearest)}{loses}, which exceeds {' and '.join(nearest.exceeded)}; ask for less, or "
        "search again with compress"
    )


def _place(folder: Path, chosen: Candidate) -> Path:
    for record in sorted((folder / CANDIDATES_FOLDER).glob(f"*/{RECORD_NAME}")):
        if read_record(record).figures.name == chosen.name:
            try:
                check_files(record, left_out=ONLY_TO_RESUME)
            except UnreadableError as error:
                raise damaged(record, error) from error
            return record.parent
    raise UsageError(
        f"the files of {chosen.name} are not below {str(folder / CANDIDATES_FOLDER)!r}: the output folder is "
        "not whole; run compress again"
    )


def _copy(folder: Path, place: Path, output: Path, words: str, facts: ModelFacts, *, overwrite: bool) -> None:
    manifest = outputs.read_manifest(folder)
    for path in place.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UsageError(
                f"{str(path)!r} is no regular file, so edgeprune did not write it: the output folder is not "
                "whole; run compress again"
            )
    with outputs.staged_output(output, overwrite=overwrite) as staging:
        shutil.copytree(place, staging, dirs_exist_ok=True)
        atomic_write_text(staging / "report.md", words)
        write_companions(staging, facts)
        outputs.write_manifest(
            staging,
            inputs={str(folder / "report.json"): sha256_file(folder / "report.json")},
            seed=manifest.seed if manifest is not None else 0,
            command=facts.command,
            versions=manifest.versions if manifest is not None else {},
        )
