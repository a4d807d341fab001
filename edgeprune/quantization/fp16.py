"""An ONNX file whose weights are stored in 16 bits and calculated with in 32.

onnxruntime's CPU provider gains nothing from 16-bit arithmetic, so only the file shrinks: each large
constant is stored in 16 bits behind a Cast, which the runtime folds when it loads the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeprune.artifacts.quantization import HalvesReport
from edgeprune.quantization.preparation import load_float

_LEAST_VALUES = 64
"""A smaller constant would not pay for its Cast."""
_LARGEST = float(np.finfo(np.float16).max)


def quantize_halves(source: Path, destination: Path, *, timeout_s: float | None = None) -> HalvesReport:
    """Write ``source`` with its constants in 16 bits to ``destination``.

    Constants with a value beyond 65,504, which 16 bits cannot hold, stay as they are and are named.

    Raises:
        QuantizationError: the file cannot be read, or has nothing to store in 16 bits.
    """
    model = load_float(source, timeout_s=timeout_s)
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    outputs = {value.name for value in proto.graph.output}
    casts, stored, kept = [], 0, []
    for initializer in proto.graph.initializer:
        name = initializer.name
        if name not in model.weights or model.weights[name].size < _LEAST_VALUES or name in outputs:
            continue
        value = model.weights[name]
        if float(np.abs(value).max()) > _LARGEST:
            kept.append(name)
            continue
        half = f"{name}_half"
        initializer.CopyFrom(numpy_helper.from_array(value.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
        stored += 1
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.save_model(proto, str(destination))
    return HalvesReport(stored=stored, kept_float=tuple(kept))
