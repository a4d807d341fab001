"""The gate and the comparison on a terminal, as Markdown and as a page."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from edgeprune.gate.outcomes import Comparison, Decision, GateResult
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
        Text(
            f"{result.subject} {_against(result)}: {verdict_sentence(result)}", style=_STYLES[result.decision]
        )
    ]
    parts += [Text(text, style="dim") for text in (advice(result), *result.notes) if text]
    return Group(*parts, terminal_table(gate_table(result)))


def gate_markdown(result: GateResult) -> str:
    """Verdict, failed checks and the table as GitHub-flavored Markdown."""
    blocks = [
        f"## {_ICONS[result.decision]} edgeprune check: {escape(verdict_sentence(result))}",
        f"{escape(result.subject)} {escape(_against(result))}",
    ]
    worst = (*result.of(Decision.FAILED), *result.of(Decision.INCONCLUSIVE))
    if worst:
        blocks.append("\n".join(f"- {escape(check_sentence(check))}" for check in worst))
    blocks += [escape(text) for text in (advice(result), *result.notes) if text]
    return "\n\n".join([*blocks, render_table(gate_table(result))]) + "\n"


def gate_comment(result: GateResult) -> str:
    """:func:`gate_markdown` behind the hidden mark, short enough for a comment."""
    return within(f"{COMMENT_MARK}\n{gate_markdown(result)}", COMMENT_BYTES)


def comparison_terminal(comparison: Comparison) -> RenderableType:
    """Models and differences for a terminal."""
    notes = [Text(note, style="dim") for note in comparison.notes]
    tables = (models_table(comparison), differences_table(comparison))
    return Group(*(terminal_table(table) for table in tables), *notes)


def comparison_markdown(comparison: Comparison) -> str:
    """Models and differences as GitHub-flavored Markdown."""
    tables = (models_table(comparison), differences_table(comparison))
    notes = [escape(note) for note in comparison.notes]
    return "\n\n".join(["# Models compared", *map(render_table, tables), *notes]) + "\n"


def comparison_page(comparison: Comparison) -> str:
    """Models and differences on a page that loads nothing."""
    return render(
        "compare.html.j2",
        title="Models compared",
        tables=(models_table(comparison), differences_table(comparison)),
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
