"""Small outputs for the tests of ``compare`` and ``check``: an ONNX file and a report of a few figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sweep_cells import report_of
from synthetic_report import synthetic_report

from edgeprune.artifacts.latency import Provenance
from edgeprune.artifacts.report import AnswerCounts
from edgeprune.gate.decisions import judged
from edgeprune.gate.outcomes import (
    Check,
    Comparison,
    Decision,
    Difference,
    GateResult,
    Interval,
    Metric,
    ModelFacts,
    OnInconclusive,
    QualityFacts,
    RoundsRatio,
    Unit,
)
from edgeprune.reporting.json_report import write_json
from edgeprune.reporting.sweep.facts import CellState
from edgeprune.reporting.sweep.files import sweep_to_json


def tiny_onnx(path: Path, width: int = 8, seed: int = 0) -> Path:
    """Two products of matrices with a hidden layer of ``width``."""
    rng = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("a", (16, width)), ("b", (width, 4)))
    ]
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 16))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))
    graph = helper.make_graph(nodes, "tiny", [given], [result], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def open_onnx(path: Path, channels: int = 4) -> Path:
    """A convolution over images of whatever size."""
    weights = np.random.default_rng(0).standard_normal((channels, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("GlobalMaxPool", ["h"], ["y"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, "height", "width"))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", channels, 1, 1))
    constants = [numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(nodes, "open", [given], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def tiny_output(folder: Path, *, width: int = 8, lost: int = 3, images: int = 1000, seed: int = 0) -> Path:
    """An output folder whose network gives ``lost`` of the original's right answers no more."""
    folder.mkdir(parents=True, exist_ok=True)
    path = tiny_onnx(folder / "model.onnx", width, seed)
    report = synthetic_report()
    assert report.usability is not None
    right = images * 9 // 10
    answers = AnswerCounts(images=images, kept_from=right, lost=lost, gained=0)
    first, last = report.accuracy[0], report.accuracy[-1]
    accuracy = (
        replace(first, value=right / images, low=right / images - 0.02, high=right / images + 0.02),
        replace(last, value=(right - lost) / images, low=0.0, high=1.0),
    )
    figures = replace(report.deployment.compressed, size_bytes=path.stat().st_size)
    deployment = replace(
        report.deployment, compressed=figures, original_prediction=None, compressed_prediction=None
    )
    write_json(
        replace(
            report,
            usability=replace(report.usability, answers=answers),
            model=replace(report.model, sha256="0" * 64),
            accuracy=accuracy,
            deployment=deployment,
        ),
        folder / "report.json",
    )
    return folder


def sweep_folder(folder: Path, widths: dict[str, int], failed: tuple[str, ...] = ()) -> Path:
    """A sweep whose cells are networks of these widths."""
    for name, width in widths.items():
        tiny_output(folder / "cells" / name, width=width)
    states = dict.fromkeys(widths, CellState.DONE) | dict.fromkeys(failed, CellState.FAILED)
    folder.mkdir(exist_ok=True)
    (folder / "sweep.json").write_text(sweep_to_json(report_of(states)))
    return folder


def synthetic_gate(asked: OnInconclusive = OnInconclusive.REPORT) -> GateResult:
    """A check of each outcome, with names that need escapes everywhere."""
    rounds = RoundsRatio(
        ratio=1.101, low=1.072, high=1.131, limit=1.05, rounds=31, pairs=186, threads=1, duration_s=6.25,
        decision=Decision.FAILED,
    )  # fmt: skip
    latency = judged("max_latency_ratio", Interval.of(1.101, 1.072, 1.131), 1.05, "CPU time, 31 rounds")
    checks: tuple[Check, ...] = (
        judged("max_size_bytes", Interval.exact(61_440), 1_200_000, "size of the ONNX file"),
        judged("max_drop_points", Interval.of(0.56, -0.29, 2.31), 2.0, "a | <b>b</b>, 100%: `x`\n::error::"),
        replace(latency, rounds=rounds, decision=Decision.FAILED),
    )  # fmt: skip
    return GateResult(
        subject="out/<i>a|b</i>\x1b[31m",
        baseline="main, 50%",
        checks=checks,
        on_inconclusive=asked,
        notes=("max_memory_ratio was not checked: no figure.",),
    )


def synthetic_comparison() -> Comparison:
    """A model with everything known, one with an interval of its latency, and one with nothing."""
    quality = QualityFacts(
        measure="top-1 accuracy", is_share=True, is_error=False, figure=Interval.of(0.98, 0.96, 0.99),
        images=360, lost=Interval.of(0.5, -0.3, 2.3), paired=True,
    )  # fmt: skip
    first = ModelFacts(
        name="a|<b>", size_bytes=61_440, parameters=14_200, macs=3_620_000, memory_bytes=5_500_000,
        latency_ms=Interval.of(1.1, 0.55, 2.2), latency_of="rpi4", provenance=Provenance.PREDICTED,
        quality=quality, agreement=Interval.of(0.989, 0.971, 0.996),
    )  # fmt: skip
    second = replace(first, name="b", size_bytes=30_720, agreement=None)
    third = replace(
        first, name="c", memory_bytes=None, latency_ms=None, provenance=None, quality=None, agreement=None
    )
    points = Difference(
        metric=Metric.QUALITY, unit=Unit.POINTS, change=Interval.of(-3.0, -5.0, -1.0), basis="paired"
    )
    smaller = Difference(metric=Metric.SIZE, unit=Unit.RATIO, change=Interval.exact(0.5), basis="exact")
    slower = Difference(
        metric=Metric.LATENCY, unit=Unit.RATIO, change=Interval.of(1.2, 1.1, 1.3), basis="pairs"
    )
    return Comparison(
        models=(first, second, third), differences=((smaller, points), (slower,)), notes=("A note & more.",)
    )
