"""A sweep in sentences and tables."""

from __future__ import annotations

from urllib.parse import quote

from rich.console import Group, RenderableType
from rich.text import Text

from edgeprune.artifacts.latency import Provenance
from edgeprune.reporting.formatting import (
    MISSING,
    count_words,
    format_bytes,
    format_change,
    format_ms,
    format_share,
    significant,
)
from edgeprune.reporting.markdown import escape, render_table
from edgeprune.reporting.sweep.facts import (
    CellFigures,
    CellOnDevice,
    CellReport,
    SharedStage,
    SweepReport,
)
from edgeprune.reporting.table import Table
from edgeprune.reporting.terminal import terminal_table


def verdict(report: SweepReport) -> str:
    """How many cells are done, how many failed, and how long it took."""
    done = len(report.cells) - len(report.failed)
    failed = f", {len(report.failed)} FAILED" if report.failed else ""
    cells = count_words(len(report.cells), "cell")
    lacking = f", {count_words(len(report.unmeasured), 'measurement')} FAILED" if report.unmeasured else ""
    return f"{done} of {cells} done{failed}{lacking}, in {duration_words(report.duration_s)}"


def duration_words(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def best_table(report: SweepReport) -> Table:
    """The best cell of every target and budget."""
    cells = {cell.name: cell for cell in report.cells}
    rows, links = [], [_report_of(cells[best.cell]) for best in report.best]
    for best in report.best:
        cell = cells[best.cell]
        assert cell.figures is not None
        rows.append((best.target, best.budget, cell.model, cell.precision.value, *_figures(cell.figures)))
    found = {(best.target, best.budget) for best in report.best}
    asked = dict.fromkeys((cell.target, cell.budget) for cell in report.cells)
    rows += [(*place, "none", "", *_NO_FIGURES) for place in asked if rows and place not in found]
    links += [""] * (len(rows) - len(links))
    return Table(
        title="Best of each target and budget",
        columns=("target", "budget", "model", "precision", *_FIGURES),
        rows=tuple(rows),
        remark="The cell of any model that keeps most of the measure; of equals the fastest, then the "
        "smallest.",
        numeric_columns=frozenset({6, 8}),
        narrow_columns=(0, 1, 2, 3, 5),
        links=tuple(links),
        link_column=2,
    )


def cells_table(report: SweepReport) -> Table:
    """Every cell with its figures; one that failed has its reason in :func:`failures_table`."""
    return Table(
        title="Cells",
        columns=("cell", "state", *_FIGURES, "front"),
        rows=tuple(map(_cell_row, report.cells)),
        remark="front: no other cell of the target is better in the measure, in latency or in size without "
        "being worse in another of them.",
        code_columns=frozenset({0}),
        numeric_columns=frozenset({4, 6}),
        narrow_columns=(0, 1, 3, 4),
        links=tuple(map(_report_of, report.cells)),
    )


def _report_of(cell: CellReport) -> str:
    """The address of the page of a cell, from that of the sweep."""
    return "" if cell.figures is None or cell.folder is None else quote(f"{cell.folder}/report.html")


def failures_table(report: SweepReport) -> Table:
    """Cells without a result, and why."""
    return Table(
        title="Cells that failed",
        columns=("cell", "status", "attempts", "reason"),
        rows=tuple((c.name, str(c.exit_status), str(c.attempts), c.failure or "") for c in report.failed),
        code_columns=frozenset({0}),
        numeric_columns=frozenset({1, 2}),
    )


def devices_table(report: SweepReport) -> Table:
    """Every cell on every device that measured it."""
    cells = {cell.name: cell for cell in report.cells}
    return Table(
        title="Measured on devices",
        columns=("cell", "device", "median", "slowest tenth", "peak memory", "of the prediction", "trusted"),
        rows=tuple(_device_row(found, cells[found.cell]) for found in report.on_devices),
        remark="Wall-clock times of one image, measured there; slowest tenth: a tenth of the runs takes "
        "longer. Of the prediction: the median over what was predicted for the target.",
        code_columns=frozenset({0}),
        numeric_columns=frozenset({2, 3, 4, 5}),
        narrow_columns=(0, 1, 2),
        links=tuple(_report_of(cells[found.cell]) for found in report.on_devices),
    )


def _device_row(found: CellOnDevice, cell: CellReport) -> tuple[str, ...]:
    latency, memory, figures = found.latency, found.peak_memory_bytes, cell.figures
    if latency is None:
        return (cell.name, found.device, f"FAILED: {found.failure}", *[""] * 4)
    share = ""
    if figures is not None and figures.latency_ms and figures.provenance is Provenance.PREDICTED:
        share = format_share(latency.latency_p50_ms / figures.latency_ms)
    return (
        cell.name,
        found.device,
        f"{significant(latency.latency_p50_ms)} ms",
        f"{significant(latency.latency_p90_ms)} ms",
        MISSING if memory is None else format_bytes(memory),
        share,
        "yes" if latency.trusted else "no",
    )


def remarks(report: SweepReport) -> tuple[str, ...]:
    """What stands below all tables: notes, and why measurements are not to be trusted."""
    cautions = (
        f"{found.cell} on {found.device}: {found.latency.caution}."
        for found in report.on_devices
        if found.latency is not None and not found.latency.trusted
    )
    return (*report.notes, *cautions)


def shared_table(report: SweepReport) -> Table:
    """What cells had in common."""
    return Table(
        title="Shared stages",
        columns=("stage", "computed", "taken from the cache", "time computing", "time saved"),
        rows=tuple(map(_shared_row, report.shared)),
        remark="As cells with a result needed them.",
        numeric_columns=frozenset({1, 2, 3, 4}),
    )


def tables(report: SweepReport) -> tuple[Table, ...]:
    """All tables that have rows."""
    found = (
        best_table(report),
        failures_table(report),
        cells_table(report),
        devices_table(report),
        shared_table(report),
    )
    return tuple(table for table in found if table.rows)


def render_sweep(report: SweepReport) -> RenderableType:
    """The sweep for a terminal."""
    colour = "bold yellow" if report.failed or report.unmeasured else "bold green"
    notes = [Text(note, style="dim") for note in remarks(report)]
    return Group(Text(verdict(report), style=colour), *map(terminal_table, tables(report)), *notes)


def render_markdown(report: SweepReport) -> str:
    """The text of ``sweep.md``."""
    notes = [f"> {escape(note)}" for note in remarks(report)]
    blocks = [f"# Sweep of {escape(report.source)}: {escape(verdict(report))}", *notes]
    return "\n\n".join([*blocks, *map(render_table, tables(report))]) + "\n"


def cell_words(figures: CellFigures) -> str:
    """Figures of a cell in one line."""
    parts = [figures.grade.value, format_bytes(figures.size_bytes)]
    if figures.latency_ms is not None and figures.provenance is not None:
        parts.append(format_ms(figures.latency_ms, figures.provenance))
    return ", ".join(parts)


_FIGURES = ("grade", "measure", "ONNX file", "latency", "change")
_NO_FIGURES = ("",) * len(_FIGURES)


def _figures(figures: CellFigures) -> tuple[str, ...]:
    latency, change = MISSING, ""
    if figures.latency_ms is not None and figures.provenance is not None:
        latency = format_ms(figures.latency_ms, figures.provenance)
        change = format_change(figures.latency_ms_before or 0.0, figures.latency_ms)
    return (
        figures.grade.value,
        quality_words(figures),
        format_bytes(figures.size_bytes),
        latency,
        change,
    )


def quality_words(figures: CellFigures) -> str:
    """The measure before and after."""
    show = format_share if figures.quality_kind.is_share else significant
    if figures.quality is None:
        return MISSING
    before = "" if figures.quality_before is None else f"{show(figures.quality_before)} -> "
    return f"{before}{show(figures.quality)}"


def _cell_row(cell: CellReport) -> tuple[str, ...]:
    if cell.figures is None:
        return (cell.name, cell.state.value.upper(), *[""] * len(_FIGURES), "")
    return (cell.name, cell.state.value, *_figures(cell.figures), "yes" if cell.on_front else "")


def _shared_row(shared: SharedStage) -> tuple[str, ...]:
    damaged = f" ({shared.damaged} damaged before)" if shared.damaged else ""
    times = (duration_words(shared.computed_s), duration_words(shared.saved_s))
    return (shared.stage, f"{shared.computed}{damaged}", str(shared.taken), *times)
