"""Models that never end, through each command that runs one: by a limit on time and by Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from bad_onnx import network
from onnx import ModelProto, TensorProto, helper, numpy_helper
from small_project import environment, interruptible, leftovers, run, run_forked, run_in_turn, sentence

from edgeprune.errors import UsageError
from edgeprune.onnx_io.session import TooLongError, within

STATUSES = {"profile": 10, "quantize": 13, "verify": 10}
ENDS_S = 60
"""Far from the end of a loop, however busy the machine is."""


def endless(*, nodes: bool = True) -> ModelProto:
    """The small network with a loop behind its convolution that never ends, with nodes inside or without."""
    model = network()
    ends = [
        helper.make_tensor_value_info(f"{name}_{end}", kind, [] if name == "go" else None)
        for end in ("in", "out" if nodes else "in")
        for name, kind in (("go", TensorProto.BOOL), ("value", TensorProto.FLOAT))
    ]
    inside = [
        helper.make_node("Identity", ["go_in"], ["go_out"]),
        helper.make_node("Relu", ["value_in"], ["value_out"]),
    ]
    count = helper.make_tensor_value_info("count", TensorProto.INT64, [])
    body = helper.make_graph(inside if nodes else [], "body", [count, *ends[:2]], ends[2:])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    model.graph.node[1].CopyFrom(helper.make_node("Loop", ["", "go", "conv"], ["relu"], "loop", body=body))
    return model


def slow_to_load() -> ModelProto:
    """The network with a product of constants, which is calculated before any run."""
    model = network()
    size = numpy_helper.from_array(np.array([6000, 6000]), "size")
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1e-4])
    products = [helper.make_node("MatMul", [f"c{i}", f"c{i}"], [f"c{i + 1}"]) for i in range(20)]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["size"], ["c0"], value=value),
            *products,
            helper.make_node("ReduceMax", ["c20"], ["shift"], keepdims=0),
            *rest,
            helper.make_node("Add", ["scores", "shift"], ["y"], name="shift"),
        ]
    )
    rest_end = next(node for node in model.graph.node if node.name == "gemm")
    rest_end.output[0] = "scores"
    model.graph.initializer.append(size)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", images=images, labels=np.arange(40) % 4)
    for name, model in {
        "good": network(),
        "endless": endless(),
        "bare": endless(nodes=False),
        "slow": slow_to_load(),
    }.items():
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    return tmp_path


def commands(name: str) -> dict[str, tuple[str, ...]]:
    data = ("--calibration", "grey.npz", "--mean", "0", "--std", "1", "--threads", "1")
    return {
        "profile": ("profile", name, "--threads", "1"),
        "quantize": ("quantize", name, *data, "-o", "out.onnx"),
        "verify": ("verify", "good.onnx", name, *data),
    }


def test_a_loop_without_end_and_constants_without_end_are_ended(folder: Path) -> None:
    asked = [
        (command, (*arguments, "--timeout", "0.5s"))
        for name in ("endless.onnx", "slow.onnx")
        for command, arguments in commands(name).items()
    ]
    for command, arguments in asked:
        began = time.monotonic()
        done = run_forked(*arguments, cwd=folder, scratch=folder / "scratch")
        assert time.monotonic() - began < ENDS_S
        said = sentence(done, STATUSES[command])
        assert "took longer than 0.5 s; allow more with --timeout if it ends at all" in said
        assert re.search("one run of the model|loading the model|calculating its constants", said)
    assert not (folder / "out.onnx").exists()
    assert leftovers(folder / "scratch") == []


def test_a_loop_that_looks_at_no_request_ends_with_the_process(folder: Path) -> None:
    began = time.monotonic()
    done = run("profile", "bare.onnx", "--timeout", "0.5s", cwd=folder, scratch=folder / "scratch")
    assert time.monotonic() - began < ENDS_S
    assert "one run of the model took longer than 0.5 s" in sentence(done, 10)


@pytest.mark.parametrize("command", ["profile", pytest.param("quantize", marks=pytest.mark.wide)])
def test_ctrl_c_ends_a_loop_without_end(folder: Path, command: str) -> None:
    with interruptible():
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeprune", *commands("endless.onnx")[command], "-v"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment(folder / "scratch"),
        )
    try:
        _wait_until_it_runs(process.pid)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=ENDS_S)
    finally:
        process.kill()
    assert (process.returncode, printed) == (130, ""), said
    assert said.splitlines()[-1] == "interrupted: nothing was written"


def _wait_until_it_runs(pid: int) -> None:
    """Until the command is past importing: a thread of it has used two seconds in a row."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        threads = Path(f"/proc/{pid}/task")
        spent = [_cpu_ticks(task) for task in threads.iterdir() if task.name != str(pid)]
        if max(spent, default=0) > os.sysconf("SC_CLK_TCK"):
            return
        time.sleep(0.1)
    raise AssertionError("the command does not run the model")


def _cpu_ticks(task: Path) -> int:
    return int((task / "stat").read_text().rpartition(")")[2].split()[11])


@pytest.mark.parametrize("given", ["0s", "-1s", "5", "soon", "nan s", "inf s", "1e3s", ""])
def test_what_is_no_time_is_refused(folder: Path, given: str) -> None:
    asked = [(*arguments, f"--timeout={given}") for arguments in commands("good.onnx").values()]
    for done in run_in_turn(asked, cwd=folder, scratch=folder / "scratch"):
        assert sentence(done, 2).startswith("error: --timeout")


@pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
def test_python_refuses_it_too(folder: Path, given: float) -> None:
    from edgeprune import api

    with pytest.raises(UsageError, match="accepted is a number of seconds, above 0"):
        api.profile(folder / "good.onnx", timeout_s=given)


def test_what_ends_in_time_gives_its_result_or_its_exception() -> None:
    def fails() -> int:
        raise ValueError("no")

    stopped: list[int] = []
    ended = threading.Event()
    asked = {"stop": lambda: (stopped.append(1), ended.set()), "what": "it"}
    assert within(lambda: 3, 60.0, **asked) == within(lambda: 3, None, **asked) == 3
    with pytest.raises(ValueError, match="no"):
        within(fails, 60.0, **asked)
    assert stopped == []
    with pytest.raises(TooLongError, match=r"it took longer than 0\.2 s"):
        within(ended.wait, 0.2, **asked)
    assert stopped == [1]
