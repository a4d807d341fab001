"""Shared by the benchmarks: research data, results as they come, the header of a page, atomic writing."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeprune.files import atomic_write_text
from edgeprune.host import machine_description
from edgeprune.pipeline.assembly import package_versions

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "docs" / "benchmarks"


def research_data() -> Path:
    """Folder of the research data, which users do not have; ends the program with a reason where missing."""
    folder = Path(os.environ.get("EDGEPRUNE_RESEARCH_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "resnet20_cifar10.safetensors").is_file():
        print(f"skipped: no research data in {folder} (set EDGEPRUNE_RESEARCH_DATA)", file=sys.stderr)
        raise SystemExit(0)
    return folder


def results_of(
    jobs: dict[str, Callable[[Path], dict[str, Any]]], folder: Path, deadline: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """What was measured before, or now until the deadline (monotonic), and the names of what was not.

    A job gets a scratch folder; its result is kept in ``folder`` under its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, missing = [], []
    for name, work in jobs.items():
        path = folder / f"{''.join(c if c.isalnum() or c in '._' else '-' for c in name)}.json"
        if not path.exists():
            if time.monotonic() > deadline:
                missing.append(name)
                continue
            with tempfile.TemporaryDirectory() as own:
                found = work(Path(own))
            atomic_write_text(path, json.dumps(found, indent=1))
            print(f"{name}: {json.dumps(found)}", flush=True)
        rows.append(json.loads(path.read_text()))
    return rows, missing


def header(title: str, command: str, seeds: str, threads: int) -> str:
    """First lines of a result file: what ran, where, with which versions."""
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    return (
        f"# {title}\n\n"
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}; do not edit by hand.\n\n"
        f"- machine: {machine_description()}, {threads} threads\n- versions: {versions}\n- seeds: {seeds}\n\n"
    )


def write_result(name: str, text: str) -> None:
    """Put ``docs/benchmarks/NAME`` in place in one step."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    atomic_write_text(RESULTS / name, text)
    print(f"wrote docs/benchmarks/{name}")
