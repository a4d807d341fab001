"""An ONNX file whose weights are stored in 16 bits and calculated with in 32.

onnxruntime's CPU provider gains nothing from 16-bit arithmetic, so only the file shrinks: each large
constant is stored in 16 bits behind a Cast, which the runtime folds when it loads the file.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from edgeprune.artifacts.quantization import HalvesReport
from edgeprune.quantization.passes.base import rewritten
from edgeprune.quantization.passes.half_constants import HalfConstants
from edgeprune.quantization.preparation import load_float


def quantize_halves(source: Path, destination: Path, *, timeout_s: float | None = None) -> HalvesReport:
    """Write ``source`` with its constants in 16 bits to ``destination``.

    Constants with a value beyond 65,504, which 16 bits cannot hold, stay as they are and are named.

    Raises:
        QuantizationError: the file cannot be read, or has nothing to store in 16 bits.
    """
    model = load_float(source, timeout_s=timeout_s)
    halved = HalfConstants()
    onnx.save_model(rewritten(model.proto, halved), str(destination))
    return HalvesReport(stored=len(halved.stored), kept_float=tuple(halved.kept))
