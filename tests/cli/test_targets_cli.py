"""``edgeprune targets`` on the real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeprune.cli.app import app
from edgeprune.errors import OutputError, TargetError, UsageError
from edgeprune.system.data import data_dir
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
    assert set(rows) >= set(list_targets())
    assert rows["host"].endswith("measured on this host")
    assert all(row.endswith("predicted") for name, row in rows.items() if name != "host")


def test_list_as_json() -> None:
    done = run("list", "--json")
    assert [profile["name"] for profile in json.loads(done.stdout)] == list(list_targets())


@pytest.mark.parametrize(
    "name",
    [n if n in {"host", "rpi4"} else pytest.param(n, marks=pytest.mark.wide) for n in list_targets()],
)
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


class Folder:
    """A user's folder of profiles, and the command line in this process."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        self.place = tmp_path / "config" / "edgeprune" / "targets"
        self.own = tmp_path / "board.toml"
        text = (data_dir("targets") / "rpi4.toml").read_text(encoding="utf-8")
        changed = text.replace('name = "rpi4"', 'name = "board"', 1).replace(
            "clock_ghz = 1.8", "clock_ghz = 2.0"
        )
        self.own.write_text(changed, encoding="utf-8")

    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["targets", *arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


def test_validate_add_diff_and_find_an_own_profile(folder: Folder) -> None:
    assert folder.run("validate", str(folder.own), "--json").exit_code == 0
    added = folder.run("add", str(folder.own), "--json")
    assert json.loads(added.stdout)["path"] == str(folder.place / "board.toml")
    listed = json.loads(folder.run("list", "--json").stdout)
    assert [profile["name"] for profile in listed] == [*list_targets(), "board"]
    rows = json.loads(folder.run("diff", "rpi4", "board", "--json").stdout)
    assert {row["field"] for row in rows} == {"name", "roofline.clock_ghz"}
    assert load_target("board").roofline == load_target(str(folder.own)).roofline
    assert "no field differs" in folder.run("diff", "board", "board").stdout


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("validate", "none.toml"), TargetError, "no target profile at"),
        (("add", "none.txt"), TargetError, "is no .toml file"),
        (("diff", "rpi4", "rpi99"), TargetError, "did you mean 'rpi"),
        (("calibrate", "mine"), UsageError, "accepted is --host"),
        (("calibrate", "rpi4", "--host"), TargetError, "a shipped target, which comes before"),
        (("calibrate", "rpi", "--host"), TargetError, "a shipped target, which comes before"),
        (("calibrate", "mine", "--host", "-o", "mine.json"), OutputError, "is no .toml file"),
    ],
)
def test_faults_are_one_sentence(folder: Folder, arguments: tuple[str, ...], error: type, words: str) -> None:
    failed = folder.run(*arguments).exception
    assert isinstance(failed, error)
    assert words in str(failed)
    assert not folder.place.exists()


def test_what_is_there_stays_unless_it_may_go(folder: Folder) -> None:
    assert folder.run("add", str(folder.own)).exit_code == 0
    kept = (folder.place / "board.toml").read_bytes()
    folder.own.write_text(folder.own.read_text().replace("2.0", "2.1"), encoding="utf-8")
    for command in (("add", str(folder.own)), ("calibrate", "board", "--host")):
        failed = folder.run(*command).exception
        assert isinstance(failed, OutputError)
        assert "is there already, and stays" in str(failed)
    assert (folder.place / "board.toml").read_bytes() == kept
    assert folder.run("add", str(folder.own), "--overwrite").exit_code == 0
    assert load_target("board").roofline.clock_ghz == 2.1  # type: ignore[union-attr]


def test_a_profile_with_a_shipped_name_is_not_added(folder: Folder) -> None:
    folder.own.write_text(folder.own.read_text().replace('"board"', '"rpi5"'), encoding="utf-8")
    failed = folder.run("add", str(folder.own)).exception
    assert isinstance(failed, TargetError)
    assert "give the profile another name" in str(failed)


def test_a_bad_profile_of_ones_own_is_named_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "edgeprune" / "targets"
    folder.mkdir(parents=True)
    shipped = (data_dir("targets") / "rpi4.toml").read_text()
    (folder / "mine.toml").write_text(shipped.replace('"rpi4"', '"mine"').replace('aliases = ["rpi"]', ""))
    (folder / "bad.toml").write_text("name = 3\n")
    done = run("list", "--json")
    assert done.returncode == 0, done.stderr
    assert {t["name"] for t in json.loads(done.stdout)} == {*list_targets(), "mine"}
    (warned,) = done.stderr.splitlines()
    assert warned.startswith(f"warning: left out of {folder}: bad.toml lacks the key")
