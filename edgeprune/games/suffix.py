"""A masked graph cut in two: nodes that no mask reaches are computed once, the rest per coalition."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node

from edgeprune.artifacts.coupling import BatchLayout
from edgeprune.coupling.context import Context
from edgeprune.coupling.layout import image_layout, trace_images
from edgeprune.fx import op_name, tensor_leaves


@dataclass(frozen=True, kw_only=True)
class CutGraph:
    """``suffix(*prefix(*inputs), masks)`` computes the same as the masked graph.

    ``layouts`` are the batch layouts of the tensors on the cut, ``None`` for a tensor without images.
    ``tileable``: all tensors that depend on the batch have a layout, so that coalitions can share a pass.
    """

    prefix: GraphModule
    suffix: GraphModule
    layouts: tuple[BatchLayout | None, ...]
    tileable: bool

    def tile(self, cut: list[Tensor], times: int) -> list[Tensor]:
        """The tensors on the cut with all their images repeated ``times`` times."""
        return [
            value if layout is None or times == 1 else _tiled(value, layout, times)
            for value, layout in zip(cut, self.layouts, strict=True)
        ]


def masks_of(graph: Graph) -> Node:
    """The masks of a masked graph: its last input."""
    inputs: list[Node] = [node for node in graph.nodes if node.op == "placeholder"]
    return inputs[-1]


def reached_from(graph: Graph, starts: Iterable[Node]) -> set[Node]:
    """``starts`` and all nodes whose values depend on theirs."""
    reached = set(starts)
    for node in graph.nodes:
        if any(i in reached for i in node.all_input_nodes):
            reached.add(node)
    return reached


def cut_at_masks(masked: GraphModule) -> CutGraph:
    """Cut a masked graph (see ``masking.mask_module``) before the first mask points."""
    reached = reached_from(masked.graph, {masks_of(masked.graph)})
    frontier = _frontier(masked.graph, reached)
    context = Context(graph_module=masked)
    for node in masked.graph.nodes:
        context.image_rows[node] = None if node in reached else trace_images(context, node)
    layouts = tuple(image_layout(context, node) for node in frontier)
    return CutGraph(
        prefix=_prefix(masked, reached, frontier),
        suffix=_suffix(masked, reached, frontier),
        layouts=layouts,
        tileable=all(
            layout is not None or not context.symbolic_dims(node)
            for node, layout in zip(frontier, layouts, strict=True)
        ),
    )


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _frontier(graph: Graph, reached: set[Node]) -> list[Node]:
    """Tensors outside ``reached`` that it reads, directly or for their sizes, without stored tensors."""
    wanted: dict[Node, None] = {}
    todo = [node for node in graph.nodes if node in reached or node.op == "output"]
    seen = set(todo)
    for node in todo:
        for operand in node.all_input_nodes:
            if operand in seen or operand.op == "get_attr" or _batch_of_input(node, operand):
                continue
            seen.add(operand)
            if _is_tensor(operand):
                wanted[operand] = None
            else:
                todo.append(operand)
    return [node for node in graph.nodes if node in wanted]


def _batch_of_input(node: Node, operand: Node) -> bool:
    """Whether ``node`` only reads the batch size of an input, which the masks have as well."""
    return operand.op == "placeholder" and op_name(node) == "sym_size" and bool(node.args[1] == 0)


def _prefix(masked: GraphModule, reached: set[Node], frontier: list[Node]) -> GraphModule:
    graph = Graph()
    mapping: dict[Node, Node] = {}
    for node in masked.graph.nodes:
        if node in reached or node.op == "output" or any(i not in mapping for i in node.all_input_nodes):
            continue
        mapping[node] = graph.node_copy(node, mapping.__getitem__)
    graph.output(tuple(mapping[node] for node in frontier))
    return part_of(masked, graph, "PrefixGraph")


def _suffix(masked: GraphModule, reached: set[Node], frontier: list[Node]) -> GraphModule:
    graph = Graph()
    mapping: dict[Node, Node] = {node: graph.placeholder(f"cut_{i}") for i, node in enumerate(frontier)}
    masks = graph.placeholder("masks")
    for node in masked.graph.nodes:
        if node.op == "placeholder":
            mapping.setdefault(node, masks)
        elif node not in mapping and (node in reached or node.op == "output" or not _is_tensor(node)):
            if all(i in mapping for i in node.all_input_nodes):
                mapping[node] = graph.node_copy(node, mapping.__getitem__)
        elif node.op == "get_attr":
            mapping[node] = graph.node_copy(node)
    return part_of(masked, graph, "SuffixGraph")


def part_of(masked: GraphModule, graph: Graph, name: str) -> GraphModule:
    """A module that runs ``graph`` on the weights of the masked one."""
    module = GraphModule(copy.copy(masked), graph, class_name=name)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _tiled(value: Tensor, layout: BatchLayout, times: int) -> Tensor:
    dim, sizes = layout.dim, list(value.shape)
    images = sizes[dim] // (layout.outer * layout.inner)
    split = value.reshape(*sizes[:dim], layout.outer, 1, images, layout.inner, *sizes[dim + 1 :])
    repeated = split.expand(*sizes[:dim], layout.outer, times, images, layout.inner, *sizes[dim + 1 :])
    return repeated.reshape(*sizes[:dim], sizes[dim] * times, *sizes[dim + 1 :])


class _PeakMemory(Interpreter):
    """Runs a graph and records the peak bytes of its values, without stored tensors."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.peak_bytes = 0

    def run_node(self, n: Node) -> Any:
        """Run one node; values without further readers are freed by then."""
        result = super().run_node(n)
        if n.op != "get_attr":
            others = [v for node, v in self.env.items() if node.op != "get_attr"]
            alive = [t.untyped_storage() for t in tensor_leaves([result, *others])]
            self.peak_bytes = max(self.peak_bytes, sum({id(s): s.nbytes() for s in alive}.values()))
        return result


@torch.no_grad()
def peak_bytes_per_row(module: GraphModule, inputs: list[Tensor], rows: int) -> int:
    """Peak bytes of activations per row, measured on ``rows`` rows; buffers inside ops are not counted."""
    measured = _PeakMemory(module)
    measured.run(*inputs)
    return -(-measured.peak_bytes // rows)
