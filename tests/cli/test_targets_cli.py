"""``edgeprune targets`` on the real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.targets import list_targets, load_target


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeprune", "targets", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "160"},
    )


def test_list_names_every_target_and_says_what_its_latency_is(tmp_path: Path) -> None:
    done = run("list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert set(rows) == set(list_targets())
    assert rows["host"].endswith("measured on this host")
    assert all(row.endswith("predicted") for name, row in rows.items() if name != "host")


def test_list_as_json() -> None:
    done = run("list", "--json")
    assert [profile["name"] for profile in json.loads(done.stdout)] == list(list_targets())


@pytest.mark.parametrize("name", list_targets())
def test_show_has_every_field(name: str) -> None:
    done = run("show", name)
    assert (done.returncode, done.stderr) == (0, "")
    profile = load_target(name)
    labels = {line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")}
    assert {"name", "cores", "memory_bytes", "width_quantum"} <= labels
    assert {f"sources.{group}" for group in profile.sources} <= labels
    assert ("roofline.clock_ghz" in labels) == (profile.roofline is not None)


def test_show_follows_an_alias_and_writes_json() -> None:
    data = json.loads(run("show", "rpi", "--json").stdout)
    assert data["name"] == "rpi4"
    assert data["roofline"]["clock_ghz"] > 0


def test_an_unknown_target_gets_the_nearest_name() -> None:
    done = run("show", "rpi-zero")
    assert (done.returncode, done.stdout) == (9, "")
    assert done.stderr.startswith("error: unknown target 'rpi-zero'; did you mean 'rpi-zero2'?")
    assert done.stderr.count("\n") == 1


def test_show_without_a_name_is_a_usage_error() -> None:
    done = run("show")
    assert done.returncode == 2
    assert "Missing argument 'NAME'" in done.stderr
