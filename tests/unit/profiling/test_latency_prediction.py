"""The roofline on work with known arithmetic."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgeprune.artifacts.latency import Provenance
from edgeprune.errors import ProfileError, TargetError, UsageError
from edgeprune.profiling.prediction import predict_nodes, predict_work
from edgeprune.profiling.work import OpKind, OpWork
from edgeprune.targets import TargetProfile, list_targets, load_target

DEVICES = tuple(name for name in list_targets() if name != "host")


def op(kind: OpKind = OpKind.CONV, macs: int = 0, moved: int = 0, op_type: str = "Conv") -> OpWork:
    return OpWork(op_type=op_type, name="n", kind=kind, macs=macs, bytes_moved=moved)


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


def test_a_quantized_model_is_refused() -> None:
    with pytest.raises(ProfileError, match="fp32 models, and this one has DequantizeLinear"):
        predict_work([op(op_type="DequantizeLinear", kind=OpKind.MEMORY)], device())
