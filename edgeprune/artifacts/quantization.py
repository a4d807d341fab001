"""Options and reports of quantization."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Precision(Enum):
    """How numbers of a delivered file are stored and calculated."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    AUTO = "auto"


class RangeMethod(Enum):
    """Which part of a tensor's values an 8-bit scale covers."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"


@dataclass(frozen=True, kw_only=True)
class IntegerFormat:
    """The 8-bit form that a processor runs fastest, and why.

    Weights are signed and symmetric with a scale for each output channel, in 7 bits with ``reduce_range``;
    activations are asymmetric, signed or not. With ``pixel_blocks`` a strided first convolution runs over
    blocks of pixels.
    """

    signed_activations: bool
    reduce_range: bool
    reason: str
    pixel_blocks: bool = False


@dataclass(frozen=True, kw_only=True)
class IntegerReport:
    """What was quantized and how ranges were found.

    ``equalized``: pairs of layers whose channels were scaled against each other; ``corrected``: layers whose
    bias makes up for the mean error of their rounded weights; ``kept_float``: nodes left as they were;
    ``unscaled``: those of them that were not asked to be, for want of a scale that 32-bit numbers hold, with
    the reason; ``mixed_units``: those that calculate with the network's outputs or would have one scale for
    values of different units, with the reason; ``over_blocks``: convolutions that run over blocks of pixels;
    ``stored``: layers among ``kept_float`` whose weights are stored in 8 bits, and calculated with in 32;
    ``gradient_images``: those whose gradients weigh the errors of ranges; 0 where all values count alike, and
    ``no_gradients`` says why if that was not asked for.
    """

    format: IntegerFormat
    method: RangeMethod
    images: int
    nodes: dict[str, int]
    equalized: int
    corrected: int
    kept_float: tuple[str, ...]
    over_blocks: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()
    unscaled: dict[str, str] = field(default_factory=dict)
    mixed_units: dict[str, str] = field(default_factory=dict)
    gradient_images: int = 0
    no_gradients: str | None = None


@dataclass(frozen=True, kw_only=True)
class PieceRow:
    """A piece of a network in mixed precision, named by the tensor that it ends with, and why it is so.

    ``alone`` is the CPU time, over that of the 32-bit network, with only this piece in 8 bits; ``None`` where
    it was not measured.
    """

    ends_with: str
    weighted_nodes: int
    integer: bool
    alone: float | None
    why: str


@dataclass(frozen=True, kw_only=True)
class MixedReport:
    """What mixed precision chose: its pieces in order, how many mixtures were measured, and the 8-bit part.

    ``integer`` is ``None`` where all stayed in 32 bits. ``harm`` tells what put pieces back, if anything did.
    """

    pieces: tuple[PieceRow, ...]
    measured: int
    integer: IntegerReport | None
    harm: str | None


@dataclass(frozen=True, kw_only=True)
class Float16Report:
    """How many constants are stored in 16 bits, and which ones cannot be."""

    stored: int
    kept_float: tuple[str, ...]


QuantizationDetails = IntegerReport | MixedReport | Float16Report
