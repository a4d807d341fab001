"""Every JSON and TOML file that a command reads, damaged in many ways: one sentence, and no waiting."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_project import CHECKOUT, run_forked, sentence

from edgeprune.cli import main
from edgeprune.storage.records import read_record, write_record

sys.path.insert(0, str(CHECKOUT / "tests" / "unit" / "commands"))

SMALL = ("small.pt", "--arch", "nets.py:small")
DATA = ("--calibration", "grey.npz", "--threads", "1")
DRY = ("compress", *SMALL, *DATA, "--dry-run")
READERS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "ranking": ("given/ranking.json", (*DRY, "--ranking", "given"), 2),
    "report": ("given/report.json", ("pick", "given", "--max-drop", "1"), 2),
    "manifest": ("given/manifest.json", ("rank", *SMALL, *DATA, "-o", "given", "--overwrite"), 7),
    "journal": ("given.journal/journal.json", ("rank", *SMALL, *DATA, "-o", "given", "--resume"), 2),
    "target": ("given.toml", (*DRY, "--target", "given.toml"), 9),
    "card": ("given.toml", (*DRY, "--card", "given.toml"), 4),
    "project": ("edgeprune.toml", ("inspect", *SMALL, "--input-shape", "1x8x8"), 2),
}  # fmt: skip
"""What a reader reads, the command, and its status where that is damaged."""

JSON_TEXTS = {
    "empty": b"",
    "deep lists": b"[" * 100_000,
    "deep closed lists": b"[" * 900 + b"]" * 900,
    "deep objects": b'{"a":' * 90_000,
    "deep closed objects": b'{"a":' * 200 + b"1" + b"}" * 200,
    "digits": b'{"schema_version": ' + b"9" * 6_000 + b"}",
    "whole": b'{"schema_version": ' + b"9" * 60 + b"}",
    "no number": b'{"schema_version": NaN}',
    "beyond floats": b'{"schema_version": 1e999}',
    "another kind": b'[{"schema_version": "1.1"}]',
    "escapes": b'{"schema_version": "\\u001b[31m\\u202e"}',
    "a long name": b'{"schema_version": "' + b"a" * 90_000 + b'"}',
}
TOML_TEXTS = {
    "no value": b"= 1",
    "deep lists": b"x = " + b"[" * 100_000,
    "deep closed lists": b"x = " + b"[" * 900 + b"]" * 900,
    "deep tables": b"x = " + b"{a=" * 9_000,
    "deep keys": b".".join([b"a"] * 5_000) + b" = 1",
    "digits": b"seed = " + b"9" * 6_000,
    "whole": b"seed = " + b"9" * 60,
    "no number": b"ratio = nan",
    "beyond floats": b"ratio = 1e999",
    "another kind": b"ratio = [[1]]",
    "escapes": b'"\\u001b[31m\\u202e" = 1',
    "a long name": b"a" * 90_000 + b" = 1",
}
TEXTS = {"no text": b"\xff\xfe\x00\x80", "a nul": b"\x00"}


@pytest.fixture
def place(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model and the images."""
    for name in ("small.pt", "grey.npz", "nets.py"):
        (tmp_path / name).symlink_to(project / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def check(said: str, printed: str, found: int, status: int) -> None:
    assert found == status, said
    assert printed == ""
    last = said.splitlines()[-1]
    assert last.startswith("error: ")
    assert 30 < len(last) < 700
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_told_in_one_sentence(reader: str, place: Path, capsys: Any) -> None:
    name, command, status = READERS[reader]
    path = place / name
    texts = TEXTS | (TOML_TEXTS if path.suffix == ".toml" else JSON_TEXTS)
    for kind, text in texts.items():
        put(path, text)
        done = main([*command, "-q"])
        said = capsys.readouterr()
        check(f"{kind}: {said.err}" if done != status else said.err, said.out, done, status)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_or_never_ends_is_not_read(reader: str, place: Path, tmp_path: Path) -> None:
    """In processes of their own: what is wrong here waits or fills the memory."""
    name, command, status = READERS[reader]
    path = place / name
    path.parent.mkdir(exist_ok=True)
    # What is no file is no project file.
    for kind in ["huge"] if reader == "project" else ["pipe", "huge"]:
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.touch()
            os.truncate(path, 300 << 20)
        done = run_forked(*command, "-q", cwd=place, scratch=tmp_path / "scratch")
        check(done.stderr, done.stdout, done.returncode, status)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


ABSURD = (None, True, -1, 0, 2**62, 1e308, "NaN", "\x1b[2J\u202e", "x" * 5_000, [], {}, [[1]], {"a": None})


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    found = json.loads(json.dumps(content))
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return found


@pytest.mark.wide
def test_a_report_with_any_value_changed_is_read_or_refused(tmp_path: Path, capsys: Any) -> None:
    from test_picking import searched

    folder = searched(tmp_path / "searched")
    shutil.copytree(folder, tmp_path / "whole")
    report = json.loads((folder / "report.json").read_text())
    record = read_record(folder / "candidates" / "candidate-1" / "candidate.json")
    command = ["pick", str(folder), "--max-drop", "1", "--max-size", "1GB"]
    assert main(command) == 0
    capsys.readouterr()
    rng = random.Random(0)
    statuses = set()
    for name, content, least, write in (
        ("report.json", report, 60, lambda path, content: path.write_text(json.dumps(content))),
        ("candidates/candidate-1/candidate.json", record, 30, write_record),
    ):
        ways = list(places(content))
        chosen = [*[w for w in ways if w[0] == "budget"], *rng.choices(ways, k=least)]
        for way in chosen:
            write(folder / name, changed(content, way, rng.choice(ABSURD)))
            status = main([*command, "-q"])
            said = capsys.readouterr()
            statuses.add(status)
            assert status in {0, 2, 12}, (name, way, said.err)
            assert "\x1b" not in said.out + said.err
            assert status == 0 or (said.err.startswith("error: ") and said.err.count("\n") == 1), said.err
        write(folder / name, content)
    assert statuses >= {0, 2}


def test_the_candidate_that_is_copied_holds_plain_files_only(tmp_path: Path) -> None:
    from test_picking import searched

    folder = searched(tmp_path / "searched")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for number in range(1, 5):
        (folder / "candidates" / f"candidate-{number}" / "notes.txt").symlink_to(secret)
    done = run_forked(
        "pick", str(folder), "--max-drop", "99", "-o", "out", cwd=tmp_path, scratch=tmp_path / "s"
    )
    assert "is no regular file" in sentence(done, 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["dynamic.pt2", "small.pt"])
def test_an_archive_that_was_cut_short_is_told_as_that(
    name: str, place: Path, project: Path, capsys: Any
) -> None:
    data = (project / name).read_bytes()
    cuts = {
        *range(1, 6),
        30,
        *range(100, len(data), len(data) // 20),
        *(len(data) - n for n in (23, 22, 5, 1)),
    }
    for length in sorted(cuts):
        (place / "cut.pt2").write_bytes(data[:length])
        found = main(["inspect", "cut.pt2", "-q"])
        said = capsys.readouterr()
        check(said.err, said.out, found, 3)
        assert f"damaged archive: after {length} bytes it ends without the directory" in said.err
        assert "copy or download it again, or export or save the model again" in said.err
