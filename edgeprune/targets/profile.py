"""What a device profile says. Every number has its unit in its name and its source in ``sources``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, IsFinite, Le, MultipleOf, Predicate

from edgeprune.artifacts.choices import HOST
from edgeprune.artifacts.quantization import Precision
from edgeprune.errors import TargetError
from edgeprune.storage.tables import Expected

TARGET_SCHEMA_VERSION = "1.2"
_FLOPS_PER_FMA = 2
_FP32_BITS = 32

Text = Annotated[str, Predicate(str.strip), Expected("a text in quotes that is not empty")]
Count = Annotated[int, Gt(0), Expected("a positive whole number")]
Bytes = Annotated[int, Ge(0), Expected("a whole number of bytes, or 0 for none,")]
Number = Annotated[int, Ge(0), Expected("a whole number of at least 0")]
Positive = Annotated[float, Gt(0), IsFinite, Expected("a positive number")]
NotNegative = Annotated[float, Ge(0), IsFinite, Expected("a number of at least 0")]
Share = Annotated[float, Gt(0), Le(1), Expected("a share, above 0 and at most 1,")]
LowFactor = Annotated[
    float, Gt(0), Le(1), Expected("a factor, above 0 and at most 1 since the band holds 1,")
]
HighFactor = Annotated[float, Ge(1), IsFinite, Expected("a factor of at least 1, since the band holds 1,")]
Lanes = Annotated[int, Gt(0), MultipleOf(_FP32_BITS), Expected("a multiple of 32")]


@dataclass(frozen=True, kw_only=True)
class IntegerRoofline:
    """Parameters of nodes in 8 bits; efficiencies are shares of the 8-bit peak.

    The error band is that of a model in 8 bits.
    """

    conv_efficiency: Share
    depthwise_efficiency: Share
    gemm_efficiency: Share
    error_low_factor: LowFactor
    error_high_factor: HighFactor
    error_reason: Text


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Processor parameters of the latency prediction.

    Efficiencies are shares in (0, 1] of the peak that onnxruntime-like kernels reach.
    ``parallel_efficiency`` is what every thread after the first adds, as a share of a core.
    ``dispatch_overhead_us`` is the fixed cost of every node that runs. The error band multiplies a
    prediction: the truth is expected between ``error_low_factor`` (at most 1) and
    ``error_high_factor`` (at least 1) times it, in ``error_coverage`` of all models where that is known.
    ``int8``: nodes in 8 bits; ``None`` where nothing is known of them.
    """

    clock_ghz: Positive
    fma_pipes: Count
    memory_bandwidth_gb_per_s: Positive
    conv_efficiency: Share
    depthwise_efficiency: Share
    gemm_efficiency: Share
    parallel_efficiency: Share
    dispatch_overhead_us: NotNegative
    calibrated_on_device: bool
    error_low_factor: LowFactor
    error_high_factor: HighFactor
    error_reason: Text
    error_coverage: Share | None = None
    int8: IntegerRoofline | None = None


@dataclass(frozen=True, kw_only=True)
class KindTable:
    """Time of one kind of node: a sum of what it has of each, all found by measurement.

    ``op_type`` is empty where the row holds for all operators of the kind. ``integer``: in 8 bits.
    ``blocked``: in the blocked layout of x86. A patch value is one value of the matrix that a convolution
    multiplies its weights with; ``ps_per_padded_mac`` counts the channels rounded up to ``width_quantum``.
    """

    kind: Text
    op_type: str = ""
    integer: bool
    blocked: bool
    us_per_node: NotNegative = 0.0
    ps_per_mac: NotNegative = 0.0
    ps_per_padded_mac: NotNegative = 0.0
    ps_per_patch_value: NotNegative = 0.0
    ps_per_remainder_value: NotNegative = 0.0
    ps_per_tap: NotNegative = 0.0
    ps_per_output: NotNegative = 0.0
    ps_per_clipped_output: NotNegative = 0.0
    ps_per_function_output: NotNegative = 0.0
    ps_per_weight: NotNegative = 0.0
    ps_per_read_byte: NotNegative = 0.0
    ps_per_written_byte: NotNegative = 0.0
    ps_per_far_byte: NotNegative = 0.0
    ps_per_strided_value: NotNegative = 0.0
    parallel_efficiency: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured on a device; ``kinds`` holds for one thread, ``us_per_run`` for a whole run.

    ``measurements`` are of networks, ``nodes`` of their nodes. The error band is that of blocks of the grid
    that were held out of the fit.
    """

    machine: Text
    date: Text
    runtime: Text
    edgeprune: Text
    measurements: Count
    nodes: Number = 0
    measured_s: NotNegative
    held_out_median_error: NotNegative
    us_per_run: NotNegative
    error_low_factor: LowFactor
    error_high_factor: HighFactor
    error_coverage: Share
    kinds: tuple[KindTable, ...]


@dataclass(frozen=True, kw_only=True)
class TargetProfile:
    """One device. ``None`` means unknown; 0 cache bytes mean that there is no such cache.

    ``width_quantum`` is the number of channels that layer widths should be a multiple of,
    ``int8_width_quantum`` that in 8 bits; ``None``: the same.
    ``l2_cache_bytes`` and ``l3_cache_bytes`` are totals over the whole processor. ``power_w`` is what the
    board takes with all cores busy. Latency is predicted by ``calibration`` where there is one, else by
    ``roofline``; the host has neither, since it is measured.
    ``sources`` says for each group of fields where its figures come from.
    """

    name: Text
    display_name: Text
    aliases: tuple[Text, ...] = ()
    cpu_name: Text | None
    cores: Count | None
    default_threads: Count
    isa: Text | None
    dot_product: bool | None
    fp16_arithmetic: bool | None = None
    simd_width_bits: Lanes | None = None
    l2_cache_bytes: Bytes | None = None
    l3_cache_bytes: Bytes | None = None
    memory_bytes: Count | None = None
    power_w: Positive | None = None
    width_quantum: Count
    width_quantum_reason: Text
    int8_width_quantum: Count | None = None
    int8_width_quantum_reason: Text | None = None
    roofline: Roofline | None = None
    calibration: Calibration | None = None
    note: str = ""
    sources: dict[str, Text]

    @property
    def is_host(self) -> bool:
        """Whether this is the local machine."""
        return self.name == HOST

    def quantum_in(self, precision: Precision) -> int:
        """Multiple of channels that the kernels of a precision like; of a mixture, that of 32 bits."""
        own = self.int8_width_quantum if precision is Precision.INT8 else None
        return own or self.width_quantum

    @property
    def predicts_int8(self) -> bool:
        """Whether something is known of nodes in 8 bits."""
        if self.calibration is not None:
            return any(table.integer and table.ps_per_mac > 0 for table in self.calibration.kinds)
        return self.roofline is not None and self.roofline.int8 is not None

    @property
    def peak_gflops_per_core(self) -> float:
        """Peak fp32 GFLOP/s of one core: clock x pipes x lanes x 2 (a fused multiply-add is two operations).

        Raises:
            TargetError: the profile has no roofline.
        """
        if self.roofline is None or self.simd_width_bits is None:
            raise TargetError(
                f"target {self.name!r} has no roofline to derive a peak from; measure there instead"
            )
        lanes = self.simd_width_bits // _FP32_BITS
        return self.roofline.clock_ghz * self.roofline.fma_pipes * lanes * _FLOPS_PER_FMA

    @property
    def int8_peak_factor(self) -> int:
        """8-bit multiply-adds in the time of one of fp32 at the peak.

        A dot product instruction (SDOT, VNNI) adds four products of bytes in every lane of 32 bits. Without
        one, bytes are multiplied into 16 bits (SMULL, SMLAL; vpmaddubsw), two products a lane.
        """
        return 4 if self.dot_product else 2


def is_arm(isa: str | None) -> bool:
    """Whether an instruction set is one of Arm's."""
    return (isa or "").lower().startswith(("arm", "aarch"))
