"""The measuring script, its result and bundles, run as on a device: from a folder of their own, by sh."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring_jobs import Edit, convolution, edit

from edgeprune import api
from edgeprune.artifacts.latency import Provenance
from edgeprune.devices.bundle import FOLDER, read_result
from edgeprune.devices.protocol import (
    FailureKind,
    MeasurementFailure,
    MeasurementResult,
    from_json,
)
from edgeprune.devices.recorded import distrust
from edgeprune.devices.script.sampling import interleaved, warmed_up
from edgeprune.errors import DeviceError, OutputError, ProfileError, UsageError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return convolution(folder / "first.onnx", 8), convolution(folder / "ot her.onnx", 16)


@pytest.fixture(scope="module")
def packed(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("bundle") / "bench.tar.gz"
    assert api.bundle(list(models), output=bundle, threads=1) == ("first", "ot_her")
    return bundle


@pytest.fixture
def unpacked(packed: Path, tmp_path: Path) -> Path:
    """The bundle on a device, whose job is made short: 10 pairs, 3 samples."""
    return unpack(packed, tmp_path)


def unpack(packed: Path, where: Path) -> Path:
    with tarfile.open(packed) as archive:
        archive.extractall(where, filter="data")
    folder = where / FOLDER
    edit(
        folder / "job.json",
        lambda job: job.update(least_pairs=10, samples=3, warmup_limit_s=0.1, processes=2),
    )
    return folder


def run_sh(folder: Path, python: str = sys.executable, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shell, str(folder / "run.sh")], capture_output=True, text=True, check=False, cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHON": python},
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a device wrote."""
    folder = unpack(packed, tmp_path_factory.mktemp("device"))
    done = run_sh(folder, shell="dash" if shutil.which("dash") else "sh")
    assert done.returncode == 0, done.stderr
    assert "edgeprune profile MODEL.onnx --result result.json" in done.stdout
    return folder / "result.json"


def test_a_bundle_is_measured_and_read(result: Path, models: tuple[Path, Path]) -> None:
    first, other = models
    profiled = api.profile(other, result=result, target="rpi4", baseline=first)
    latency, ratio = profiled.figures.latency, profiled.latency_ratio
    assert latency is not None
    assert ratio is not None
    assert profiled.prediction is None
    assert {latency.provenance, ratio.provenance} == {Provenance.MEASURED_ON_TARGET}
    assert 0 < latency.latency_p50_ms <= latency.latency_p90_ms <= (latency.latency_p99_ms or 0)
    assert latency.load_ms is not None
    assert latency.first_run_ms is not None
    assert sum(part.share for part in latency.operators) == pytest.approx(1)
    assert "Conv" in {part.op_type for part in latency.operators}
    assert ratio.low <= ratio.ratio <= ratio.high
    assert ratio.pairs == 10
    assert ratio.trusted == (ratio.caution is None) == latency.trusted == (not profiled.notes)


def test_the_same_bundle_twice_and_no_traces_of_this_machine(
    packed: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    again = tmp_path / "again.tar.gz"
    api.bundle(list(models), output=again, threads=1)
    assert again.read_bytes() == packed.read_bytes()
    with pytest.raises(OutputError):
        api.bundle(list(models), output=again, threads=1)
    with tarfile.open(again) as archive:
        assert {(m.uid, m.gid, m.mtime, m.uname) for m in archive.getmembers()} == {(0, 0, 0, "")}
    assert str(models[0].parent).encode() not in gzip.decompress(again.read_bytes())


def damage(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def other_sum(folder: Path) -> None:
    """A damaged model that the job takes for the right one."""
    damage("first.onnx")(folder)
    edit(folder / "job.json", lambda job: job["models"][0].update(sha256=None))


@pytest.mark.parametrize(
    ("harm", "kind", "model", "words"),
    [
        (damage("first.onnx"), FailureKind.LOAD, "first", "SHA-256"),
        (other_sum, FailureKind.LOAD, "first", "cannot load it"),
        (lambda folder: (folder / "ot_her.onnx").unlink(), FailureKind.LOAD, "ot_her", "cannot be read"),
        (
            lambda folder: edit(folder / "job.json", lambda job: job.update(schema=7)),
            FailureKind.VERSION, None, "schema 7",
        ),
        (
            lambda folder: edit(folder / "job.json", lambda job: job.update(time_limit_s=1e-9)),
            FailureKind.TIME, "first", "longer than 1e-09 s",
        ),
    ],
)  # fmt: skip
def test_what_fails_there_is_a_sentence_there_and_here(
    unpacked: Path, harm: Callable[[Path], None], kind: FailureKind, model: str | None, words: str
) -> None:
    harm(unpacked)
    done = run_sh(unpacked)
    assert done.returncode == 3
    assert words in done.stderr
    told = from_json((unpacked / "result.json").read_bytes())
    assert isinstance(told, MeasurementFailure)
    assert (told.kind, told.model) == (kind, model)
    assert words in told.message
    with pytest.raises((DeviceError, ProfileError), match=words):
        read_result(unpacked / "result.json")


def stub(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_without_onnxruntime_or_python(unpacked: Path, tmp_path: Path) -> None:
    (unpacked / "result.json").write_text("of before")
    lacking = stub(
        tmp_path / "lacking",
        f'case "$*" in *onnxruntime*|*"-m venv"*) exit 1;; esac; exec {sys.executable} "$@"',
    )
    done = run_sh(unpacked, lacking)
    assert done.returncode == 1
    assert "lacks onnxruntime and makes no virtual environment" in done.stderr
    assert not (unpacked / "venv").exists()
    done = run_sh(unpacked, str(tmp_path / "none"))
    assert "there is no" in done.stderr
    old = stub(tmp_path / "old", 'case "$*" in *version_info*) exit 1;; esac')
    assert "no Python of 3.9 or later" in run_sh(unpacked, old).stderr


def test_killed_for_memory(unpacked: Path, tmp_path: Path) -> None:
    """The process of a model is killed as the kernel does."""
    (unpacked / "numpy.py").write_text("__version__ = '0'\n")
    (unpacked / "onnxruntime.py").write_text(
        "import os, sys\nif '--part' in sys.argv: os.kill(os.getpid(), 9)\n__version__ = '0'\n"
    )
    assert run_sh(unpacked).returncode == 3
    told = from_json((unpacked / "result.json").read_bytes())
    assert isinstance(told, MeasurementFailure)
    assert told.kind is FailureKind.MEMORY


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "no whole JSON"),
        (lambda text: "[]", "no result of a measurement"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "of schema '2', and 1 is read"),
        (lambda text: text.replace('"load_ms"', '"loading"'), "load_ms"),
        (lambda text: "", "no whole JSON"),
    ],
)
def test_a_damaged_result_is_a_sentence(
    result: Path, tmp_path: Path, change: Callable[[str], str], words: str
) -> None:
    damaged = tmp_path / "result.json"
    damaged.write_text(change(result.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UsageError, match=words) as caught:
        read_result(damaged)
    assert "\n" not in str(caught.value)


def test_a_result_of_other_files_or_none(result: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    changed = convolution(tmp_path / "changed.onnx", 24)
    with pytest.raises(UsageError, match=r"changed\.onnx is none of the files"):
        api.profile(changed, result=result)
    with pytest.raises(UsageError, match="no pairs of"):
        api.profile(models[0], result=result, baseline=models[1])
    with pytest.raises(UsageError, match="cannot be read"):
        api.profile(changed, result=tmp_path / "none.json")


def altered(result: Path, change: Edit) -> MeasurementResult:
    told = json.loads(result.read_text(encoding="utf-8"))
    told["cautions"] = []
    change(told)
    parsed = from_json(json.dumps(told).encode())
    assert isinstance(parsed, MeasurementResult)
    return parsed


@settings(max_examples=10, deadline=None)
@given(off=st.floats(0.0, 0.2))
def test_noise_beyond_two_percent_is_not_trusted(result: Path, off: float) -> None:
    noisy = altered(result, lambda told: told["noise"].update(cpu_ratios=[[1 + off] * 4] * 5))
    assert [reason.startswith("noisy") for reason in distrust(noisy)] == [True] * (off > 0.02)


def test_a_throttled_device_is_not_trusted_and_said_everywhere(
    result: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    hot = tmp_path / "result.json"
    told = json.loads(result.read_text(encoding="utf-8"))
    told["cautions"] = ["the device was throttled during the measurement (flags 0x4)"]
    hot.write_text(json.dumps(told), encoding="utf-8")
    profiled = api.profile(models[1], result=hot, baseline=models[0])
    assert profiled.figures.latency is not None
    assert not profiled.figures.latency.trusted
    assert profiled.latency_ratio is not None
    assert not profiled.latency_ratio.trusted
    assert "throttled" in str(profiled.latency_ratio.caution)
    assert any("throttled" in note for note in profiled.notes)


def test_a_time_limit_says_how_many_pairs_were_done() -> None:
    done = interleaved(
        lambda: [lambda: sum(range(30_000)), lambda: sum(range(30_000))],
        pairs=10**6, warmup_limit_s=0.0, rounds=2, ends_at=-1.0,
    )  # fmt: skip
    assert done == ([], [])
    told = interleaved(lambda: [lambda: None, lambda: sum(range(3000))], pairs=9, warmup_limit_s=0.0)
    assert [len(row) for row in told[0]] == [2] * 5
    assert min(min(row) for row in told[0]) > 1


def test_warm_up_goes_on_while_times_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0, "run": 0}

    def run() -> None:
        clock["run"] += 1
        clock["now"] += max(2_000_000, 60_000_000 - 1_000_000 * clock["run"])

    monkeypatch.setattr("time.process_time_ns", lambda: clock["now"])
    monkeypatch.setattr("time.perf_counter_ns", lambda: clock["now"])
    inner, runs = warmed_up(run, 60.0)
    assert inner == 1
    assert 58 <= runs <= 75


IMPOSSIBLE: list[Edit] = [
    *(lambda told, value=value: told["models"]["first"].update(processes=value) for value in (0, -5, 10**30)),
    *(
        lambda told, value=value: told["models"]["first"].update(latency_p50_ms=value)
        for value in (0, -1.0, math.inf)
    ),
    lambda told: told["models"]["first"].update(repetitions=0),
    lambda told: told.update(threads=-3),
    lambda told: told.update(batch_size=0),
    *(
        lambda told, value=value: told["noise"].update(cpu_ratios=value)
        for value in ([], [[]], [[math.nan]], [[0.0]])
    ),
    lambda told: told["pairs"][0].update(wall_ratios=[[1.0, -1.0]]),
]  # fmt: skip


@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_impossible_figures_are_refused_by_their_place(
    change: Edit, result: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    shutil.copy(result, path)
    edit(path, change)
    with pytest.raises((UsageError, DeviceError), match=r"result.json.*(is no |are none)"):
        read_result(path)


def test_a_result_of_before_has_one_process(result: Path, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    shutil.copy(result, path)
    edit(path, lambda told: told["models"]["first"].pop("processes"))
    assert read_result(path).result.models["first"].processes == 1
