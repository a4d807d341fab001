"""Large constants stored in 16 bits, each behind a Cast that the runtime folds when it loads the file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import PassResult

from edgeprune.onnx_io.passes.base import GraphPass, add_constant, constant_of

LEAST_VALUES = 64
"""A smaller constant would not pay for its Cast."""
_LARGEST = float(np.finfo(np.float16).max)


class HalfConstants(GraphPass):
    """32-bit constants become 16-bit ones and a Cast; ``stored`` and ``kept`` name them afterwards.

    Those with a value beyond 65,504, which 16 bits cannot hold, are kept.
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
            if float(np.abs(value).max()) > _LARGEST:
                self.kept.append(name)
                continue
            half = add_constant(graph, f"{name}_half", value.astype(np.float16))
            casts.append(ir.node("Cast", [half], {"to": int(ir.DataType.FLOAT)}, name=f"{name}_cast"))
            convenience.replace_all_uses_with(constant, casts[-1].outputs[0])
            del graph.initializers[name]
            casts[-1].outputs[0].name = name
            self.stored.append(name)
        graph.insert_before(graph[0], casts)
        return PassResult(model, modified=bool(casts))
