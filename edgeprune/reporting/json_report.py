"""The report as JSON: exact figures, one versioned schema (``docs/report-schema.md``)."""

from __future__ import annotations

import json
import math
import operator
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.artifacts.report import REPORT_SCHEMA_VERSION, DeploymentSection, RunReport
from edgeprune.errors import UsageError
from edgeprune.showing import in_short, plain_values
from edgeprune.storage.documents import UnreadableError
from edgeprune.storage.documents import read_json as read_json_file
from edgeprune.storage.files import atomic_write_text

T = TypeVar("T")

_READABLE = (REPORT_SCHEMA_VERSION, "1.8", "1.7", "1.6", "1.5", "1.4", "1.3", "1.2", "1.1")
"""Readable schema versions: 1.8 to 1.4 and 1.2 lack fields with defaults; 1.1 also ``usability``, and its
recovery has no deciding images."""
_OLD_NAMES = {
    "deployment": {"host_cpu_ratio": "latency_ratio"},
    "quantization": {"halves": "float16"},
}
"""Names of fields before schema 1.4 and 1.6, by section."""


_FILES = ("original", "compressed")
_ABOVE_0 = (
    *(f"{file}.size_bytes" for file in _FILES),
    *(f"{file}.latency.latency_p{share}_ms" for file in _FILES for share in (50, 90, 99)),
    *(f"{file}.latency.{field}" for file in _FILES for field in ("repetitions", "processes")),
    *(f"latency_ratio.{end}" for end in ("ratio", "low", "high")),
    *(f"{file}_prediction.latency_ms" for file in _FILES),
)
_FROM_0 = (
    *(f"{file}.{field}" for file in _FILES for field in ("parameters", "macs", "peak_memory_bytes")),
    *(f"{file}_prediction.{end}_ms" for file in _FILES for end in ("low", "high")),
)
"""Figures of ``deployment`` that a file can only have above 0, and not below it."""


def _check_figures(deployment: DeploymentSection) -> None:
    """Check that sizes and times are possible ones.

    Raises:
        ValueError: names the field and its value.
    """
    for places, holds, accepted in (
        (_ABOVE_0, operator.gt, "a number above 0"),
        (_FROM_0, operator.ge, "a number that is not negative"),
    ):
        for place in places:
            value: Any = deployment
            for field in place.split("."):
                value = None if value is None else getattr(value, field)
            if value is not None and not (math.isfinite(value) and holds(value, 0)):
                raise ValueError(f"deployment.{place} is {value}; accepted is {accepted}")


def _upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """Upgrade a report of schema 1.1: all solved layers were changed, without a decision."""
    if not isinstance(data.get("recovery"), dict):
        raise ValueError("recovery: expected an object")
    recovery = {k: v for k, v in data["recovery"].items() if k != "ridge"}
    recovery |= {"layers_changed": recovery["layers_solved"], "deciding_images": 0, "decision": None}
    return data | {"recovery": recovery}


def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    """Rename the fields of a report of schema 1.5 or earlier to the current names."""
    for section, names in _OLD_NAMES.items():
        fields = data.get(section)
        if isinstance(fields, dict):  # what else there may be is judged by its type later
            data = data | {section: {names.get(key, key): value for key, value in fields.items()}}
    return data


def report_to_json(report: RunReport) -> str:
    """The text of ``report.json``; control characters in names are escaped."""
    return json.dumps(plain_values(to_jsonable(report)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(report: RunReport, path: str | Path) -> None:
    """Write ``report.json``; what is written reads back equal.

    Raises:
        OutputError: the path cannot be written.
    """
    atomic_write_text(path, report_to_json(report))


def read_json(path: str | Path) -> RunReport:
    """Read a report that :func:`write_json` wrote.

    Raises:
        UsageError: no such file, not a report, or one of a schema version that this edgeprune does not know.
    """
    shown = repr(str(path))
    try:
        data = read_json_file(Path(path))
    except UnreadableError as error:
        raise UsageError(f"report {shown} {error}; name a report.json written by edgeprune") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version is None:
        raise UsageError(f"{shown} has no schema_version; name a report.json written by edgeprune")
    if version not in _READABLE:
        known = f"{', '.join(map(repr, _READABLE[:-1]))} and {_READABLE[-1]!r}"
        raise UsageError(
            f"report {shown} has schema version {in_short(version)}, this edgeprune reads {known}; read it "
            "with the edgeprune that wrote it, or run that again"
        )
    try:
        data = _upgraded(data) if version == "1.1" else data
        report = from_jsonable(RunReport, data if version == REPORT_SCHEMA_VERSION else _renamed(data))
        answers = None if report.usability is None else report.usability.answers
        if answers is not None and not answers.consistent:
            raise ValueError(f"{answers} contradicts itself")
        _check_figures(report.deployment)
        return report
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"report {shown} does not fit schema {version}: {error}") from error


def read_document(kind: type[T], path: str | Path, versions: tuple[str, ...], *, name: str, again: str) -> T:
    """Read a document that is no report of a run, such as ``sweep.json``.

    Args:
        kind: the dataclass that was written.
        path: of the file.
        versions: readable schema versions, today's last.
        name: what it is called, in sentences and, with ``.json``, as a file.
        again: what makes a new one, as a verb.

    Raises:
        UsageError: no such file, another document, or one of a schema version that this edgeprune does not
            know.
    """
    shown = repr(str(path))
    try:
        data = read_json_file(Path(path))
    except UnreadableError as error:
        raise UsageError(f"{name} {shown} {error}; name a {name}.json written by edgeprune") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version not in versions:
        raise UsageError(
            f"{shown} has schema version {in_short(version)}, this edgeprune reads {versions[-1]!r}; "
            f"name a {name}.json, or {again} again"
        )
    try:
        return from_jsonable(kind, data)
    except ValueError as error:
        raise UsageError(f"{name} {shown} does not fit schema {version}: {error}") from error
