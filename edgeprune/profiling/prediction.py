"""Roofline prediction of fp32 latency on a device that is not at hand.

Every node that runs takes the longer of its arithmetic (2 x MACs over peak x efficiency) and its memory
traffic (bytes over bandwidth), plus a fixed dispatch overhead; a model takes the sum. Source of the
model: Williams, Waterman and Patterson 2009, "Roofline".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.artifacts.latency import LatencyPrediction, Provenance
from edgeprune.errors import ProfileError, TargetError, UsageError
from edgeprune.profiling.work import OpKind, OpWork, count_work
from edgeprune.targets import Roofline, TargetProfile

_QUANTIZED_OPS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)
_FLOPS_PER_MAC = 2


@dataclass(frozen=True, kw_only=True)
class NodePrediction:
    """Predicted time of one node: ``latency_ms`` is the longer of the two parts plus the overhead."""

    work: OpWork
    compute_ms: float
    memory_ms: float
    overhead_ms: float

    @property
    def latency_ms(self) -> float:
        """Time of the node."""
        return max(self.compute_ms, self.memory_ms) + self.overhead_ms


def predict(onnx_path: str | Path, target: TargetProfile, *, threads: int | None = None) -> LatencyPrediction:
    """Predicted latency of one input on ``target``; ``threads`` is by default that of the profile.

    Raises:
        ProfileError: the file cannot be read or counted, or is quantized.
        TargetError: the target is this host, which is measured and never predicted.
        UsageError: ``threads`` is not between 1 and the target's cores.
    """
    return predict_work(count_work(onnx_path), target, threads=threads)


def predict_work(
    work: Sequence[OpWork], target: TargetProfile, *, threads: int | None = None
) -> LatencyPrediction:
    """Predicted latency of counted work; see :func:`predict`.

    Raises:
        ProfileError: the model is quantized.
        TargetError: the target is this host.
        UsageError: ``threads`` is not between 1 and the target's cores.
    """
    roofline = _roofline(target)
    used = target.default_threads if threads is None else threads
    nodes = predict_nodes(work, target, threads=used)
    latency_ms = sum(node.latency_ms for node in nodes)
    compute_bound_ms = sum(n.latency_ms for n in nodes if n.compute_ms >= n.memory_ms)
    return LatencyPrediction(
        provenance=Provenance.PREDICTED,
        target=target.name,
        latency_ms=latency_ms,
        low_ms=latency_ms * roofline.error_low_factor,
        high_ms=latency_ms * roofline.error_high_factor,
        compute_bound_share=compute_bound_ms / latency_ms if latency_ms > 0 else 0.0,
        basis=(
            f"roofline of {target.display_name}, fp32, {used} of {target.cores} cores at "
            f"{roofline.clock_ghz} GHz, not calibrated on a device: {roofline.error_reason}"
            if not roofline.calibrated_on_device
            else f"roofline of {target.display_name}, fp32, {used} of {target.cores} cores, "
            f"calibrated on a device: {roofline.error_reason}"
        ),
    )


def predict_nodes(
    work: Sequence[OpWork], target: TargetProfile, *, threads: int
) -> tuple[NodePrediction, ...]:
    """Predicted time of every node that runs, in graph order; see :func:`predict`.

    Raises:
        ProfileError: the model is quantized.
        TargetError: the target is this host.
        UsageError: ``threads`` is not between 1 and the target's cores.
    """
    roofline = _roofline(target)
    if target.cores is None or not 1 <= threads <= target.cores:
        raise UsageError(f"{threads} threads on {target.name}; give 1 to {target.cores}, its number of cores")
    quantized = sorted({op.op_type for op in work} & _QUANTIZED_OPS)
    if quantized:
        raise ProfileError(
            f"latency is predicted for fp32 models, and this one has {quantized[0]} nodes; give the fp32 ONNX"
        )
    cores = 1 + (threads - 1) * roofline.parallel_efficiency
    peak_flops_per_ms = target.peak_gflops_per_core * 1e6 * cores
    bytes_per_ms = roofline.memory_bandwidth_gb_per_s * 1e6
    efficiency = {
        OpKind.CONV: roofline.conv_efficiency,
        OpKind.DEPTHWISE: roofline.depthwise_efficiency,
        OpKind.GEMM: roofline.gemm_efficiency,
    }
    return tuple(
        NodePrediction(
            work=op,
            compute_ms=_FLOPS_PER_MAC * op.macs / (peak_flops_per_ms * efficiency.get(op.kind, 1.0)),
            memory_ms=op.bytes_moved / bytes_per_ms,
            overhead_ms=roofline.dispatch_overhead_us / 1e3,
        )
        for op in work
        if op.kind is not OpKind.FREE
    )


def _roofline(target: TargetProfile) -> Roofline:
    if target.roofline is None:
        raise TargetError(
            f"latency on {target.name!r} is measured, never predicted; "
            "measure here, or name a device to predict for"
        )
    return target.roofline
