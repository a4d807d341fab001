"""Analysis state that coupling rules read and extend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.artifacts.choices import CouplingOptions
from edgeprune.artifacts.coupling import BatchLayout
from edgeprune.attributes import get_attribute
from edgeprune.coupling.labels import Atoms, AtomTable, DimLabels, Freeze
from edgeprune.fx import op_name

CONCRETE_BATCH = 2
"""Batch size at which data movement is traced: 1 would hide channels folded into the batch."""

Labelling = DimLabels | list[DimLabels]
"""Labels of a node's value; a list for ops that return several tensors."""

Rule = Callable[["Context", Node], Labelling]


@dataclass(frozen=True, kw_only=True)
class MaskCandidate:
    """A dimension of ``source`` that enters the consumer ``node``."""

    node: Node
    source: Node
    dim: int
    atoms: Atoms
    batch: BatchLayout
    renormalises: bool = False
    inside: bool = False


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """A weighted layer as recorded by its rule."""

    node: Node
    weight: str
    op: str
    macs_per_weight: int
    out_atoms: Atoms
    in_atoms: Atoms


@dataclass(frozen=True, kw_only=True)
class HeadSplit:
    """Dimensions of a view before an attention product: head counts, and query/key/value selectors."""

    counting: set[int] = field(default_factory=set)
    picked: set[int] = field(default_factory=set)


@dataclass
class Context:
    """State of one coupling analysis; rules read labels and add unions, mask points and layers."""

    graph_module: GraphModule
    options: CouplingOptions = field(default_factory=CouplingOptions)
    atoms: AtomTable = field(default_factory=AtomTable)
    values: dict[Node, Labelling] = field(default_factory=dict)
    parameters: dict[tuple[str, int], Atoms] = field(default_factory=dict)
    masks: list[MaskCandidate] = field(default_factory=list)
    layers: list[LayerRecord] = field(default_factory=list)
    unruled: list[Node] = field(default_factory=list)
    head_splits: dict[Node, HeadSplit] = field(default_factory=dict)
    image_rows: dict[Node, tuple[int, NDArray[np.int64]] | None] = field(default_factory=dict)

    def because(self, node: Node, reason: str) -> Freeze:
        """A freeze reason that names the node and its op."""
        return Freeze(node=node.name, op=op_name(node), reason=reason)

    def labels(self, value: Any) -> DimLabels:
        """Labels of a tensor argument; every dimension of a stored tensor has atoms of its own."""
        if not isinstance(value, Node):
            return {}
        if value.op == "get_attr":
            return {d: self.parameter(value, d) for d, size in enumerate(self.shape(value)) if size > 1}
        labelling = self.values.get(value, {})
        if isinstance(labelling, list):
            raise TypeError(f"{value.name} is a list of tensors")
        return labelling

    def is_parameter(self, value: Any) -> bool:
        """Whether the argument is a stored tensor rather than an activation."""
        return isinstance(value, Node) and value.op == "get_attr"

    def parameter(self, node: Node, dim: int) -> Atoms:
        """Atoms of one dimension of a stored tensor, allocated on first use."""
        key = (str(node.target), dim)
        if key not in self.parameters:
            self.parameters[key] = self.atoms.new(self.shape(node)[dim])
        return self.parameters[key]

    def tensor(self, node: Node) -> Tensor:
        """The stored tensor behind a ``get_attr`` node."""
        value = get_attribute(self.graph_module, str(node.target))
        if not isinstance(value, Tensor):
            raise TypeError(f"{node.target} is not a tensor")
        return value

    def shape(self, node: Node) -> tuple[int, ...]:
        """Shape of a node's value at ``CONCRETE_BATCH``."""
        if node.op == "get_attr":
            return tuple(self.tensor(node).shape)
        return tuple(concrete_int(s) for s in node.meta["val"].shape)

    def symbolic_dims(self, node: Node) -> set[int]:
        """Dimensions whose size depends on the batch."""
        if node.op == "get_attr":
            return set()
        return {i for i, s in enumerate(node.meta["val"].shape) if not isinstance(s, int)}

    def couple(self, node: Node, left: Atoms, right: Atoms) -> None:
        """Union two label vectors on behalf of ``node``."""
        self.atoms.union(left, right, self.because(node, "coupled with channels that stay"))

    def freeze(self, node: Node, labels: DimLabels, reason: str) -> None:
        """Freeze every label of a value on behalf of ``node``."""
        for atoms in labels.values():
            self.atoms.freeze(atoms, self.because(node, reason))

    def add_mask(self, candidate: MaskCandidate) -> None:
        """Declare that a dimension of a value enters a consumer."""
        self.masks.append(candidate)

    def add_layer(self, record: LayerRecord) -> None:
        """Declare a weighted layer, whose output channels can be pruned."""
        self.layers.append(record)


def concrete_int(size: Any) -> int:
    """Size with every symbol (all stand for the batch) set to ``CONCRETE_BATCH``."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.xreplace(dict.fromkeys(expression.free_symbols, CONCRETE_BATCH)))


def concrete_argument(value: Any) -> Any:
    """An op argument with symbolic sizes made concrete; tensors are left as nodes."""
    if isinstance(value, Node):
        meta = value.meta.get("val")
        if isinstance(meta, (int, float, bool)):
            return meta
        if isinstance(meta, torch.SymInt):
            return concrete_int(meta)
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(concrete_argument(v) for v in value)
    return value


def rows_per_image(sizes: tuple[int, ...]) -> int:
    """Rows per image, from all sizes but the channels': windows or tokens may share the batch dimension."""
    return -(-math.prod(sizes) // CONCRETE_BATCH)


def repeat_each(atoms: Atoms, times: int) -> Atoms:
    """Each atom repeated ``times`` times consecutively."""
    return np.repeat(atoms, times)
