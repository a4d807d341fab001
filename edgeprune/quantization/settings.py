"""How a file is put in 8 bits, told once to every step of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.artifacts.quantization import IntegerFormat, RangeMethod

if TYPE_CHECKING:
    from edgeprune.quantization.ranges.weighting import GradientSource


@dataclass(frozen=True, kw_only=True)
class IntegerSettings:
    """The 8-bit form, how ranges are chosen, and how the 32-bit file is run for them.

    ``equalized``: scale channels of neighbouring layers against each other; ``corrected``: take the mean
    error of rounded weights out of biases; ``threads`` of onnxruntime; ``timeout_s``: longest seconds of
    loading the file, and of one run of it; ``seed`` of what is drawn. ``gradients`` weigh squared errors of
    activations by what the outputs make of them; without, all values count alike.
    """

    form: IntegerFormat
    method: RangeMethod = RangeMethod.MSE
    equalized: bool = True
    corrected: bool = True
    threads: int = 1
    timeout_s: float | None = None
    seed: int = 0
    gradients: GradientSource | None = None
