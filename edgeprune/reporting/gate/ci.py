"""The gate for pipelines: JUnit XML and annotations of GitHub."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edgeprune.gate.outcomes import Check, Decision, GateResult, OnInconclusive
from edgeprune.reporting.gate.words import advice, check_name, check_sentence
from edgeprune.showing import plain, shown

if TYPE_CHECKING:
    from junitparser import TestCase
    from junitparser.junitparser import FinalResult


def gate_junit(result: GateResult) -> str:
    """One test case for every check; an open one is skipped, a failure or an error, as asked."""
    from junitparser import Failure, JUnitXml, TestCase, TestSuite  # few commands need it

    suite = TestSuite("edgeprune check")
    for check in result.checks:
        suite.add_testcase(_case(check, result, result.subject))
    for cell in result.cells:
        for check in cell.checks:
            suite.add_testcase(_case(check, result, cell.name))
        if cell.result is None:
            case = TestCase("cell", _xml(f"edgeprune.{cell.name}"), 0.0)
            case.result = [Failure(_xml(cell.missing), "missing")]
            suite.add_testcase(case)
    document = JUnitXml("edgeprune")
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    stream = io.BytesIO()
    document.write(stream, pretty=True)
    return stream.getvalue().decode()


def _case(check: Check, result: GateResult, of: str) -> TestCase:
    from junitparser import Error, Failure, Skipped, TestCase

    seconds = check.rounds.duration_s if check.rounds is not None else 0.0
    case = TestCase(_xml(check_name(check)), _xml(f"edgeprune.{of}"), seconds)
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
    return case


def gate_annotations(result: GateResult) -> tuple[str, ...]:
    """Workflow commands of GitHub, one a line: an error for what failed, a warning for what is open."""
    kind = {OnInconclusive.PASS: "notice", OnInconclusive.FAIL: "error", OnInconclusive.REPORT: "warning"}
    every = [("", check) for check in result.checks]
    every += [(f"{cell.name}: ", check) for cell in result.cells for check in cell.checks]
    gone = [cell for cell in result.cells if cell.result is None]
    return (
        *(_annotation("error", f"{of}{check_name(check)}", check_sentence(check))
          for of, check in every if check.decision is Decision.FAILED),
        *(_annotation("error", cell.name, cell.missing) for cell in gone),
        *(_annotation(kind[result.on_inconclusive], f"{of}{check_name(check)}", check_sentence(check))
          for of, check in every if check.decision is Decision.INCONCLUSIVE),
    )  # fmt: skip


def _annotation(kind: str, what: str, sentence: str) -> str:
    return f"::{kind} title={_property(f'edgeprune check: {what}')}::{_data(sentence)}"


def _data(text: str) -> str:
    """Text of a workflow command, which ends at a line end and reads percent signs as escapes."""
    return shown(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Value of a property of a workflow command, which also ends at a comma or colon."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _xml(text: str) -> str:
    """Text on one line without what XML 1.0 has no place for; the writer escapes the rest."""
    return " ".join(plain(text).replace("\ufffe", "?").replace("\uffff", "?").split())
