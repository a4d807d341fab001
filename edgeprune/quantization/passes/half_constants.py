"""Large constants stored in 16 bits, each behind a Cast that the runtime folds when it loads the file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import PassResult

from edgeprune.artifacts.arrays import Float32Array
from edgeprune.onnx_io.passes.base import GraphPass, add_constant, constant_of, free_node_name

LEAST_VALUES = 64
"""A smaller constant would not pay for its Cast."""
_LARGEST = float(np.finfo(np.float16).max)
_MOST_ROUNDING = 2.0**-10
"""Of a constant's norm: at most half of that is lost where all values are normal numbers of 16 bits."""
_AT_ONCE = 2**20


class HalfConstants(GraphPass):
    """32-bit constants become 16-bit ones and a Cast; ``stored`` and ``kept`` name them afterwards.

    Those that 16 bits cannot hold are kept: with a value beyond 65,504, or so small that rounding takes too
    much of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[str] = []
        self.kept: list[str] = []

    def call(self, model: ir.Model) -> PassResult:
        """Store all that 16 bits hold."""
        graph, casts = model.graph, []
        for name, constant in list(graph.initializers.items()):
            value = constant_of(constant) if constant.dtype is ir.DataType.FLOAT else None
            if value is None or value.size < LEAST_VALUES or constant.is_graph_output():
                continue
            if not fits_in_16_bits(value):
                self.kept.append(name)
                continue
            half = add_constant(graph, f"{name}_half", value.astype(np.float16))
            cast = free_node_name(graph, f"{name}_cast")
            casts.append(ir.node("Cast", [half], {"to": int(ir.DataType.FLOAT)}, name=cast))
            convenience.replace_all_uses_with(constant, casts[-1].outputs[0])
            del graph.initializers[name]
            casts[-1].outputs[0].name = name
            self.stored.append(name)
        graph.insert_before(graph[0], casts)
        return PassResult(model, modified=bool(casts))


def fits_in_16_bits(value: Float32Array) -> bool:
    """Whether no value is beyond 16 bits, and rounding leaves the constant as a whole what it is.

    Not judged by channel: one filter that training has driven to nearly nothing adds as little to the sums
    behind it once it is nothing, and would keep a whole weight in 32 bits.
    """
    if float(np.abs(value).max()) > _LARGEST:
        return False
    whole, lost, flat = 0.0, 0.0, value.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        part = flat[start : start + _AT_ONCE]
        exact = part.astype(np.float64)
        rounding = exact - part.astype(np.float16).astype(np.float64)
        whole, lost = whole + float(exact @ exact), lost + float(rounding @ rounding)
    return not lost > _MOST_ROUNDING**2 * whole
