"""Processes of the measuring script: how many, what is made of their runs, and what goes wrong in them."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring_jobs import convolution, measured_there

from edgeprune.devices.connection import SCRIPT_NAMES, script_text
from edgeprune.devices.protocol import (
    MeasurementFailure,
    MeasurementJob,
    MeasurementResult,
    ModelJob,
    from_json,
)
from edgeprune.devices.script.sampling import pooled


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convolution(tmp_path_factory.mktemp("models") / "first.onnx", 8)


def runs_of(slowness: float, memory_bytes: int | None, *, seed: int = 0) -> dict[str, Any]:
    """What one process tells of a model that takes a millisecond, ``slowness`` times as long in this one."""
    times = slowness * np.random.default_rng(seed).normal(1e6, 1e3, size=50)
    return {
        "wall_ns": times.tolist(), "cpu_ns": times.tolist(),
        "first_run_ms": slowness, "load_ms": 2 * slowness,
        "peak_memory_bytes": memory_bytes, "warmup": 8, "operators": [{"op_type": "Conv", "share": 1.0}],
    }  # fmt: skip


@given(slow=st.lists(st.floats(1.1, 3.0), max_size=2), memory=st.one_of(st.none(), st.integers(0, 9)))
@settings(max_examples=20)
def test_two_processes_of_five_that_are_slow_do_not_decide(slow: list[float], memory: int | None) -> None:
    even = 5 - len(slow)
    runs = [runs_of(factor, memory) for factor in slow] + [runs_of(1.0, None, seed=n) for n in range(even)]
    found = pooled(runs)
    assert found["latency_p50_ms"] == pytest.approx(1, abs=0.01)
    assert found["cpu_time_p50_ms"] == pytest.approx(1, abs=0.01)
    assert (found["first_run_ms"], found["load_ms"]) == (1, 2)
    assert found["peak_memory_bytes"] == (memory if slow else None)
    assert (found["processes"], found["repetitions"], found["warmup"]) == (5, 250, 40)


def test_a_model_alone_is_run_in_several_processes(model: Path, tmp_path: Path) -> None:
    one = measured_there(model, tmp_path, processes=1, warmup_limit_s=0.1).models["m"]
    three = measured_there(model, tmp_path, processes=3, warmup_limit_s=0.1).models["m"]
    assert (one.processes, three.processes) == (1, 3)
    assert three.warmup > one.warmup


@pytest.mark.parametrize(
    ("edits", "limit_s"),
    [
        ({"_MORE_PROCESSES_S = 10.0": "_MORE_PROCESSES_S = 0.0"}, None),
        ({"import sampling": "import time; time.sleep(1.0); import sampling"}, 4.0),
    ],
    ids=["it took long", "the time is over"],
)
def test_no_more_processes_than_there_is_time_for(
    edits: dict[str, str], limit_s: float | None, model: Path, tmp_path: Path
) -> None:
    more = {"processes": 99, "time_limit_s": limit_s, "warmup_limit_s": 0.1}
    found = measured_there(model, tmp_path, edits, **more)
    assert isinstance(found, MeasurementResult), found
    assert 1 <= found.models["m"].processes < 9


def test_a_job_is_one_process_for_all_where_asked(model: Path, tmp_path: Path) -> None:
    told = measured_there(model, tmp_path, fresh_process=False, processes=5)
    assert isinstance(told, MeasurementResult)
    assert told.models["m"].repetitions >= 2
    assert told.models["m"].processes == 1
    assert (told.models["m"].operators, told.noise, told.pairs) == ((), None, ())
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == ["job.json", "result.json"]


@pytest.mark.parametrize(
    "job",
    ["{", "[]", "{}", '{"schema": 1}', {"processes": None}, {"processes": "many"}, {"samples": 0},
     {"samples": -1}, {"pairs": 3}, {"models": [], "noise_check": True}, {"time_limit_s": "5"},
     {"time_limit_s": math.nan}],
    ids=str,
)  # fmt: skip
def test_a_job_that_is_none_ends_with_a_sentence_and_replaces_an_old_result(
    job: str | dict[str, Any], model: Path, tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text("of before")
    whole = json.loads(MeasurementJob(threads=1, models=(ModelJob(name="m", file="m.onnx"),)).to_json())
    whole |= {"samples": 1, "warmup_limit_s": 0.1}
    text = job if isinstance(job, str) else json.dumps(whole | job)
    for name in SCRIPT_NAMES:
        (tmp_path / name).write_text(script_text(name), encoding="utf-8")
    shutil.copy(model, tmp_path / "m.onnx")
    (tmp_path / "job.json").write_text(text)
    done = subprocess.run(
        [sys.executable, "measure.py", "job.json", "result.json"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count(b"error: ")) == (3, 1), done.stderr
    assert b"Traceback" not in done.stderr
    assert isinstance(from_json((tmp_path / "result.json").read_bytes()), MeasurementFailure)


@pytest.mark.parametrize("said", ["", "print('zzz')", "print()"])
@pytest.mark.parametrize("status", [0, 3])
def test_a_process_that_says_nothing_is_told(said: str, status: int, model: Path, tmp_path: Path) -> None:
    stopped = (
        f"import sys\nif '--part' in sys.argv:\n    {said or 'pass'}\n    sys.exit({status})\nimport sampling"
    )
    told = measured_there(model, tmp_path, {"import sampling": stopped})
    assert isinstance(told, MeasurementFailure)
    assert "ended without a result" in told.message


of_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel tells children of the end of their parent"
)


def processes(mark: str) -> list[str]:
    """Those with ``mark`` in their command."""
    return subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True, check=False).stdout.split()


@of_linux
def test_a_model_is_measured_no_longer_than_the_script_lives(model: Path, tmp_path: Path) -> None:
    mark = f"{uuid.uuid4().hex}-job.json"
    for name in SCRIPT_NAMES:
        (tmp_path / name).write_text(script_text(name), encoding="utf-8")
    shutil.copy(model, tmp_path / "m.onnx")
    job = MeasurementJob(threads=1, models=(ModelJob(name="m", file="m.onnx"),), samples=100_000)
    (tmp_path / mark).write_bytes(job.to_json())

    with subprocess.Popen([sys.executable, "measure.py", mark, "result.json"], cwd=tmp_path) as script:
        wait_for(lambda: len(processes(mark)) == 2)
        script.kill()
    wait_for(lambda: not processes(mark))


@of_linux
def test_nothing_measures_here_once_edgeprune_was_killed(model: Path, tmp_path: Path) -> None:
    """As by the kernel when memory is short: no handler runs."""
    mark = f"{uuid.uuid4().hex}.onnx"
    shutil.copy(model, tmp_path / mark)
    program = (
        "import sys; from pathlib import Path; from edgeprune.devices.host import HostDevice\n"
        "from edgeprune.devices.protocol import MeasurementJob, ModelJob\n"
        "name = sys.argv[1]; models = (ModelJob(name=name, file=name),)\n"
        "job = MeasurementJob(threads=1, models=models, samples=100_000)\n"
        "HostDevice().measure(job.to_json(), {name: Path(name)}, time_limit_s=600)"
    )

    with subprocess.Popen([sys.executable, "-c", program, mark], cwd=tmp_path) as own:
        wait_for(
            lambda: len(processes(mark)) == 2
        )  # the parts have it in their arguments, the script has not
        own.kill()
    wait_for(lambda: not processes(mark))


def wait_for(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.05)
