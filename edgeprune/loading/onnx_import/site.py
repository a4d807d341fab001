"""One node of a graph as the importers of operators read it: what they do not ask for is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import nn

from edgeprune.loading.onnx_import.values import Array, Constant, Repeated, Size, Sizes, UnknownFormError

Operation = nn.Module | Callable[..., Any]
"""A layer, or a function of the node's tensors."""


@dataclass(frozen=True)
class WithBatch:
    """A function that takes the batch before the node's tensors."""

    function: Callable[..., Any]


Imported = Operation | WithBatch | list[Operation]
"""What an operator becomes; of several, each takes what the one before gives."""


@dataclass(eq=False)
class Site:
    """A node with its constants, attributes and shapes.

    Constants that are asked for by :meth:`constant` or :meth:`sizes` become part of the operation, the others
    stay operands.
    """

    node: ir.Node
    opset: int
    constants: Mapping[str, Constant]
    batch_dims: Mapping[str, frozenset[int]]
    fixed_batch: int | None = None
    bias: Array | None = None
    """Of an ``Add`` behind a product, which the layer takes over."""
    taken: set[int] = field(default_factory=set)
    stored: list[Array] = field(default_factory=list)
    numbers: bool = False
    """Whether constants of one value may be given as numbers."""
    _asked: set[str] = field(default_factory=set)

    @property
    def inputs(self) -> Sequence[ir.Value | None]:
        """Values that the node reads."""
        return self.node.inputs

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def is_constant(self, index: int) -> bool:
        """Whether an input is a constant."""
        value = self.inputs[index] if self.has(index) else None
        return value is not None and value.name in self.constants

    def peek(self, index: int) -> Constant:
        """A constant input, which stays an operand."""
        value = self.inputs[index]
        if value is None or value.name is None or value.name not in self.constants:
            raise UnknownFormError(f"computes its input {index} from the image, and accepted is a constant")
        return self.constants[value.name]

    def constant(self, index: int) -> Array:
        """A constant input, which is then no operand."""
        self.taken.add(index)
        constant = self.peek(index)
        if isinstance(constant, Repeated):
            return constant.values
        if not isinstance(constant, np.ndarray):
            raise UnknownFormError(f"has an input {index} that changes with the batch")
        return constant

    def optional(self, index: int) -> Array | None:
        """A constant input, ``None`` where it is left out."""
        if not self.has(index):
            return None
        return self.constant(index)

    def sizes(self, index: int) -> tuple[Size, ...]:
        """A constant input of whole numbers, some of which may follow the batch."""
        self.taken.add(index)
        constant = self.peek(index)
        if isinstance(constant, Sizes):
            return constant.entries
        return tuple(int(n) for n in self.constant(index).reshape(-1))

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute; lists become tuples."""
        self._asked.add(name)
        given = self.node.attributes.get(name)
        if given is None:
            return default
        value = given.value
        return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value

    def parameter(self, name: str, index: int) -> tuple[int, ...] | None:
        """Whole numbers of an attribute, or of the input that has its place in later opsets."""
        given = self.attribute(name, None)
        if given is None and self.has(index):
            given = self.constant(index).reshape(-1)
        return None if given is None else tuple(int(n) for n in np.atleast_1d(given))

    def number(self, name: str, index: int) -> float | None:
        """A number of an attribute, or of the input that has its place in later opsets."""
        given = self.attribute(name, None)
        if given is None:
            constant = self.optional(index)
            given = None if constant is None or not constant.size else constant.reshape(-1)[0]
        return None if given is None else float(given)

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of an input for the batch that the graph was folded for."""
        value = self.inputs[index]
        if value is None:
            raise UnknownFormError(f"lacks its input {index}")
        constant = self.constants.get(value.name or "")
        if isinstance(constant, Repeated):
            return tuple(constant.values.shape)
        if isinstance(constant, np.ndarray):
            return tuple(constant.shape)
        known = [size for size in value.shape or () if isinstance(size, int)]
        if value.shape is None or len(known) < len(value.shape):
            raise UnknownFormError(f"has an input {index} whose shape cannot be inferred")
        return tuple(known)

    def follows_batch(self, dim: int) -> bool:
        """Whether a dimension of the first input is as long as the batch, or a multiple of it."""
        value = self.inputs[0]
        return value is not None and dim in self.batch_dims.get(str(value.name), frozenset())

    def rank(self, index: int = 0) -> int:
        """Number of dimensions of an input."""
        return len(self.shape(index))

    def widest(self) -> int:
        """Most dimensions of the inputs that are no constants."""
        shapes = [v.shape for v in self.inputs if v is not None and v.name not in self.constants]
        return max((len(shape) for shape in shapes if shape is not None), default=0)

    def axis(self, name: str, default: int | None = None, *, rank: int | None = None) -> int:
        """An axis, counted from the front."""
        rank = self.rank() if rank is None else rank
        given = self.attribute(name, default)
        if given is None or not -rank <= given < rank:
            raise UnknownFormError(f"has an axis {given} where there are {rank} dimensions")
        return int(given) % rank

    def store(self, values: Array) -> None:
        """A constant of the importer's own as a further operand."""
        self.stored.append(values)

    def ignore(self, *names: str) -> None:
        """Attributes without effect on an inference pass."""
        self._asked.update(names)

    def require(self, name: str, *accepted: Any) -> None:
        """Refuse an attribute with another value than these; the first is the default."""
        given = self.attribute(name, accepted[0])
        if given not in accepted:
            raise UnknownFormError(f"has {name}={given}, and accepted is {' or '.join(map(str, accepted))}")

    def one_output(self) -> None:
        """Refuse further outputs that something reads."""
        if any(value.uses() or value.is_graph_output() for value in self.node.outputs[1:]):
            raise UnknownFormError("has a second output that is used, and accepted is its first alone")

    def check_asked(self) -> None:
        """Refuse attributes that the importer of the operator did not ask for."""
        unknown = sorted(set(self.node.attributes) - self._asked)
        if unknown:
            raise UnknownFormError(f"has an attribute {unknown[0]!r}, which is not known")
