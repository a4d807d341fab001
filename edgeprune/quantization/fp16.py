"""An ONNX file whose weights are stored in 16 bits and calculated with in 32.

onnxruntime's CPU provider gains nothing from 16-bit arithmetic, so only the file shrinks: each large
constant is stored in 16 bits behind a Cast, which the runtime folds when it loads the file. Sizes may be
dynamic, and any opset from 7 on serves.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from edgeprune.artifacts.quantization import Float16Report
from edgeprune.errors import QuantizationError
from edgeprune.onnx_io.passes.base import rewritten
from edgeprune.quantization.passes.half_constants import LEAST_VALUES, HalfConstants
from edgeprune.quantization.preparation import load_simplified


def quantize_fp16(source: Path, destination: Path, *, timeout_s: float | None = None) -> Float16Report:
    """Write ``source`` with its constants in 16 bits to ``destination``.

    Constants that 16 bits cannot hold, with a value beyond 65,504 or too small to be told from their
    rounding, stay as they are and are named.

    Raises:
        QuantizationError: the file cannot be read, or has nothing to store in 16 bits.
    """
    model = load_simplified(source, timeout_s)
    halved = HalfConstants()
    half = rewritten(model, halved)
    if not halved.stored and not halved.kept:
        raise QuantizationError(
            f"{source.name} has no constants of {LEAST_VALUES} values or more in 32 bits, so there is "
            "nothing to store in 16; accepted are networks with weights"
        )
    del half.graph.value_info[:]  # every reader can infer the shapes of inner tensors
    onnx.save_model(half, str(destination))
    return Float16Report(stored=len(halved.stored), kept_float=tuple(halved.kept))
