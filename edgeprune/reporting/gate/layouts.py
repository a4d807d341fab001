"""The gate and the comparison on a terminal, as Markdown and as a page."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from edgeprune.gate.outcomes import Comparison, Decision, GateResult
from edgeprune.reporting.gate.cells import (
    cell_sentences,
    cells_comparison_table,
    cells_gate_table,
    cells_verdict,
)
from edgeprune.reporting.gate.words import (
    advice,
    check_sentence,
    differences_table,
    gate_table,
    models_table,
    verdict_sentence,
)
from edgeprune.reporting.markdown import escape, render_table
from edgeprune.reporting.pages import render
from edgeprune.reporting.table import Table
from edgeprune.reporting.terminal import terminal_table

SUMMARY_BYTES = 1_000_000
"""A job summary of GitHub takes 1 MiB a step."""
COMMENT_BYTES = 64_000
"""A comment of GitHub takes 65,536 characters."""
COMMENT_MARK = "<!-- edgeprune-check -->"
"""First line of a comment, by which the next run finds it; invisible where Markdown is shown."""
_CUT = "\n\n_The rest was left out: it would be too long here. The whole result is in the JSON._\n"
_STYLES = {Decision.PASSED: "bold green", Decision.FAILED: "bold red", Decision.INCONCLUSIVE: "bold yellow"}
_ICONS = {Decision.PASSED: "✅", Decision.FAILED: "❌", Decision.INCONCLUSIVE: "❔"}


def gate_terminal(result: GateResult) -> RenderableType:
    """Verdict and checks for a terminal."""
    parts: list[RenderableType] = [
        Text(f"{result.subject} {_against(result)}: {_verdict(result)}", style=_STYLES[result.decision])
    ]
    parts += [Text(text, style="dim") for text in (advice(result), *result.notes) if text]
    return Group(*parts, terminal_table(_gate_table(result)))


def gate_markdown(result: GateResult) -> str:
    """Verdict, failed checks and the table as GitHub-flavored Markdown."""
    blocks = [
        f"## {_ICONS[result.decision]} edgeprune check: {escape(_verdict(result))}",
        f"{escape(result.subject)} {escape(_against(result))}",
    ]
    if worst := _worst(result):
        blocks.append("\n".join(f"- {escape(sentence)}" for sentence in worst))
    blocks += [escape(text) for text in (advice(result), *result.notes) if text]
    return "\n\n".join([*blocks, render_table(_gate_table(result))]) + "\n"


def gate_comment(result: GateResult) -> str:
    """:func:`gate_markdown` behind the hidden mark, short enough for a comment."""
    return within(f"{COMMENT_MARK}\n{gate_markdown(result)}", COMMENT_BYTES)


def comparison_terminal(comparison: Comparison) -> RenderableType:
    """Models and differences for a terminal."""
    notes = [Text(note, style="dim") for note in comparison.notes]
    return Group(*(terminal_table(table) for table in _comparison_tables(comparison)), *notes)


def comparison_markdown(comparison: Comparison) -> str:
    """Models and differences as GitHub-flavored Markdown."""
    tables = _comparison_tables(comparison)
    notes = [escape(note) for note in comparison.notes]
    return "\n\n".join(["# Models compared", *map(render_table, tables), *notes]) + "\n"


def comparison_page(comparison: Comparison) -> str:
    """Models and differences on a page that loads nothing."""
    return render(
        "compare.html.j2",
        title="Models compared",
        tables=_comparison_tables(comparison),
        remarks=comparison.notes,
    )


def within(text: str, most_bytes: int) -> str:
    """The text, cut at a line end with a remark if it has more bytes in UTF-8."""
    if len(text.encode()) <= most_bytes:
        return text
    kept = text.encode()[: most_bytes - len(_CUT.encode())].decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1 or None].rstrip() + _CUT


def _against(result: GateResult) -> str:
    return "against its limits" if result.baseline is None else f"against {result.baseline}"


def _verdict(result: GateResult) -> str:
    return cells_verdict(result) if result.cells else verdict_sentence(result)


def _gate_table(result: GateResult) -> Table:
    return cells_gate_table(result) if result.cells else gate_table(result)


def _comparison_tables(comparison: Comparison) -> tuple[Table, ...]:
    if comparison.cells:
        return (cells_comparison_table(comparison),)
    return models_table(comparison), differences_table(comparison)


def _worst(result: GateResult) -> tuple[str, ...]:
    """What failed, and what is open, in sentences."""
    found: list[str] = []
    for decision in (Decision.FAILED, Decision.INCONCLUSIVE):
        found += [sentence for cell in result.cells for sentence in cell_sentences(cell, decision)]
        found += [check_sentence(check) for check in result.checks if check.decision is decision]
    return tuple(found)
