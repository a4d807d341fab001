"""A dynamic batch for models whose code fixes it, from captures at fixed batches.

Detectors keep anchors for the shape that they saw last, others write the batch into a reshape. Where the
model runs on two batches, both captures are compared number by number; where it runs on single images alone,
a leading 1 of a reshape is the batch. The caller checks the result against the model.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.immutable_collections import immutable_dict, immutable_list

from edgeprune.fx import op_name, tensor_leaves

_BATCHES = (2, 3)
_RESHAPES = frozenset({"view", "reshape", "_unsafe_view", "expand"})


class PerImage(nn.Module):
    """A model that takes single images, for a batch of them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Outputs (n, ...) of inputs (n, ...), image by image."""
        each = [tensor_leaves(self.module(*(i[n : n + 1] for i in inputs))) for n in range(len(inputs[0]))]
        return [torch.cat(outputs) for outputs in zip(*each, strict=True)]


def from_single_images(module: nn.Module, examples: tuple[Tensor, ...]) -> GraphModule:
    """A graph of a ``module`` that runs on single images alone, its batch dynamic.

    Raises:
        Exception: torch.export cannot capture the model.
    """
    graph = _captured(module, tuple(example[:1] for example in examples))
    size, depends = _batch_size(graph), set[Node]()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or any(n in depends for n in node.all_input_nodes):
            depends.add(node)
            if op_name(node) in _RESHAPES and len(node.args) > 1 and list(node.args[1])[:1] == [1]:
                # Sizes in numbers: of a -1, torch would have to exclude batches that it cannot tell apart.
                node.args = (node.args[0], [size, *node.meta["val"].shape[1:]], *node.args[2:])
    graph.graph.lint()
    return GraphModule(graph, graph.graph)


def from_two_batches(module: nn.Module, examples: tuple[Tensor, ...]) -> GraphModule | None:
    """A graph of ``module`` in which every size that follows the batch is computed from the input.

    The model is captured at batches of 2 and 3. Both graphs must be the same but for whole numbers, each of
    which is a multiple of its batch or does not change. ``None`` where that does not hold.

    Raises:
        Exception: torch.export cannot capture the model at a fixed batch, either.
    """
    first, second = (_captured(module, tuple(_of_batch(e, b) for e in examples)) for b in _BATCHES)
    nodes, others = list(first.graph.nodes), list(second.graph.nodes)
    if [_kind(n) for n in nodes] != [_kind(n) for n in others]:
        return None
    pairs = dict(zip(others, nodes, strict=True))
    size = _batch_size(first)
    try:
        for node, other in zip(nodes, others, strict=True):
            merge = _Merge(first, node, size, pairs)
            node.args = merge.merged(node.args, other.args)
            node.kwargs = merge.merged(node.kwargs, other.kwargs)
        _same_constants(first, second)
    except _DifferentError:
        return None
    first.graph.lint()
    return GraphModule(first, first.graph)  # without the hooks that hold it to its batch


class _DifferentError(Exception):
    """The graphs differ by more than multiples of the batch."""


def _captured(module: nn.Module, examples: tuple[Tensor, ...]) -> GraphModule:
    module(*(example.clone() for example in examples))  # makes what it keeps for a shape
    program = torch.export.export(module, examples)
    graph = program.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    return graph


def _batch_size(graph: GraphModule) -> Node:
    """A node for the size of the batch, right behind the inputs."""
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    with graph.graph.inserting_after(inputs[-1]):
        return graph.graph.call_function(torch.ops.aten.sym_size.int, (inputs[0], 0))


def _of_batch(example: Tensor, batch: int) -> Tensor:
    repeats = -(-batch // len(example))
    return torch.cat([example] * repeats)[:batch]


def _kind(node: Node) -> tuple[str, str]:
    return node.op, str(node.target)


class _Merge:
    """Arguments of one node in both graphs, joined."""

    def __init__(self, graph: GraphModule, node: Node, size: Node, pairs: dict[Node, Node]) -> None:
        self._graph, self._node, self._size, self._pairs = graph.graph, node, size, pairs

    def merged(self, one: Any, other: Any) -> Any:
        """The argument, with whole numbers that follow the batch as multiples of its size."""
        if isinstance(one, Node) and self._pairs.get(other) is one:
            return one
        if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)) and len(one) == len(other):
            joined = [self.merged(a, b) for a, b in zip(one, other, strict=True)]
            return tuple(joined) if isinstance(one, tuple) else immutable_list(joined)
        if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
            return immutable_dict({key: self.merged(one[key], other[key]) for key in one})
        if type(one) is int and type(other) is int and one != other:
            return self._multiple(one, other)
        if not isinstance(one, Node) and not isinstance(other, Node) and _equal(one, other):
            return one
        raise _DifferentError

    def _multiple(self, one: int, other: int) -> Node:
        times, rest = divmod(one, _BATCHES[0])
        if rest or times * _BATCHES[1] != other:
            raise _DifferentError
        if times == 1:
            return self._size
        with self._graph.inserting_before(self._node):
            return self._graph.call_function(operator.mul, (self._size, times))


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _same_constants(first: GraphModule, second: GraphModule) -> None:
    """Raise where tensors that the captures hold differ, such as those made for a batch."""
    ours, theirs = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (first, second))
    if ours.keys() != theirs.keys():
        raise _DifferentError
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape or not torch.equal(tensor, theirs[name]):
            raise _DifferentError
