"""Time of one node on a device: by the tables of a calibration, or by a roofline of its kind.

Source of the roofline: Williams, Waterman and Patterson 2009. A node takes the longer of its arithmetic
(2 x MACs over peak x efficiency) and its memory traffic (bytes over bandwidth), plus a fixed dispatch
overhead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeprune.errors import TargetError
from edgeprune.profiling.kinds import OpKind, OpWork
from edgeprune.targets import Calibration, KindTable, Roofline, TargetProfile

_FLOPS_PER_MAC = 2
_US_PER_PS = 1e-6
_SMALL, _LARGE, _KERNEL = 1, 256, 9
_IN_KERNELS = frozenset({"", "Relu"})
_CLIPS = frozenset({"Clip", "HardSigmoid", "LeakyRelu"})
"""Fused activations: those that cost nothing, and cheap ones that take another pass over the output."""
Features = Mapping[str, float]


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


NodeCost = Callable[[OpWork], NodePrediction]


def node_cost(target: TargetProfile, threads: int) -> NodeCost:
    """What predicts single nodes on a target with so many threads.

    Raises:
        TargetError: the target is this host, which is measured, or has nothing to predict by.
    """
    if target.calibration is not None:
        return _by_tables(target, target.calibration, threads)
    if target.roofline is None:
        raise TargetError(
            f"latency on {target.name!r} is measured, never predicted; "
            "measure here, or name a device to predict for"
        )
    return _by_roofline(target, target.roofline, threads)


def _by_roofline(target: TargetProfile, roofline: Roofline, threads: int) -> NodeCost:
    cores = 1 + (threads - 1) * roofline.parallel_efficiency
    flops_per_ms = target.peak_gflops_per_core * 1e6 * cores
    bytes_per_ms = roofline.memory_bandwidth_gb_per_s * 1e6

    def cost(op: OpWork) -> NodePrediction:
        rate = flops_per_ms * efficiency(target, op.kind, integer=op.integer)
        return NodePrediction(
            work=op,
            compute_ms=_FLOPS_PER_MAC * op.macs / rate,
            memory_ms=op.bytes_moved / bytes_per_ms,
            overhead_ms=roofline.dispatch_overhead_us / 1e3,
        )

    return cost


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Roughly what layers of one kind take on a device, for a search that starts with it."""

    macs_per_ms: float
    bytes_per_ms: float
    overhead_ms: float


def layer_rates(target: TargetProfile, kind: OpKind, *, threads: int) -> Rates:
    """Rates of layers in 32 bits.

    Raises:
        TargetError: the target is this host, or its calibration has no such kind.
    """
    if target.calibration is None:
        roofline = target.roofline
        assert roofline is not None
        cores = 1 + (threads - 1) * roofline.parallel_efficiency
        flops_per_ms = target.peak_gflops_per_core * 1e6 * cores * efficiency(target, kind, integer=False)
        return Rates(
            macs_per_ms=flops_per_ms / _FLOPS_PER_MAC,
            bytes_per_ms=roofline.memory_bandwidth_gb_per_s * 1e6,
            overhead_ms=roofline.dispatch_overhead_us / 1e3,
        )
    cost = node_cost(target, threads)
    small, large = (cost(_square(kind, size)).latency_ms for size in (_SMALL, _LARGE))
    macs, moved = (_square(kind, _LARGE).macs, _square(kind, _LARGE).bytes_moved)
    slope = max(large - small, 1e-9)
    return Rates(macs_per_ms=macs / slope, bytes_per_ms=2 * moved / slope, overhead_ms=small)


def _square(kind: OpKind, size: int) -> OpWork:
    """A layer of so many channels on so many positions."""
    groups = size if kind is OpKind.DEPTHWISE else 1
    across, inner = size // groups, _KERNEL * size // groups
    values = size * size
    return OpWork(
        op_type="Gemm" if kind is OpKind.GEMM else "Conv", name="", kind=kind,
        macs=groups * across * inner * size,
        bytes_moved=8 * values, written_bytes=4 * values,
        rows=across, depth=inner, columns=size, groups=groups,
    )  # fmt: skip


def efficiency(target: TargetProfile, kind: OpKind, *, integer: bool) -> float:
    """Share of the fp32 peak that nodes of a kind reach by the roofline; above 1 for 8 bits where they do."""
    roofline = target.roofline
    assert roofline is not None
    part = roofline.int8 if integer and roofline.int8 is not None else roofline
    by_kind = {OpKind.DEPTHWISE: part.depthwise_efficiency, OpKind.GEMM: part.gemm_efficiency}
    factor = target.int8_peak_factor if part is roofline.int8 else 1
    return factor * by_kind.get(kind, part.conv_efficiency)


def _by_tables(target: TargetProfile, calibration: Calibration, threads: int) -> NodeCost:
    tables = {table_key(t.kind, t.op_type, t.integer, t.blocked): t for t in calibration.kinds}
    far = far_from(target)

    def cost(op: OpWork) -> NodePrediction:
        table = _table_of(tables, op)
        parts = features(op, quantum=target.width_quantum, far_from_bytes=far)
        spent = {name: value * float(getattr(table, name)) for name, value in parts.items()}
        cores = 1 + (threads - 1) * table.parallel_efficiency
        arithmetic = (
            *("ps_per_mac", "ps_per_padded_mac", "ps_per_patch_value"),
            *("ps_per_remainder_value", "ps_per_tap"),
        )
        compute_us = sum(_US_PER_PS * spent[name] for name in arithmetic if name in spent)
        all_us = sum(spent[n] * (1.0 if n == "us_per_node" else _US_PER_PS) for n in spent)
        overhead_us = spent["us_per_node"]
        # The parts are added up in a table; the roofline's form of a node takes the longer of two.
        worked_ms = (all_us - overhead_us) / cores / 1e3
        bound = compute_us >= (all_us - overhead_us) / 2
        return NodePrediction(
            work=op,
            compute_ms=worked_ms if bound else 0.0,
            memory_ms=0.0 if bound else worked_ms,
            overhead_ms=overhead_us / 1e3,
        )

    return cost


TableKey = tuple[str, str, bool, bool]


def table_key(kind: str, op_type: str, integer: bool, blocked: bool) -> TableKey:
    """What tells tables apart."""
    return (kind, op_type, integer, blocked)


def _table_of(tables: Mapping[TableKey, KindTable], work: OpWork) -> KindTable:
    """The table of a node, or of the nearest kind that was measured.

    Raises:
        TargetError: none of the kind was measured in any form.
    """
    kind = work.kind.value
    for op_type in (work.op_type, ""):
        for blocked in (work.blocked, not work.blocked):
            if (table := tables.get(table_key(kind, op_type, work.integer, blocked))) is not None:
                return table
    same = [t for t in tables.values() if t.kind == kind and t.integer == work.integer]
    others = [t for t in tables.values() if t.kind == kind or (work.macs == 0 and t.ps_per_written_byte > 0)]
    for candidates in (same, others):
        if candidates:
            return max(candidates, key=lambda t: (t.kind == kind, t.ps_per_written_byte, t.op_type))
    raise TargetError(f"the calibration has no table for {kind} ({work.op_type}); calibrate the device anew")


def far_from(target: TargetProfile) -> float:
    """Bytes beyond which values do not stay in the cache of one core."""
    if not target.l2_cache_bytes:
        return math.inf
    return target.l2_cache_bytes / (target.cores or 1)


def features(work: OpWork, *, quantum: int, far_from_bytes: float) -> Features:
    """What a node has of everything that takes time, named as the columns of a table."""
    read = work.bytes_moved - work.written_bytes
    found = {
        "us_per_node": 1.0,
        "ps_per_read_byte": float(read),
        "ps_per_written_byte": float(work.written_bytes),
        "ps_per_far_byte": max(0.0, work.bytes_moved - far_from_bytes),
    }
    if work.strided_values:
        found["ps_per_strided_value"] = float(work.strided_values)
    if work.macs > 0:
        deep = work.groups * work.depth
        padded = float(math.ceil(work.rows / quantum) * quantum)
        if work.is_depthwise:  # its kernels take several groups at once
            padded = work.rows * math.ceil(work.groups / quantum) * quantum / work.groups
        found |= {
            "ps_per_mac": float(work.macs),
            "ps_per_padded_mac": float(deep * padded * work.columns),
            "ps_per_patch_value": float(deep * work.columns),
            "ps_per_output": float(work.groups * work.rows * work.columns),
            "ps_per_weight": float(deep * work.rows),
        }
        if work.activation in _IN_KERNELS:
            pass
        elif work.activation in _CLIPS:
            found["ps_per_clipped_output"] = found["ps_per_output"]
        else:
            found["ps_per_function_output"] = found["ps_per_output"]
        if work.rows % quantum and not work.is_depthwise:
            found["ps_per_remainder_value"] = found["ps_per_patch_value"]
        if work.taps > 1 and not work.is_depthwise:
            found["ps_per_tap"] = float(work.groups * work.taps * work.columns)
        found["ps_per_read_byte"] -= work.weight_bytes
        del found["ps_per_written_byte"], found["ps_per_far_byte"]
    return found
