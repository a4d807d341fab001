"""Weights of layers that calculate in 32 bits, stored in 8 bits behind a Cast and a Mul.

Both read constants alone, so that the runtime calculates the weight once, when it loads the file: the layer
runs as fast as before, from a quarter of the bytes. A DequantizeLinear would stay in the graph and be
calculated in every run.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgeprune.artifacts.arrays import Float32Array
from edgeprune.fake_quant import SMALLEST_SCALE, STEPS
from edgeprune.onnx_io.passes.base import GraphPass, add_constant, constant_of, free_node_name

LEAST_VALUES = 256
"""A smaller weight would not pay for its two nodes and its scales."""


class StoredIn8Bits(GraphPass):
    """Store weights of the named nodes in 8 bits, symmetric, with a scale for each output channel.

    ``done`` names the nodes afterwards. Weights that somebody else reads, too, that 8 bits would not make
    smaller, or that are not finite stay as they are.
    """

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self._names = names
        self.done: list[str] = []

    def call(self, model: ir.Model) -> PassResult:
        """Replace each weight by what calculates it."""
        for node in list(model.graph):
            axes = summed_axes(node) if node.name in self._names else None
            if axes is None or len(node.inputs) < 2:
                continue
            weight = node.inputs[1]
            value = constant_of(weight)
            if weight is None or value is None or value.dtype != np.float32 or len(weight.uses()) != 1:
                continue
            if value.size < LEAST_VALUES or not np.isfinite(value).all() or weight.is_graph_output():
                continue
            codes, scale = in_8_bits(value, axes)
            if codes.nbytes + scale.nbytes < value.nbytes // 2:
                _store(model.graph, node, str(weight.name), codes, scale)
                self.done.append(str(node.name))
        return PassResult(model, modified=bool(self.done))


def summed_axes(node: ir.Node) -> tuple[int, ...] | None:
    """Axes of a weight that one output channel sums over; ``None`` for other ops."""
    if node.op_type == "Conv":
        return tuple(range(1, _rank(node)))
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) == 1:
        return (0, *range(2, _rank(node)))
    if node.op_type == "Gemm":
        return (1,) if node.attributes.get_int("transB", 0) else (0,)
    return (_rank(node) - 2,) if node.op_type == "MatMul" and _rank(node) > 1 else None


def in_8_bits(weight: Float32Array, axes: tuple[int, ...]) -> tuple[np.ndarray, Float32Array]:
    """Codes (int8, the weight's shape) and scales (1 along ``axes``), whose product is the rounded weight."""
    exact = weight.astype(np.float64)
    scale = (np.abs(exact).max(axis=axes, keepdims=True) / STEPS).astype(np.float32)
    scale = np.where(scale >= SMALLEST_SCALE, scale, np.float32(1.0))
    return np.clip(np.round(exact / scale), -STEPS, STEPS).astype(np.int8), scale


def _rank(node: ir.Node) -> int:
    value = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return 0 if value is None else value.ndim


def _store(graph: ir.Graph, node: ir.Node, name: str, codes: np.ndarray, scale: Float32Array) -> None:
    stored = add_constant(graph, f"{name}_in_8_bits", codes)
    names = (free_node_name(graph, f"{name}_{what}") for what in ("cast", "scaled"))
    cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)}, name=next(names))
    factor = add_constant(graph, f"{name}_scale", scale)
    product = ir.node("Mul", [cast.outputs[0], factor], name=next(names))
    graph.insert_before(graph[0], [cast, product])
    node.replace_input_with(1, product.outputs[0])
    del graph.initializers[name]
    product.outputs[0].name = name
