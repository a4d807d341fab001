"""``--ssh`` of the commands that measure, against a real server on the loopback address."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from loopback_sshd import Sshd, serving
from onnx_models import written
from small_project import sentence
from torch import nn

from edgeprune.commands.targets.calibration import calibrate
from edgeprune.commands.targets.grid import grid
from edgeprune.commands.targets.measuring_there import GridThere
from edgeprune.devices.connection import connected
from edgeprune.targets import load_target
from edgeprune.targets.profile import is_arm

THERE = "measured on target"
TARGET_STATUS = 9


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd") / "device") as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for 8 bits to make the file smaller."""
    layers = [
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 4),
    ]
    return written(nn.Sequential(*layers), tmp_path_factory.mktemp("model") / "model.onnx", (1, 8, 8))


def test_profile_measures_there(sshd: Sshd, model: Path, edgeprune: Any) -> None:
    arguments = ["--target", "rpi4", "--threads", "1", "--baseline", str(model), *sshd.arguments, "--json"]
    done = edgeprune("profile", str(model), *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for figures in (result["figures"], result["baseline"]):
        assert figures["latency"]["provenance"] == THERE
        assert figures["latency"]["latency_p50_ms"] > 0
        assert figures["peak_memory_bytes"] > 0
    assert result["figures"]["latency"]["machine"].startswith(sshd.destination)
    assert result["latency_ratio"]["provenance"] == THERE
    assert 0.3 < result["latency_ratio"]["ratio"] < 3
    assert result["prediction"] is None
    assert sshd.left_over() == []


@pytest.mark.wide
def test_compress_searches_by_times_from_there(sshd: Sshd, tmp_path: Path, edgeprune: Any) -> None:
    done = edgeprune(
        "compress", "small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", "--threads", "1",
        "--width-quantum", "1", "--effort", "quick", "--max-latency", "400%", "--ratio", "0.5",
        "--target", "rpi4", *sshd.arguments, "-o", str(tmp_path / "out"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {candidate["latency_provenance"] for candidate in report["budget"]["candidates"]} == {THERE}
    deployment = report["deployment"]
    assert deployment["compressed"]["latency"]["provenance"] == THERE
    assert deployment["latency_ratio"]["provenance"] == THERE
    assert deployment["compressed_prediction"] is None
    assert THERE in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert sshd.left_over() == []


@pytest.mark.wide
def test_quantize_auto_decides_by_times_from_there(
    sshd: Sshd, model: Path, tmp_path: Path, edgeprune: Any
) -> None:
    done = edgeprune(
        "quantize", str(model), "--calibration", "grey.npz", "--precision", "auto",
        "--max-images", "32", "--threads", "1", "--target", "rpi4", *sshd.arguments,
        "-o", str(tmp_path / "auto.onnx"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["details"]["measured"] > 0
    assert result["latency_ratio"]["provenance"] == THERE
    assert not any("from here" in note for note in result["notes"])
    assert sshd.left_over() == []


def test_a_model_that_cannot_be_run_there_is_named(sshd: Sshd, tmp_path: Path, edgeprune: Any) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    done = edgeprune("profile", str(broken), "--target", "rpi4", *sshd.arguments)
    assert "broken.onnx" in sentence(done, 10)


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["--ssh", "pi@127.0.0.1:1"], 2, "without --target"),
        (["--ssh", "pi@127.0.0.1:1", "--target", "rpi4"], 14, "refuses connections"),
        (["--ssh", "a b", "--target", "rpi4"], 2, "user@host"),
        (["--ssh-port", "22", "--target", "rpi4"], 2, "without --ssh"),
        (["--ssh", "pi@a", "--adb", "1", "--target", "rpi4"], 2, "both --ssh and --adb"),
    ],
)
def test_a_device_that_cannot_be_used(
    model: Path, edgeprune: Any, arguments: list[str], status: int, named: str
) -> None:
    assert named in sentence(edgeprune("profile", str(model), "-q", *arguments), status)


def test_a_profile_of_another_processor_is_noticed(
    sshd: Sshd, model: Path, tmp_path: Path, edgeprune: Any
) -> None:
    """Times are told as not to be trusted; tables are not made of them."""
    other, same = ("n100", "rpi4") if is_arm(platform.machine()) else ("rpi4", "n100")
    for target in (other, same):
        done = edgeprune("profile", str(model), "--target", target, "--threads", "1", *sshd.arguments)
        assert done.returncode == 0, done.stderr
        assert (f"while the target {other} has" in done.stdout) is (target == other)
    done = edgeprune(
        "targets", "calibrate", "mine", "--target", other, *sshd.arguments, "-o", str(tmp_path / "mine.toml")
    )
    assert (done.returncode, done.stdout) == (TARGET_STATUS, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert f"while the target {other} has" in last
    assert not (tmp_path / "mine.toml").exists()
    assert sshd.left_over() == []


def test_a_device_is_calibrated_over_its_connection(sshd: Sshd, tmp_path: Path) -> None:
    """By a part of the grid, in which one file is none that can be run there."""
    facts = load_target("rpi4" if is_arm(platform.machine()) else "n100")
    points = [point for point in grid() if point.family == "pointwise"][:4]
    unknown = onnx.load(written(nn.Flatten(), tmp_path / "flatten.onnx", (1, 8, 8)))
    unknown.graph.node[0].op_type = "NoSuchOperator"
    broken = tmp_path / "broken.onnx"
    onnx.save(unknown, broken)
    with connected(sshd.options) as device:
        assert device is not None
        there = GridThere(device=device, facts=facts)
        there.check()
        profile = calibrate("mine", there, points=points)
        good = written(nn.Flatten(), tmp_path / "good.onnx", (1, 8, 8))
        times = there.measure([good, broken], 1)
    assert times[1] is None
    assert times[0] is not None
    assert times[0].time_ms > 0
    found = profile.calibration
    assert found is not None
    assert found.machine.startswith(sshd.destination)
    assert found.runtime.startswith("onnxruntime 1.")
    assert found.measurements >= 2
    assert found.nodes >= len(points), "shares of single nodes came from there"
    assert (profile.cores, profile.isa) == (facts.cores, facts.isa)
    assert sshd.left_over() == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((), "where to measure was not said"),
        (("--host", "--target", "rpi4"), "--target was given with --host"),
        (("--ssh", "pi@board"), "--ssh was given without --target"),
        (("--host", "--ssh", "pi@board", "--target", "rpi4"), "both this machine (--host) and a device"),
        (("--identity", "key"), "--identity was given without --ssh"),
    ],
)
def test_where_to_calibrate_is_said_once(more: tuple[str, ...], told: str, edgeprune: Any) -> None:
    assert told in sentence(edgeprune("targets", "calibrate", "mine", *more), 2)
