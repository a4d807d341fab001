"""Time by operator: every operator once, with its nodes, and a file that cannot run is one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.artifacts.latency import Provenance
from edgeprune.errors import ProfileError
from edgeprune.profiling.operators import MOST_RUNS, operator_times


def chain(path: Path, operators: tuple[str, ...], *, height: int | str = 8) -> Path:
    """A file that applies operators with one input each, and multiplies matrices at the end."""
    names = ["x", *(f"t{i}" for i in range(len(operators)))]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(operators)]
    nodes.append(helper.make_node("MatMul", [names[-1], "w"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", height, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", height, 4])],
        [numpy_helper.from_array(np.ones((8, 4), np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_every_operator_once_with_its_nodes(tmp_path: Path) -> None:
    before = chain(tmp_path / "a.onnx", ("Sin", "Cos", "Sin", "Cos", "Sin"))
    after = chain(tmp_path / "b.onnx", ("Sin",))
    times = operator_times(before, after, threads=1, batch_size=2)
    assert {row.operator: row.nodes for row in times.original} == {"Sin": 3, "Cos": 2, "MatMul": 1}
    assert {row.operator: row.nodes for row in times.compressed} == {"Sin": 1, "MatMul": 1}
    assert all(row.time_ms >= 0 for row in (*times.original, *times.compressed))
    assert [row.time_ms for row in times.original] == sorted(
        (row.time_ms for row in times.original), reverse=True
    )
    assert 3 <= times.runs <= MOST_RUNS
    assert times.provenance is Provenance.MEASURED_ON_HOST


def test_a_file_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    good = chain(tmp_path / "a.onnx", ("Sin",))
    (tmp_path / "b.onnx").write_bytes(b"no model")
    with pytest.raises(ProfileError, match=r"b\.onnx: onnxruntime cannot time its nodes"):
        operator_times(good, tmp_path / "b.onnx", threads=1)
    with pytest.raises(ProfileError, match=r"c\.onnx: dimension 1 of input 'x' is dynamic"):
        operator_times(chain(tmp_path / "c.onnx", ("Sin",), height="rows"), good, threads=1)
