"""Models, jobs and results of the measuring script, as on a device."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.devices.connection import SCRIPT_NAMES, script_text
from edgeprune.devices.protocol import MeasurementJob, ModelJob, from_json

Edit = Callable[[dict[str, Any]], None]


def convolution(path: Path, channels: int) -> Path:
    weight = np.random.default_rng(0).standard_normal((channels, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="c")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def edit(path: Path, change: Edit) -> None:
    told = json.loads(path.read_text(encoding="utf-8"))
    change(told)
    path.write_text(json.dumps(told), encoding="utf-8")


def measured_there(model: Path, folder: Path, edits: dict[str, str] | None = None, **more: Any) -> Any:
    """A job of one model run by the script, from the folder of a device; ``edits`` of its text."""
    for name in SCRIPT_NAMES:
        text = script_text(name)
        for old, new in (edits or {}).items():
            text = text.replace(old, new)
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copy(model, folder / "m.onnx")
    job = MeasurementJob(threads=1, models=(ModelJob(name="m", file="m.onnx"),), samples=2, **more)
    (folder / "job.json").write_bytes(job.to_json())
    done = subprocess.run(
        [sys.executable, "measure.py", "job.json", "result.json"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert (done.returncode == 0) == (b"error: " not in done.stderr), done.stderr
    return from_json((folder / "result.json").read_bytes())
