"""Work is that of the graph which onnxruntime runs: fused, in 8 bits where its kernels are, by processor."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import ProfileError
from edgeprune.profiling.kinds import OpKind
from edgeprune.profiling.runtime.graph import Kernels, RuntimeWork, kernels_of, runtime_work
from edgeprune.profiling.work import total_macs
from edgeprune.targets import load_target

ARM = Kernels(signed=True, blocked=False)
X86 = Kernels(signed=False, blocked=True)


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(0).normal(size=shape).astype(np.float32), name)


def saved(path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], size: int = 16) -> Path:
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def network(path: Path) -> Path:
    """Conv 3->12, BN, Relu; depthwise; 1x1 to 20; pool; Flatten; Gemm."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="c1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "s", "s", "s", "v"], ["n1"], name="n1"),
        helper.make_node("Relu", ["n1"], ["r1"], name="r1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="c2", group=12, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c2", "w3"], ["c3"], name="c3"),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"], name="p"),
        helper.make_node("Flatten", ["p"], ["f"], name="f"),
        helper.make_node("Gemm", ["f", "w4"], ["y"], name="g", transB=1),
    ]
    ones = numpy_helper.from_array(np.ones(12, np.float32), "v")
    given = [weights("w1", 12, 3, 3, 3), weights("s", 12), ones, weights("w2", 12, 1, 3, 3)]
    return saved(path, nodes, [*given, weights("w3", 20, 12, 1, 1), weights("w4", 5, 20)])


def in_8_bits(path: Path, signed: bool) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Once(CalibrationDataReader):  # type: ignore[misc]
        left = 1

        def get_next(self) -> dict[str, np.ndarray] | None:
            self.left -= 1
            return (
                {"x": np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)}
                if self.left >= 0
                else None
            )

    made = path.with_name(f"int8-{signed}.onnx")
    quantize_static(
        str(path), str(made), Once(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("runtime") / "model.onnx")


@pytest.fixture(scope="module")
def quantized(plain: Path) -> Path:
    return in_8_bits(plain, signed=True)


def kinds(work: RuntimeWork) -> list[OpKind]:
    return [op.kind for op in work.operations if op.kind is not OpKind.FREE]


def test_fused_nodes_count_once_and_macs_stay(plain: Path) -> None:
    work = runtime_work(plain, ARM)
    assert work.note == ""
    assert kinds(work) == [
        OpKind.CONV, OpKind.DEPTHWISE, OpKind.POINTWISE, OpKind.REDUCTION, OpKind.GEMM,
    ]  # fmt: skip
    assert sum(op.macs for op in work.operations) == total_macs(plain)
    first = work.operations[0]
    assert (first.rows, first.depth, first.columns, first.groups) == (12, 27, 256, 1)
    assert first.bytes_moved == 4 * (3 * 256 + 12 * 27 + 12 + 12 * 256)
    assert work.weight_bytes == 4 * (12 * 27 + 12 + 12 * 9 + 20 * 12 + 5 * 20)


def test_memory_by_liveness_is_that_of_the_two_largest_neighbours(plain: Path) -> None:
    # 12 channels of 16 x 16 before and behind the depthwise one, or 12 and 20 around the last convolution.
    assert runtime_work(plain, ARM).activation_bytes == 4 * 256 * (12 + 20)


def test_8_bits_run_as_such_with_borders_at_the_ends_on_arm(quantized: Path) -> None:
    work = runtime_work(quantized, ARM)
    assert work.note == ""
    counted = Counter((op.kind, op.integer) for op in work.operations)
    for kind in (OpKind.CONV, OpKind.DEPTHWISE, OpKind.POINTWISE, OpKind.GEMM):
        assert counted[kind, True] == 1
        assert counted[kind, False] == 0
    assert counted[OpKind.BORDER, True] >= 2
    assert work.weight_bytes < runtime_work(quantized.with_name("model.onnx"), ARM).weight_bytes


def test_the_blocked_layout_is_seen_where_it_is_asked_for(plain: Path) -> None:
    blocked = runtime_work(plain, X86)
    if not any(op.blocked for op in blocked.operations):
        pytest.skip("onnxruntime has no blocked layout on this processor")
    assert not any(op.blocked for op in runtime_work(plain, ARM).operations)
    assert blocked.note == ""
    # Channels are padded to whole blocks, and the padding is calculated, too.
    assert sum(op.macs for op in blocked.operations) >= total_macs(plain)


def test_a_changed_file_is_counted_anew(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx")
    before = runtime_work(path, ARM)
    saved(path, [helper.make_node("Conv", ["x", "w"], ["y"], name="only")], [weights("w", 4, 3, 1, 1)])
    assert len(runtime_work(path, ARM).operations) == 1
    assert len(before.operations) > 1


def test_what_onnxruntime_cannot_optimize_is_counted_as_it_is_and_says_so(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no optimizer today")

    path = tmp_path / "other.onnx"
    path.write_bytes(plain.read_bytes())
    monkeypatch.setattr(ort, "InferenceSession", refuse)
    with caplog.at_level(logging.WARNING):
        work = runtime_work(path, ARM)
    assert work.note == "counted on the file, not on what onnxruntime makes of it (no optimizer today)"
    assert "no optimizer today" in caplog.text
    assert sum(op.macs for op in work.operations) == total_macs(plain)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no ONNX file at"):
        runtime_work(tmp_path / "none.onnx", ARM)


def test_kernels_follow_the_instruction_set() -> None:
    assert kernels_of(load_target("rpi4")) == ARM
    assert kernels_of(load_target("host")).signed is load_target("host").isa.startswith(("arm", "aarch"))  # type: ignore[union-attr]
