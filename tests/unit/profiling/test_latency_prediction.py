"""The roofline on work with known arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgeprune.artifacts.latency import Provenance
from edgeprune.errors import ProfileError, TargetError, UsageError
from edgeprune.profiling.kinds import OpKind, OpWork
from edgeprune.profiling.prediction import predict_nodes, predict_runtime, predict_work
from edgeprune.profiling.runtime.graph import RuntimeWork
from edgeprune.targets import IntegerRoofline, TargetProfile, list_targets, load_target

DEVICES = tuple(name for name in list_targets() if name != "host")


def op(
    kind: OpKind = OpKind.CONV, macs: int = 0, moved: int = 0, op_type: str = "Conv", integer: bool = False
) -> OpWork:
    return OpWork(op_type=op_type, name="n", kind=kind, macs=macs, bytes_moved=moved, integer=integer)


EIGHT = IntegerRoofline(
    conv_efficiency=0.25, depthwise_efficiency=0.05, gemm_efficiency=0.125, error_low_factor=0.25,
    error_high_factor=4.0, error_reason="made up for a test",
)  # fmt: skip


def device(**changes: Any) -> TargetProfile:
    """One GHz, one pipe of four lanes: 8 GFLOP/s a core; 2 GB/s; half of the peak; no overhead."""
    base = load_target("rpi4")
    assert base.roofline is not None
    simple: dict[str, Any] = {
        "clock_ghz": 1.0,
        "memory_bandwidth_gb_per_s": 2.0,
        "conv_efficiency": 0.5,
        "depthwise_efficiency": 0.1,
        "gemm_efficiency": 0.25,
        "parallel_efficiency": 0.5,
        "dispatch_overhead_us": 0.0,
        "error_low_factor": 0.5,
        "error_high_factor": 3.0,
        "int8": EIGHT,
    }
    return dataclasses.replace(base, roofline=dataclasses.replace(base.roofline, **(simple | changes)))


@pytest.mark.parametrize(
    ("work", "milliseconds"),
    [
        (op(macs=2_000_000), 1.0),
        (op(OpKind.DEPTHWISE, macs=400_000), 1.0),
        (op(OpKind.GEMM, macs=1_000_000), 1.0),
        (op(OpKind.MEMORY, moved=2_000_000), 1.0),
        (op(macs=2_000_000, moved=6_000_000), 3.0),
        (op(OpKind.FREE), 0.0),
    ],
)
def test_a_node_takes_the_longer_of_arithmetic_and_traffic(work: OpWork, milliseconds: float) -> None:
    assert predict_work([work], device(), threads=1).latency_ms == pytest.approx(milliseconds)


def test_overhead_falls_on_every_node_that_runs_and_no_other() -> None:
    work = [op(OpKind.MEMORY), op(OpKind.FREE), op(OpKind.MEMORY)]
    assert predict_work(work, device(dispatch_overhead_us=500.0), threads=1).latency_ms == pytest.approx(1.0)
    assert len(predict_nodes(work, device(), threads=1)) == 2


def test_threads_speed_up_arithmetic_by_the_parallel_efficiency_and_not_traffic() -> None:
    compute = op(macs=5_000_000)
    traffic = op(OpKind.MEMORY, moved=2_000_000)
    assert predict_work([compute], device(), threads=1).latency_ms == pytest.approx(2.5)
    assert predict_work([compute], device(), threads=4).latency_ms == pytest.approx(1.0)
    assert predict_work([traffic], device(), threads=4).latency_ms == pytest.approx(1.0)


def test_band_provenance_and_basis() -> None:
    found = predict_work([op(macs=2_000_000)], device(), threads=1)
    assert (found.low_ms, found.latency_ms, found.high_ms) == pytest.approx((0.5, 1.0, 3.0))
    assert found.provenance is Provenance.PREDICTED
    assert found.target == "rpi4"
    assert "not calibrated on a device" in found.basis
    assert "1 of 4 cores" in found.basis


def test_compute_bound_share_is_by_time() -> None:
    work = [op(macs=6_000_000, moved=1), op(OpKind.MEMORY, moved=2_000_000)]
    assert predict_work(work, device(), threads=1).compute_bound_share == pytest.approx(0.75)
    assert predict_work([op(OpKind.FREE)], device(), threads=1).compute_bound_share == 0.0


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", [OpKind.CONV, OpKind.DEPTHWISE, OpKind.GEMM])
def test_more_work_never_takes_less_time(name: str, kind: OpKind) -> None:
    target = load_target(name)
    times = [
        predict_work([op(kind, macs=macs, moved=macs // 10)], target).latency_ms
        for macs in (0, 10**4, 10**6, 10**8)
    ]
    assert times == sorted(times)
    assert times[0] < times[-1]


@pytest.mark.parametrize("name", DEVICES)
def test_more_threads_never_take_longer(name: str) -> None:
    target = load_target(name)
    assert target.cores is not None
    times = [predict_work([op(macs=10**8)], target, threads=t).latency_ms for t in range(1, target.cores + 1)]
    assert times == sorted(times, reverse=True)


def test_the_host_is_measured_and_never_predicted() -> None:
    with pytest.raises(TargetError, match="measured, never predicted"):
        predict_work([op(macs=1)], load_target("host"))


@pytest.mark.parametrize("threads", [0, -1, 5])
def test_threads_beyond_the_cores_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match="give 1 to 4"):
        predict_work([op(macs=1)], device(), threads=threads)


def test_8_bits_are_refused_where_the_profile_says_nothing_of_them() -> None:
    target = device(int8=None)
    assert not target.predicts_int8
    with pytest.raises(ProfileError, match=r"says nothing of 8 bits, .* calibrate the device"):
        predict_work([op(macs=1, integer=True)], target)
    flags = op(OpKind.ELEMENTWISE, op_type="Where", moved=8, integer=True)
    assert predict_work([flags], target).latency_ms > 0.0, "bytes that are no 8-bit arithmetic"


@pytest.mark.parametrize(
    ("kind", "dot_product", "milliseconds"),
    [
        # 8 GFLOP/s of fp32 are 4 GMAC/s, so 8 GMAC/s of bytes without and 16 with a dot product.
        (OpKind.CONV, False, 2.0),
        (OpKind.POINTWISE, True, 1.0),
        (OpKind.DEPTHWISE, False, 10.0),
        (OpKind.GEMM, True, 2.0),
    ],
)
def test_8_bit_arithmetic_by_hand(kind: OpKind, dot_product: bool, milliseconds: float) -> None:
    target = dataclasses.replace(device(), dot_product=dot_product)
    found = predict_work([op(kind, macs=4_000_000, integer=True)], target, threads=1)
    assert found.latency_ms == pytest.approx(milliseconds)
    assert (found.low_ms, found.high_ms) == pytest.approx((milliseconds / 4, milliseconds * 4))
    assert "8 bits" in found.basis
    assert "made up for a test" in found.basis


@pytest.mark.parametrize("name", DEVICES)
def test_every_shipped_board_predicts_8_bits_and_dense_ones_no_slower_with_a_dot_product(name: str) -> None:
    target = load_target(name)
    assert target.predicts_int8
    plain, eight = (
        predict_work([op(macs=10**8, moved=10**6 // (4 if integer else 1), integer=integer)], target)
        for integer in (False, True)
    )
    if target.dot_product:
        assert eight.latency_ms <= plain.latency_ms


def test_kinds_add_up_to_the_whole_and_come_longest_first() -> None:
    work = [op(macs=10**6), op(macs=10**7), op(OpKind.POOL, moved=10**5), op(macs=10**6, integer=True)]
    found = predict_work(work, device(dispatch_overhead_us=3.0), threads=1)
    assert sum(row.latency_ms for row in found.kinds) == pytest.approx(found.latency_ms)
    assert [row.latency_ms for row in found.kinds] == sorted(
        (r.latency_ms for r in found.kinds), reverse=True
    )
    assert {(r.kind, r.in_8_bits, r.nodes) for r in found.kinds} == {
        ("convolution", False, 2), ("pooling", False, 1), ("convolution", True, 1),
    }  # fmt: skip


def test_what_does_not_fit_into_the_memory_is_said() -> None:
    work = RuntimeWork(operations=(op(macs=1),), weight_bytes=400 * 2**20, activation_bytes=200 * 2**20)
    found = predict_runtime(work, load_target("rpi-zero2"))
    assert found.fits is False
    assert found.memory_bytes == 600 * 2**20
    assert found.notes == (
        "does not fit into 512 MB of Raspberry Pi Zero 2 W: weights and values take 600 MB",
    )
    assert predict_runtime(work, load_target("rpi4")).fits is True
    assert predict_work(work.operations, load_target("rpi4")).fits is None


def test_energy_is_power_times_latency_with_all_cores_alone() -> None:
    target = dataclasses.replace(device(), power_w=6.0)
    all_cores = predict_work([op(macs=5_000_000)], target)
    assert all_cores.energy_mj == pytest.approx(6.0 * all_cores.latency_ms)
    assert predict_work([op(macs=1)], target, threads=1).energy_mj is None
    assert predict_work([op(macs=1)], dataclasses.replace(target, power_w=None)).energy_mj is None
