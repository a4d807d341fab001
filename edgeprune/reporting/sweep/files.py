"""The files of a sweep: exact figures as JSON, CSV and Parquet, a page and Markdown."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.artifacts.codec import to_jsonable
from edgeprune.reporting.json_report import read_document
from edgeprune.reporting.sweep.facts import READ_VERSIONS, CellOnDevice, CellReport, SweepReport
from edgeprune.reporting.sweep.page import render_page
from edgeprune.reporting.sweep.words import render_markdown
from edgeprune.showing import plain_values
from edgeprune.storage.files import atomic_write_bytes, atomic_write_text

SWEEP_NAME = "sweep.json"
COLUMNS = {
    "name": str, "model": str, "target": str, "budget": str, "precision": str, "state": str,
    "failure": str, "exit_status": int, "attempts": int, "duration_s": float, "on_front": bool,
    "folder": str, "grade": str, "quality_kind": str, "quality_before": float, "quality": float,
    "quality_low": float, "quality_high": float, "images": int, "loss": float, "macs_before": int,
    "macs": int, "size_bytes_before": int, "size_bytes": int, "latency_ms_before": float,
    "latency_ms": float, "provenance": str,
}  # fmt: skip
"""Columns of the CSV and the Parquet file with their types; what is not known is empty there, null here."""
_NO_PARQUET = (
    "sweep.parquet was not written, since pyarrow is not installed (pip install 'edgeprune[parquet]'); "
    "sweep.csv has the same rows"
)


def write_sweep(report: SweepReport, folder: Path) -> SweepReport:
    """Write all files into an existing folder; returns the report as written, with a note of what is missing.

    Raises:
        OutputError: a file cannot be written.
    """
    columns = columns_of(report)
    rows = rows_of(report)
    parquet = parquet_of(rows, columns)
    if parquet is None:
        report = replace(report, notes=(*report.notes, _NO_PARQUET))
    else:
        atomic_write_bytes(folder / "sweep.parquet", parquet)
    texts = {
        SWEEP_NAME: sweep_to_json(report),
        "sweep.csv": csv_of(rows, columns),
        "sweep.md": render_markdown(report),
        "sweep.html": render_page(report),
    }
    for name, text in texts.items():
        atomic_write_text(folder / name, text)
    return report


def sweep_to_json(report: SweepReport) -> str:
    """The text of ``sweep.json``."""
    return json.dumps(plain_values(to_jsonable(report)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_sweep_report(path: str | Path) -> SweepReport:
    """Read a ``sweep.json``.

    Raises:
        UsageError: no such file, no sweep, or one of a schema version that this edgeprune does not know.
    """
    return read_document(SweepReport, path, READ_VERSIONS, name="sweep", again="sweep")


def columns_of(report: SweepReport) -> dict[str, type]:
    """:data:`COLUMNS`, and one for the times of each device."""
    return COLUMNS | {_column(found): float for found in report.on_devices}


def rows_of(report: SweepReport) -> list[dict[str, Any]]:
    """Every cell with its figures, by column."""
    rows = {cell.name: row_of(cell) for cell in report.cells}
    for found in report.on_devices:
        rows[found.cell][_column(found)] = None if found.latency is None else found.latency.latency_p50_ms
    return [*rows.values()]


def _column(found: CellOnDevice) -> str:
    return f"latency_p50_ms_on_{found.device}"


def row_of(cell: CellReport) -> dict[str, Any]:
    """A cell with its figures, by column."""
    plain = to_jsonable(cell)
    figures = plain.pop("figures") or {}
    both = {**figures, **plain}
    return {name: both.get(name) for name in COLUMNS}


def csv_of(rows: list[dict[str, Any]], columns: dict[str, type] = COLUMNS) -> str:
    """The text of ``sweep.csv``."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain_values(rows))
    return stream.getvalue()


def parquet_of(rows: list[dict[str, Any]], columns: dict[str, type] = COLUMNS) -> bytes | None:
    """The bytes of ``sweep.parquet``; ``None`` where pyarrow is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    typed = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([_finite(row, columns) for row in rows], schema=typed), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _finite(row: dict[str, Any], columns: dict[str, type]) -> dict[str, Any]:
    """Numbers that JSON has as strings are numbers here."""
    return {
        name: float(value) if columns[name] is float and isinstance(value, str) else value
        for name, value in row.items()
    }
