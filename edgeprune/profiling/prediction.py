"""Prediction of latency, memory and energy on a device that is not at hand, in 32 and 8 bits.

A model takes the sum of what its nodes take (``costs.py``) on the graph that onnxruntime runs
(``runtime_graph.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeprune.artifacts.latency import LatencyPrediction, PredictedKind, Provenance
from edgeprune.errors import ProfileError, UsageError
from edgeprune.profiling.costs import NodePrediction, node_cost
from edgeprune.profiling.kinds import OpKind, OpWork
from edgeprune.profiling.runtime.graph import RuntimeWork, kernels_of, runtime_work
from edgeprune.targets import IntegerRoofline, Roofline, TargetProfile

_MIB = 2**20


def predict(onnx_path: str | Path, target: TargetProfile, *, threads: int | None = None) -> LatencyPrediction:
    """Predicted latency of one input on ``target``; ``threads`` is by default that of the profile.

    Raises:
        ProfileError: the file cannot be read or counted, or is in 8 bits, of which the profile knows nothing.
        TargetError: the target is this host, which is measured and never predicted.
        UsageError: ``threads`` is not between 1 and the target's cores.
    """
    return predict_runtime(runtime_work(onnx_path, kernels_of(target)), target, threads=threads)


def predict_work(
    work: Sequence[OpWork], target: TargetProfile, *, threads: int | None = None
) -> LatencyPrediction:
    """Predicted latency of counted work, whose memory is not known; see :func:`predict`.

    Raises:
        ProfileError: the model is in 8 bits, of which the profile knows nothing.
        TargetError: the target is this host.
        UsageError: ``threads`` is not between 1 and the target's cores.
    """
    counted = RuntimeWork(operations=tuple(work), weight_bytes=0, activation_bytes=0)
    return predict_runtime(counted, target, threads=threads)


def predict_runtime(
    work: RuntimeWork, target: TargetProfile, *, threads: int | None = None
) -> LatencyPrediction:
    """Predicted latency of a model whose work was counted before; see :func:`predict`.

    Raises:
        ProfileError: the model is in 8 bits, of which the profile knows nothing.
        TargetError: the target is this host.
        UsageError: ``threads`` is not between 1 and the target's cores.
    """
    used = target.default_threads if threads is None else threads
    nodes = predict_nodes(work.operations, target, threads=used)
    total_ms = sum(node.latency_ms for node in nodes)
    total_ms += 0.0 if target.calibration is None else target.calibration.us_per_run / 1e3
    integer = _is_integer(work.operations)
    low, high, covered, why = _band(target, integer)
    compute_bound_ms = sum(n.latency_ms for n in nodes if n.compute_ms >= n.memory_ms)
    memory = work.weight_bytes + work.activation_bytes if work.activation_bytes else None
    enough = None if memory is None or target.memory_bytes is None else memory <= target.memory_bytes
    return LatencyPrediction(
        provenance=Provenance.PREDICTED,
        target=target.name,
        latency_ms=total_ms,
        low_ms=total_ms * low,
        high_ms=total_ms * high,
        compute_bound_share=compute_bound_ms / total_ms if total_ms > 0 else 0.0,
        basis=f"{_basis(target, integer, used)}: {why}",
        coverage=covered,
        kinds=_by_kind(nodes),
        memory_bytes=memory,
        fits=enough,
        energy_mj=None if target.power_w is None or used != target.cores else target.power_w * total_ms,
        notes=tuple(filter(None, (work.note, _too_large(target, memory, enough)))),
    )


def predict_nodes(
    work: Sequence[OpWork], target: TargetProfile, *, threads: int
) -> tuple[NodePrediction, ...]:
    """Predicted time of every node that runs, in graph order; see :func:`predict`.

    Raises:
        ProfileError: the model is in 8 bits, of which the profile knows nothing.
        TargetError: the target is this host.
        UsageError: ``threads`` is not between 1 and the target's cores.
    """
    cost = node_cost(target, threads)
    if target.cores is None or not 1 <= threads <= target.cores:
        raise UsageError(f"{threads} threads on {target.name}; give 1 to {target.cores}, its number of cores")
    if _is_integer(work) and not target.predicts_int8:
        raise ProfileError(
            f"the profile {target.name!r} says nothing of 8 bits, and this model has nodes in 8 bits; give "
            "the fp32 ONNX, add [roofline.int8] to the profile, or calibrate the device"
        )
    return tuple(cost(op) for op in work if op.kind is not OpKind.FREE)


def _is_integer(work: Sequence[OpWork]) -> bool:
    return any(op.integer and (op.macs > 0 or op.kind is OpKind.BORDER) for op in work)


def _band(target: TargetProfile, integer: bool) -> tuple[float, float, float | None, str]:
    """Factors of the band's ends, its coverage, and where they come from."""
    if target.calibration is not None:
        found = target.calibration
        why = (
            f"{found.measurements} networks of {found.nodes} nodes on {found.machine} with {found.runtime}, "
            f"{found.date}; the band held {100 * found.error_coverage:.0f}% of blocks left out"
        )
        return found.error_low_factor, found.error_high_factor, found.error_coverage, why
    roofline = target.roofline
    assert roofline is not None
    part: Roofline | IntegerRoofline = roofline.int8 if integer and roofline.int8 is not None else roofline
    coverage = roofline.error_coverage
    return part.error_low_factor, part.error_high_factor, coverage, part.error_reason


def _basis(target: TargetProfile, integer: bool, threads: int) -> str:
    bits = "8 bits" if integer else "fp32"
    on = f"{target.display_name}, {bits}, {threads} of {target.cores} cores"
    if target.calibration is not None:
        return f"tables measured on {on}"
    assert target.roofline is not None
    how = "calibrated" if target.roofline.calibrated_on_device else "not calibrated"
    return f"roofline of {on} at {target.roofline.clock_ghz} GHz, {how} on a device"


def _by_kind(nodes: Sequence[NodePrediction]) -> tuple[PredictedKind, ...]:
    keys = dict.fromkeys((n.work.kind, n.work.integer) for n in nodes)
    grouped = {key: [n.latency_ms for n in nodes if (n.work.kind, n.work.integer) == key] for key in keys}
    rows = [
        PredictedKind(kind=kind.value, nodes=len(times), in_8_bits=integer, latency_ms=sum(times))
        for (kind, integer), times in grouped.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.latency_ms))


def _too_large(target: TargetProfile, memory: int | None, fits: bool | None) -> str:
    if fits is not False or memory is None or target.memory_bytes is None:
        return ""
    return (
        f"does not fit into {target.memory_bytes / _MIB:.0f} MB of {target.display_name}: weights and values "
        f"take {memory / _MIB:.0f} MB"
    )
