"""The gate: every limit against what is known or measured now, and a decision for each."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.commands.check.questions import QUESTIONS, Situation, UndecidableError
from edgeprune.commands.check.subjects import Subject, facts_of, figures_here, read_subjects
from edgeprune.errors import UsageError
from edgeprune.gate.outcomes import BASELINE_LIMITS, Check, GateLimits, GateResult, ModelFacts
from edgeprune.options.gate import CheckOptions


def check_model(options: CheckOptions, threads: int) -> GateResult:
    """Hold a model against limits, absolute or relative to a baseline.

    Raises:
        UsageError: neither a baseline nor limits, something that cannot be read, or a limit of the budget for
            which there is no figure.
        ProfileError: an ONNX file cannot be run.
    """
    check_asked(options)
    asked = options.limits() or BASELINE_LIMITS
    models = (options.model, *(() if options.baseline is None else (options.baseline,)))
    with read_subjects(models, options.input_shape) as (subjects, of_sizes):
        result = _answered(_situation(options, threads, asked, *subjects), options)
    return replace(result, notes=(*of_sizes, *result.notes))


def check_asked(options: CheckOptions) -> None:
    """Check that there is something to check against.

    Raises:
        UsageError: there is not.
    """
    if options.budget is None and options.baseline is None:
        raise UsageError(
            "nothing was given to check against; accepted are --baseline, --budget or both "
            "(edgeprune check --init shows a budget)"
        )


def _answered(situation: Situation, options: CheckOptions) -> GateResult:
    """Every limit that is asked for, held against what is known or measured."""
    checks: list[Check] = []
    notes: list[str] = []
    if situation.same:
        notes.append("Model and baseline are the same file byte for byte: nothing was measured.")
    for key, ask in QUESTIONS.items():
        limit = getattr(situation.limits, key)
        if limit is None:
            continue
        try:
            checks.append(ask(situation, float(limit)))
        except UndecidableError as reason:
            if options.budget is not None:
                raise UsageError(f"{key} cannot be checked: {reason}") from reason
            notes.append(f"{key} was not checked: {reason}")
    if not checks:
        raise UsageError(
            f"{situation.subject.name!r} and the baseline have no figure in common: {'; '.join(notes)}"
        )
    return GateResult(
        subject=situation.subject.name,
        baseline=None if situation.baseline is None else situation.baseline.name,
        checks=tuple(checks),
        on_inconclusive=options.inconclusive,
        notes=tuple(notes),
    )


def _situation(
    options: CheckOptions, threads: int, asked: GateLimits, model: Subject, other: Subject | None = None
) -> Situation:
    is_same = other is not None and model.sha256 is not None and model.sha256 == other.sha256
    of_both = asked.max_memory_ratio is not None and not is_same
    of_model = of_both or asked.max_memory_bytes is not None
    return Situation(
        limits=asked,
        options=options,
        threads=threads,
        subject=model,
        facts=_facts(model, options, threads, memory=of_model),
        baseline=other,
        base=None if other is None else _facts(other, options, threads, memory=of_both),
        same=is_same,
    )


def _facts(subject: Subject, options: CheckOptions, threads: int, *, memory: bool) -> ModelFacts:
    if subject.report is not None or subject.onnx is None:
        return facts_of(subject)
    return facts_of(subject, figures_here(subject, options, threads, latency=False, memory=memory))
