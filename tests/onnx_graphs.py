"""ONNX files of one or a few nodes, and how an import of them is checked against onnxruntime."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeprune.fx import tensor_leaves
from edgeprune.loading.onnx_import import import_onnx

Node = tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]
"""Operator, inputs, outputs, attributes; the image is ``x``."""


def write(
    path: Path,
    nodes: Sequence[Node],
    constants: Mapping[str, Any],
    *,
    shape: Sequence[int | str] = (3, 8, 8),
    outputs: Mapping[str, int] | None = None,
    opset: int = 17,
    batch: int | str = "n",
    declared: Sequence[int | str] | None = None,
) -> Path:
    """A file of these nodes; ``outputs`` are names with their types, ``y`` in float32 unless told.

    ``declared`` is their shape, where the file says it.
    """
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])
    given = outputs or {"y": TensorProto.FLOAT}
    graph = helper.make_graph(
        [
            helper.make_node(op, list(read), list(written), name=f"n{number}", **attributes)
            for number, (op, read, written, attributes) in enumerate(nodes)
        ],
        "graph",
        [image],
        [helper.make_tensor_value_info(name, kind, declared) for name, kind in given.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8 if opset < 21 else 10,
    )
    onnx.save_model(model, str(path))
    return path


def write_one(
    path: Path,
    op: str,
    *constants: Any,
    attributes: Mapping[str, Any] | None = None,
    outputs: Mapping[str, int] | None = None,
    **options: Any,
) -> Path:
    """A file of one node that reads the image and these constants; ``None`` leaves an input out."""
    names = {f"c{i}": value for i, value in enumerate(constants) if value is not None}
    read = ["x", *(f"c{i}" if value is not None else "" for i, value in enumerate(constants))]
    node = (op, read, list(outputs or {"y": 0}), attributes or {})
    return write(path, [node], names, outputs=outputs, **options)


def check(path: Path, shape: Sequence[int] = (3, 8, 8), *, batch: int = 4, low: float = -2.0) -> Any:
    """Import a file and compare it with onnxruntime on another batch than the importer takes; the module."""
    module = import_onnx(path, tuple(shape)).module
    generator = np.random.default_rng(3)
    images = generator.uniform(low, 2.0, (batch, *shape)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fixed = session.get_inputs()[0].shape[0]
    parts = np.split(images, batch // fixed) if isinstance(fixed, int) else [images]
    runs = [session.run(None, {session.get_inputs()[0].name: part}) for part in parts]
    expected = [np.concatenate(several) for several in zip(*runs, strict=True)]
    with torch.no_grad():
        given = [tensor.numpy() for tensor in tensor_leaves(module(torch.from_numpy(images)))]
        exact = tensor_leaves(copy.deepcopy(module).double()(torch.from_numpy(images).double()))
    assert [g.shape for g in given] == [e.shape for e in expected]
    for mine, its, true in zip(given, expected, exact, strict=True):
        # Deep networks of random weights enlarge rounding, as our own run in single precision shows.
        rounding = float(np.abs(mine - true.numpy()).max(initial=0.0))
        largest = max(1.0, float(np.abs(its).max()))
        np.testing.assert_allclose(
            mine, its, rtol=1e-4, atol=1e-4 * largest + 4 * min(rounding, 1e-3 * largest)
        )
    return module
