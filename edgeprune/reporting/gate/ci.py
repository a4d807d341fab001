"""The gate for pipelines: JUnit XML and annotations of GitHub."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edgeprune.gate.outcomes import Check, Decision, GateResult, OnInconclusive
from edgeprune.reporting.gate.words import advice, check_name, check_sentence
from edgeprune.showing import plain, shown

if TYPE_CHECKING:
    from junitparser.junitparser import FinalResult


def gate_junit(result: GateResult) -> str:
    """One test case for every check; an open one is skipped, a failure or an error, as asked."""
    from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite  # few commands need it

    suite = TestSuite("edgeprune check")
    for check in result.checks:
        seconds = check.rounds.duration_s if check.rounds is not None else 0.0
        case = TestCase(_xml(check_name(check)), _xml(f"edgeprune.{result.subject}"), seconds)
        sentence = _xml(check_sentence(check))
        outcome: FinalResult | None = None
        if check.decision is Decision.FAILED:
            outcome = Failure(sentence, "failed")
        elif check.decision is Decision.INCONCLUSIVE:
            kind = {OnInconclusive.PASS: Skipped, OnInconclusive.FAIL: Failure, OnInconclusive.REPORT: Error}
            outcome = kind[result.on_inconclusive](sentence, "inconclusive")
        if outcome is not None:
            outcome.text = _xml(advice(result) if check.decision is Decision.INCONCLUSIVE else check.basis)
            case.result = [outcome]
        else:
            case.system_out = sentence
        suite.add_testcase(case)
    document = JUnitXml("edgeprune")
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    stream = io.BytesIO()
    document.write(stream, pretty=True)
    return stream.getvalue().decode()


def gate_annotations(result: GateResult) -> tuple[str, ...]:
    """Workflow commands of GitHub, one a line: an error for what failed, a warning for what is open."""
    lines = [_annotation("error", check) for check in result.of(Decision.FAILED)]
    kind = {OnInconclusive.PASS: "notice", OnInconclusive.FAIL: "error", OnInconclusive.REPORT: "warning"}
    return (
        *lines,
        *(_annotation(kind[result.on_inconclusive], check) for check in result.of(Decision.INCONCLUSIVE)),
    )


def _annotation(kind: str, check: Check) -> str:
    title = _property(f"edgeprune check: {check_name(check)}")
    return f"::{kind} title={title}::{_data(check_sentence(check))}"


def _data(text: str) -> str:
    """Text of a workflow command, which ends at a line end and reads percent signs as escapes."""
    return shown(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Value of a property of a workflow command, which also ends at a comma or colon."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _xml(text: str) -> str:
    """Text on one line without what XML 1.0 has no place for; the writer escapes the rest."""
    return " ".join(plain(text).replace("\ufffe", "?").replace("\uffff", "?").split())
