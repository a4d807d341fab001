"""Evaluate a graph lazily, one chunk of images at a time, keeping only values that are read again."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.accelerator import device_of
from edgeprune.attributes import get_attribute
from edgeprune.recovery.activations import HALF_BEYOND_BYTES, ActivationStore

_FLOAT_BYTES = 4


class LazyGraph:
    """Values of a graph's nodes on chunks of images, each computed once and dropped after its last reader.

    Between calls the store holds only values that later nodes read; intermediate values are computed and
    dropped within a chunk. ``pinned`` counts extra readers of a node: call :meth:`release` once for each.

    Args:
        chunks: image indices of each chunk.
        name: the network's name in the ``store``, which several networks may share.
    """

    def __init__(
        self,
        module: GraphModule,
        images: Tensor,
        chunks: list[Tensor],
        pinned: Counter[str],
        store: ActivationStore,
        name: str,
    ) -> None:
        self._module, self._device = module, device_of(module)
        self._images = images
        self._chunks = chunks
        self._store = store
        self._name = name
        nodes: list[Node] = list(module.graph.nodes)
        self._by_name = {n.name: n for n in nodes}
        self._place = {n: i for i, n in enumerate(nodes)}
        self._stored: set[Node] = set()
        self._done: set[Node] = set()
        self._readers = {n: len(n.users) + pinned[n.name] for n in nodes}

    def node(self, name: str) -> Node:
        """The node of that name."""
        return self._by_name[name]

    def chunk(self, name: str, index: int) -> Any:
        """Value of a node on one chunk; evaluates it and missing ancestors on all chunks if needed.

        Raises:
            RuntimeError: the value was dropped after its last reader.
        """
        node = self._by_name[name]
        if node.op == "placeholder":
            return self._images[self._chunks[index]].to(self._device)
        if node not in self._stored:
            if node in self._done:
                raise RuntimeError(f"{name} was freed; it needed another pin")
            self._evaluate(self._pending(node))
        return self._store.get(self._key(node, index))

    def release(self, name: str) -> None:
        """Release one pin of the node."""
        node = self._by_name[name]
        self._readers[node] -= 1
        self._forget([node])

    def _key(self, node: Node, index: int) -> tuple[str, str, int]:
        return self._name, node.name, index

    def _pending(self, node: Node) -> list[Node]:
        needed: set[Node] = set()
        stack = [node]
        while stack:
            current = stack.pop()
            if current in needed or current in self._stored or current.op in ("get_attr", "placeholder"):
                continue
            needed.add(current)
            stack.extend(current.all_input_nodes)
        return sorted(needed, key=self._place.__getitem__)

    @torch.no_grad()
    def _evaluate(self, pending: list[Node]) -> None:
        """Compute nodes on every chunk; store values read later, drop those without further readers."""
        for node in pending:
            for operand in node.all_input_nodes:
                self._readers[operand] -= 1
        last = self._last_readers(pending)
        kept = {n for n in pending if self._readers[n] > 0}
        read_here = {o for n in pending for o in n.all_input_nodes if o in self._stored}
        for index in range(len(self._chunks)):
            values: dict[Node, Any] = {}
            for node in pending:
                values[node] = self._run(node, values, index)
                if node in kept:
                    self._store.put(self._key(node, index), values[node], half=self._half(node))
                for operand in last.get(node, ()):
                    values.pop(operand, None)
            for operand in read_here:
                if self._readers[operand] <= 0:
                    self._store.drop(self._key(operand, index))
        self._done.update(pending)
        self._stored |= kept
        self._forget(read_here)

    def _run(self, node: Node, values: dict[Node, Any], index: int) -> Any:
        assert node.op == "call_function"
        assert callable(node.target)

        def read(argument: Node) -> Any:
            if argument.op == "get_attr":
                return get_attribute(self._module, str(argument.target))
            if argument not in values:
                values[argument] = self.chunk(argument.name, index)
            return values[argument]

        args = torch.fx.node.map_arg(node.args, read)
        kwargs = torch.fx.node.map_arg(node.kwargs, read)
        return node.target(*args, **kwargs)

    def _last_readers(self, pending: list[Node]) -> dict[Node, list[Node]]:
        """By node, the operands that no later node of ``pending`` reads."""
        final: dict[Node, Node] = {}
        for node in pending:
            for operand in node.all_input_nodes:
                final[operand] = node
            final.setdefault(node, node)
        by_node: dict[Node, list[Node]] = {}
        for operand, node in final.items():
            by_node.setdefault(node, []).append(operand)
        return by_node

    def _half(self, node: Node) -> bool:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return False
        numbers = math.prod(int(size) for size in value.shape[1:])
        return numbers * _FLOAT_BYTES * sum(map(len, self._chunks)) > HALF_BEYOND_BYTES

    def _forget(self, nodes: list[Node] | set[Node]) -> None:
        for node in nodes:
            if self._readers[node] <= 0 and node in self._stored:
                self._stored.discard(node)
                for index in range(len(self._chunks)):
                    self._store.drop(self._key(node, index))
