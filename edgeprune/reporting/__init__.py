"""The report for machines (JSON), for reviews (Markdown) and for the terminal."""

from edgeprune.reporting.json_report import read_json, report_to_json, write_json
from edgeprune.reporting.markdown import render_markdown, write_markdown
from edgeprune.reporting.terminal import render_brief, render_terminal

__all__ = [
    "read_json",
    "render_brief",
    "render_markdown",
    "render_terminal",
    "report_to_json",
    "write_json",
    "write_markdown",
]
