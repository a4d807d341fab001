"""The output folder appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.errors import OutputError
from edgeprune.storage import outputs
from edgeprune.storage.files import check_writable, scratch_folder
from edgeprune.storage.outputs import (
    atomic_write_bytes,
    atomic_write_text,
    check_destination,
    read_manifest,
    sha256_file,
    staged_output,
    write_manifest,
)
from edgeprune.storage.ownership import is_abandoned, owned_token


def fill(folder: Path, text: str = "new") -> None:
    (folder / "model.onnx").write_text(text)
    write_manifest(
        folder, inputs={"model": "ab" * 32}, seed=3, command="edgeprune compress x", versions={"b": "2"}
    )


def make_output(path: Path, text: str = "old") -> None:
    with staged_output(path) as staging:
        fill(staging, text)


def fill_and_fail(path: Path, failure: type[BaseException]) -> None:
    with staged_output(path, overwrite=True) as staging:
        fill(staging)
        raise failure


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_folder_appears_only_at_the_end(tmp_path: Path) -> None:
    destination = tmp_path / "deep" / "out"
    with staged_output(destination) as staging:
        assert staging.parent == destination.parent
        assert staging.name.startswith(".")
        assert not destination.exists()
        fill(staging)
    assert entries(destination) == ["manifest.json", "model.onnx"]
    assert entries(destination.parent) == ["out"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure):
        fill_and_fail(tmp_path / "deep" / "er" / "out", failure)
    assert entries(tmp_path) == []


def test_a_failure_leaves_the_old_output_as_it_was(tmp_path: Path) -> None:
    make_output(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        fill_and_fail(tmp_path / "out", KeyboardInterrupt)
    assert entries(tmp_path) == ["out"]
    assert (tmp_path / "out" / "model.onnx").read_text() == "old"


def test_overwrite_replaces_what_the_manifest_lists_and_leaves_the_users_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staged_output(out) as staging:
        for name in ("gone/deep/old.bin", "both/old.bin"):
            (staging / name).parent.mkdir(parents=True)
            (staging / name).write_text("old")
        fill(staging, "old")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "model.onnx").write_text("mine")
    (out / "both" / "notes.txt").write_text("mine")
    (out / "kept" / "empty").mkdir(parents=True)
    (out / "extra.bin").write_text("mine, where the new output has one of its own")
    (out / "link").symlink_to(tmp_path / "thesis")
    with staged_output(out, overwrite=True) as staging:
        (staging / "extra.bin").write_text("new")
        fill(staging)
    assert entries(tmp_path) == ["out", "thesis"]
    assert entries(out) == [
        "both", "extra.bin", "extra.bin.kept", "kept", "link", "manifest.json", "model.onnx",
    ]  # fmt: skip
    assert (out / "model.onnx").read_text() == (out / "extra.bin").read_text() == "new"
    assert (out / "extra.bin.kept").read_text().startswith("mine")
    assert entries(out / "both") == ["notes.txt"]
    assert (out / "kept" / "empty").is_dir()
    assert (out / "link" / "model.onnx").read_text() == "mine"


def test_a_manifest_reaches_nothing_outside_its_folder(tmp_path: Path) -> None:
    make_output(tmp_path / "out")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("years of work")
    (tmp_path / "out" / "link").symlink_to(tmp_path / "thesis")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for path in ("../thesis/a.tex", "link/a.tex", str(tmp_path / "thesis" / "a.tex")):
        manifest["outputs"].append({"path": path, "size_bytes": 1, "sha256": ""})
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with staged_output(tmp_path / "out", overwrite=True) as staging:
        fill(staging)
    assert (tmp_path / "out" / "link" / "a.tex").read_text() == "years of work"


@pytest.mark.parametrize("way", ["own", "relative", "link", "link inside", "dotted", "module", "function"])
def test_an_output_that_holds_what_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_output(tmp_path / "out")
    (tmp_path / "out" / "nets.py").touch()
    (tmp_path / "elsewhere").touch()
    (tmp_path / "link").symlink_to(tmp_path / "out" / "model.onnx")
    (tmp_path / "out" / "inside").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "other").mkdir()
    given = {
        "own": tmp_path / "out" / "model.onnx", "relative": "out/model.onnx", "link": "link",
        "link inside": "out/inside", "dotted": "other/../out/model.onnx", "module": "out.nets:small",
        "function": "out/nets.py:small",
    }[way]  # fmt: skip
    with pytest.raises(OutputError, match=r"'out' holds the model '.*', which this run reads"):
        check_destination("out", overwrite=True, reads={"recipe": None, "model": given})
    assert (tmp_path / "out" / "model.onnx").read_text() == "old"


def test_a_folder_under_two_names_is_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where case does not count: the same folder by another spelling."""
    make_output(tmp_path / "out")
    (tmp_path / "OUT").symlink_to(tmp_path / "out")
    monkeypatch.setattr(Path, "resolve", lambda self, strict=False: self.absolute())
    with pytest.raises(OutputError, match="which this run reads"):
        check_destination(tmp_path / "out", overwrite=True, reads={"model": tmp_path / "OUT" / "model.onnx"})


def test_what_only_shares_its_bytes_with_an_old_file_survives(tmp_path: Path) -> None:
    make_output(tmp_path / "out")
    (tmp_path / "mine.onnx").hardlink_to(tmp_path / "out" / "model.onnx")
    reads = {"model": tmp_path / "mine.onnx", "calibration": "out of reach/images", "arch": "torchvision:out"}
    check_destination(tmp_path / "out", overwrite=True, reads=reads)
    with staged_output(tmp_path / "out", overwrite=True) as staging:
        fill(staging)
    assert (tmp_path / "mine.onnx").read_text() == "old"


def of_the_dead(name: str) -> str:
    """A name as a process made it that has ended since."""
    script = f"from edgeprune.storage.ownership import owned_token; print({name!r} + owned_token())"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_what_killed_processes_left_is_removed_and_what_living_ones_have_is_not(tmp_path: Path) -> None:
    dead = of_the_dead(".edgeprune-")
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    token = dead.removeprefix(".edgeprune-").split("-")
    reused = f".edgeprune-{os.getpid()}-{int(start) - 1}-{token[2]}-{token[3]}"
    elsewhere = f".edgeprune-{token[0]}-{token[1]}-00000000-{token[3]}"
    for name in (dead, reused, elsewhere, f".edgeprune-{owned_token()}"):
        (tmp_path / f"{name}.tmp").mkdir()
        (tmp_path / f"{name}.tmp" / "model.onnx").touch()
    (tmp_path / f"{of_the_dead('.edgeprune-')}.tmp").write_text("a file")
    (tmp_path / ".edgeprune-1234.tmp").touch()
    living = [name for name in entries(tmp_path) if name.endswith(".tmp") and str(os.getpid()) in name]
    make_output(tmp_path / "out")
    left = [name for name in living if not name.startswith(reused)]
    assert entries(tmp_path) == sorted([*left, f"{elsewhere}.tmp", ".edgeprune-1234.tmp", "out"])


@pytest.mark.parametrize("before", ["the new one is in place", "nothing is in place"])
def test_an_exchange_that_was_killed_is_finished_or_undone(tmp_path: Path, before: str) -> None:
    script = f"""
import os
from pathlib import Path
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_outputs import fill
from edgeprune.storage import replacing
from edgeprune.storage.outputs import staged_output
rename, calls = Path.rename, []
def killed(self, target):
    calls.append(self)
    if len(calls) == {3 if "new" in before else 2}:
        os.kill(os.getpid(), 9)
    return rename(self, target)
Path.rename = killed
with staged_output({str(tmp_path / "out")!r}, overwrite=True) as staging:
    fill(staging)
"""
    make_output(tmp_path / "out")
    (tmp_path / "out" / "mine").write_text("years of work")
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert len(entries(tmp_path)) == 2
    check_destination(tmp_path / "out", overwrite=True)
    assert entries(tmp_path) == ["out"]
    assert entries(tmp_path / "out") == ["manifest.json", "mine", "model.onnx"]
    assert (tmp_path / "out" / "mine").read_text() == "years of work"
    assert (tmp_path / "out" / "model.onnx").read_text() == ("new" if "new" in before else "old")


def test_no_room_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"out' cannot be written \(No space left on device\); make room"):
        check_destination(tmp_path / "out")
    assert entries(tmp_path) == []


def test_a_full_disk_within_the_block_is_an_output_error(tmp_path: Path) -> None:
    def fill_the_disk() -> None:
        with staged_output(tmp_path / "out") as staging, scratch_folder() as scratch:
            assert is_abandoned(scratch.name) is False
            (staging / "part").touch()
            raise OSError(28, "No space left on device", "big")

    with pytest.raises(OutputError, match="the disk of 'big' is full"):
        fill_the_disk()
    assert entries(tmp_path) == []


def test_the_old_output_comes_back_where_the_last_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_output(tmp_path / "out")
    rename = Path.rename

    def fail_for_staging(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_staging)
    with (
        pytest.raises(OutputError, match="No space left"),
        staged_output(tmp_path / "out", overwrite=True) as staging,
    ):
        fill(staging)
    assert entries(tmp_path) == ["out"]
    assert (tmp_path / "out" / "model.onnx").read_text() == "old"


def test_an_existing_empty_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    make_output(tmp_path / "out")
    assert entries(tmp_path / "out") == ["manifest.json", "model.onnx"]
    assert entries(tmp_path) == ["out"]


def test_existing_output_needs_overwrite(tmp_path: Path) -> None:
    make_output(tmp_path / "out")
    with pytest.raises(OutputError, match=r"exists already .* add --overwrite"):
        check_destination(tmp_path / "out")
    assert check_destination(tmp_path / "out", overwrite=True) == tmp_path / "out"


@pytest.mark.parametrize("manifest", [None, "not json", "{}", '{"created_by": "another"}', "[]"])
def test_a_folder_of_someone_else_is_never_replaced(tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with (
        pytest.raises(OutputError, match="will not delete it"),
        staged_output(tmp_path, overwrite=True),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        check_destination(tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match="is a file, not a folder"):
        check_destination(tmp_path / "file" / "out")


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    for path in (".", "..", tmp_path / "a"):
        with pytest.raises(OutputError, match="current folder"):
            check_destination(path, overwrite=True)
    assert check_destination("out") == tmp_path / "a" / "out"


def test_a_mount_point_is_not_replaced() -> None:
    with pytest.raises(OutputError, match="mount point"):
        check_destination("/proc", overwrite=True)


def test_an_unwritable_parent_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        check_destination(tmp_path / "out")


def test_a_parent_that_refuses_is_an_output_error(tmp_path: Path) -> None:
    # Not even root can make a folder in /proc.
    with pytest.raises(OutputError, match="/proc/out' cannot be"), staged_output("/proc/out"):
        pytest.fail("the block must not run")


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def late() -> None:
        with staged_output(tmp_path / "out") as staging:
            fill(staging)
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "other").touch()

    with pytest.raises(OutputError, match="exists already"):
        late()
    assert entries(tmp_path) == ["out"]
    assert entries(tmp_path / "out") == ["other"]


def test_manifest_lists_every_file_with_size_and_hash(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(b"12345")
    fill(tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert [(f.path, f.size_bytes) for f in manifest.outputs] == [("model.onnx", 3), ("sub/a.bin", 5)]
    assert manifest.outputs[1].sha256 == hashlib.sha256(b"12345").hexdigest()
    assert (manifest.seed, manifest.command) == (3, "edgeprune compress x")
    assert json.loads((tmp_path / "manifest.json").read_text())["schema_version"] == "1.0"


def test_writing_the_manifest_twice_does_not_list_itself(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert [f.path for f in manifest.outputs] == ["model.onnx"]


def test_sha256_of_a_file_longer_than_a_chunk(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "big").write_bytes(data)
    assert sha256_file(tmp_path / "big") == hashlib.sha256(data).hexdigest()


def test_atomic_write_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic_write_text(path, "ä\n")
    atomic_write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert entries(tmp_path) == ["a.txt"]


def test_atomic_write_keeps_the_old_file_where_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["a.txt"]


def test_the_module_offers_what_its_documentation_says() -> None:
    assert all(hasattr(outputs, name) for name in outputs.__all__)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/proc/self/environ", "/sys/kernel/x"])
def test_devices_of_the_system_are_no_outputs(path: str) -> None:
    """As root a device would be replaced by a file; only checked here, never written."""
    with pytest.raises(OutputError, match="is no regular file and would be replaced"):
        check_writable(path, what="page")


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        for write in (lambda p: atomic_write_text(p, "x"), lambda p: check_writable(p, what="page")):
            with pytest.raises(OutputError, match="is no regular file and would be replaced"):
                write(path)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe"]
