"""Evaluate a graph on demand, node by node, over all calibration images, freeing what nobody needs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.attributes import get_attribute


class LazyGraph:
    """Values of a graph's nodes on a list of image batches, each computed once and freed after its last use.

    ``pinned`` counts extra readers of a node: call :meth:`release` once for each.
    """

    def __init__(self, module: GraphModule, batches: list[Tensor], pinned: Counter[str]) -> None:
        self._module = module
        self._batches = batches
        nodes: list[Node] = list(module.graph.nodes)
        self._by_name = {n.name: n for n in nodes}
        self._place = {n: i for i, n in enumerate(nodes)}
        self._values: dict[Node, list[Any]] = {}
        self._done: set[Node] = set()
        self._readers = {n: len(n.users) + pinned[n.name] for n in nodes}

    def node(self, name: str) -> Node:
        """The node of that name."""
        return self._by_name[name]

    def value(self, name: str) -> list[Any]:
        """Values of a node, one per batch; its ancestors are evaluated as far as needed."""
        node = self._by_name[name]
        if node not in self._values:
            if node in self._done:
                raise RuntimeError(f"{name} was freed; it needed another pin")
            for pending in self._pending(node):
                self._evaluate(pending)
        return self._values[node]

    def release(self, name: str) -> None:
        """One pinned reader of the node is done with it."""
        self._drop_reader(self._by_name[name])

    def _pending(self, node: Node) -> list[Node]:
        needed: set[Node] = set()
        stack = [node]
        while stack:
            current = stack.pop()
            if current in needed or current in self._values or current.op == "get_attr":
                continue
            needed.add(current)
            stack.extend(current.all_input_nodes)
        return sorted(needed, key=self._place.__getitem__)

    @torch.no_grad()
    def _evaluate(self, node: Node) -> None:
        if node.op == "placeholder":
            self._values[node] = list(self._batches)
        else:
            assert node.op == "call_function"
            assert callable(node.target)
            results = []
            for batch in range(len(self._batches)):

                def read(argument: Node, batch: int = batch) -> Any:
                    if argument.op == "get_attr":
                        return get_attribute(self._module, str(argument.target))
                    return self._values[argument][batch]

                args = torch.fx.node.map_arg(node.args, read)
                kwargs = torch.fx.node.map_arg(node.kwargs, read)
                results.append(node.target(*args, **kwargs))
            self._values[node] = results
        self._done.add(node)
        for operand in node.all_input_nodes:
            self._drop_reader(operand)

    def _drop_reader(self, node: Node) -> None:
        self._readers[node] -= 1
        if self._readers[node] <= 0:
            self._values.pop(node, None)
