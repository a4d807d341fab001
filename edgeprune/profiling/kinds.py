"""What kind of kernel runs a node, and how much it has to do, from the node and the shapes around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from onnx import NodeProto, helper

from edgeprune.errors import ProfileError

Shape = tuple[int, ...]

CONVOLUTIONS = frozenset({"Conv", "FusedConv", "QLinearConv", "ConvInteger"})
TRANSPOSED = "ConvTranspose"
PRODUCTS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("Gemm", "FusedGemm", "MatMul", "FusedMatMul", "TransposeMatMul"), (0, 1)),
    **dict.fromkeys(("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"), (0, 1)),
    **dict.fromkeys(("QLinearMatMul", "QGemm"), (0, 3)),
}
"""Operators that multiply matrices, and at which of their inputs these are."""
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
"""Operators that step through a sequence; inputs 1 and 2 are weights (directions, gates x hidden, ...)."""
WEIGHT_AT: Mapping[str, int] = {"QLinearConv": 3}
"""Input with the weight of a convolution where it is not the second."""

_NO_PRODUCT = (0, 0, 0, 1)
_SIZES = ("rows", "depth", "columns", "groups")
_VIEWS = frozenset(
    {"Constant", "ConstantOfShape", "Dropout", "Flatten", "Identity"}
    | {"Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"}
)
_MOVES = frozenset(
    {"Concat", "QLinearConcat", "Transpose", "Slice", "Split", "Gather", "GatherElements", "GatherND", "Pad"}
    | {"Expand", "Tile", "DepthToSpace", "SpaceToDepth", "ReorderInput", "ReorderOutput", "Cast", "Where"}
)
_POOLS = frozenset({"MaxPool", "AveragePool", "NhwcMaxPool", "QLinearAveragePool", "LpPool"})
_REDUCTIONS = frozenset(
    {"GlobalAveragePool", "GlobalMaxPool", "QLinearGlobalAveragePool", "QLinearReduceMean"}
)
_NORMALIZATIONS = frozenset(
    {"LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "InstanceNormalization"}
    | {"GroupNormalization", "LpNormalization", "RMSNormalization", "BatchNormalization"}
)
_SOFTMAXES = frozenset({"Softmax", "LogSoftmax", "QLinearSoftmax"})
_RESIZES = frozenset({"Resize", "Upsample", "GridSample"})
_BORDERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_CHEAP = frozenset(
    {"Add", "Sub", "Mul", "Relu", "Clip", "Max", "Min", "Abs", "Neg", "QLinearAdd", "QLinearMul"}
)


class OpKind(Enum):
    """Which kernel family runs a node."""

    CONV = "convolution"
    POINTWISE = "pointwise convolution"
    DEPTHWISE = "depthwise convolution"
    GROUPED = "grouped convolution"
    GEMM = "matrix product"
    ELEMENTWISE = "elementwise"
    FUNCTION = "function of every value"
    POOL = "pooling"
    REDUCTION = "reduction"
    NORMALIZATION = "normalization"
    SOFTMAX = "softmax"
    RESIZE = "resize"
    BORDER = "border between 8 and 32 bits"
    MEMORY = "moves data"
    FREE = "free: folded, fused or no data moved"


@dataclass(frozen=True, kw_only=True)
class OpWork:
    """Work of one node for one input: ``bytes_moved`` counts inputs, weights and outputs once each.

    ``integer``: calculated in 8 bits. A node with MACs is ``groups`` products of matrices of ``rows`` (output
    channels) x ``depth`` and ``depth`` x ``columns`` (output positions); all are 0 for others.
    ``taps``: positions of a convolution's kernel.
    ``activation``: what onnxruntime has fused into the node, by the name of its operator.
    ``strided_values``: those that a transposition moves one by one: more than one axis changes its place,
    the last among them.
    """

    op_type: str
    name: str
    kind: OpKind
    macs: int
    bytes_moved: int
    integer: bool = False
    rows: int = 0
    depth: int = 0
    columns: int = 0
    groups: int = 1
    written_bytes: int = 0
    weight_bytes: int = 0
    blocked: bool = False
    taps: int = 1
    activation: str = ""
    strided_values: int = 0

    @property
    def is_depthwise(self) -> bool:
        """Whether this is a convolution with one input channel a group."""
        return self.kind is OpKind.DEPTHWISE


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """Known shapes, bytes of a value and constants of a graph; ``constants`` holds what follows from them."""

    shapes: Mapping[str, Shape]
    item_bytes: Mapping[str, int]
    constants: frozenset[str]

    def bytes_of(self, names: Sequence[str]) -> int:
        """Bytes of those whose shape is known."""
        return sum(math.prod(self.shapes[n]) * self.item_bytes[n] for n in names if n in self.shapes)


def free_work(node: NodeProto) -> OpWork:
    """Of a node that takes no time."""
    return OpWork(op_type=node.op_type, name=node.name, kind=OpKind.FREE, macs=0, bytes_moved=0)


def of_one_input(work: OpWork, batch: int) -> OpWork:
    """Work of a node for one of the inputs of a batch; weights are read once whatever the batch."""
    if batch == 1:
        return work
    in_columns = work.columns % batch == 0
    return replace(
        work,
        macs=work.macs // batch,
        bytes_moved=work.weight_bytes + (work.bytes_moved - work.weight_bytes) // batch,
        written_bytes=work.written_bytes // batch,
        columns=work.columns // batch if in_columns else work.columns,
        groups=work.groups if in_columns else max(1, work.groups // batch),
    )


def is_view(node: NodeProto) -> bool:
    """Whether a node only gives its input another shape."""
    return node.op_type in _VIEWS


def node_work(node: NodeProto, tensors: Tensors) -> OpWork:
    """Work of one node that runs.

    Raises:
        ProfileError: shapes of a convolution or matrix product are not known.
    """
    if is_view(node):
        return free_work(node)
    kind, size = _kind(node), _NO_PRODUCT
    if node.op_type in CONVOLUTIONS or node.op_type == TRANSPOSED:
        kind, size = _convolution(node, tensors)
    elif node.op_type in PRODUCTS:
        kind, size = OpKind.GEMM, _product(node, tensors)
    elif node.op_type in RECURRENT:
        kind, size = OpKind.GEMM, _recurrence(node, tensors)
    read = [name for name in node.input if name]
    written = [name for name in node.output if name]
    if node.op_type in ("Gather", "Slice", "Split", "GatherElements", "GatherND"):
        read = written  # what is not taken is not read
    return OpWork(
        op_type=node.op_type,
        name=node.name,
        kind=kind,
        macs=math.prod(size),
        bytes_moved=tensors.bytes_of([*read, *written]),
        integer=_is_integer(node, tensors),
        **dict(zip(_SIZES, size, strict=True)),
        written_bytes=tensors.bytes_of(written),
        weight_bytes=tensors.bytes_of([n for n in read if n in tensors.constants]),
        blocked=node.domain.endswith("nchwc"),
        taps=_taps(node, tensors),
        activation=_text(attribute(node, "activation", "")),
        strided_values=_strided_values(node, tensors),
    )  # fmt: skip


def _kind(node: NodeProto) -> OpKind:
    named = {
        **dict.fromkeys(_MOVES, OpKind.MEMORY),
        **dict.fromkeys(_POOLS, OpKind.POOL),
        **dict.fromkeys(_REDUCTIONS, OpKind.REDUCTION),
        **dict.fromkeys(_NORMALIZATIONS, OpKind.NORMALIZATION),
        **dict.fromkeys(_SOFTMAXES, OpKind.SOFTMAX),
        **dict.fromkeys(_RESIZES, OpKind.RESIZE),
        **dict.fromkeys(_BORDERS, OpKind.BORDER),
        **dict.fromkeys(_CHEAP, OpKind.ELEMENTWISE),
    }
    if node.op_type.startswith("Reduce"):
        return OpKind.REDUCTION
    return named.get(node.op_type, OpKind.FUNCTION)


def _is_integer(node: NodeProto, tensors: Tensors) -> bool:
    """Whether a node calculates with values of one byte."""
    if node.op_type in _BORDERS:
        return True
    first = next(
        (n for n in node.input if n and n in tensors.item_bytes and len(tensors.shapes[n]) > 0), None
    )
    return first is not None and tensors.item_bytes[first] == 1


def _shape(node: NodeProto, name: str, tensors: Tensors) -> Shape:
    if name not in tensors.shapes:
        raise ProfileError(
            f"the shape of {name!r} at {node.op_type} node {node.name!r} cannot be inferred; "
            "export the model with fixed sizes"
        )
    return tensors.shapes[name]


def attribute(node: NodeProto, name: str, default: object) -> object:
    """Value of an attribute."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _taps(node: NodeProto, tensors: Tensors) -> int:
    if node.op_type not in CONVOLUTIONS:
        return 1
    return math.prod(_shape(node, node.input[WEIGHT_AT.get(node.op_type, 1)], tensors)[2:])


def _strided_values(node: NodeProto, tensors: Tensors) -> int:
    if node.op_type != "Transpose":
        return 0
    sizes = _shape(node, node.output[0], tensors)
    order = attribute(node, "perm", None)
    axes = order if isinstance(order, list) else list(range(len(sizes)))[::-1]
    # Axes of one value are in nobody's way, and what stays together moves as one.
    longer = [axis for axis, size in zip(axes, sizes, strict=True) if size != 1]
    heads = [a for i, a in enumerate(longer) if i == 0 or longer[i - 1] != _before(a, longer)]
    if not heads or longer[-1] == max(longer):
        return 0
    one_moves = any([h for h in heads if h != head] == sorted(set(heads) - {head}) for head in heads)
    return 0 if one_moves else math.prod(sizes)


def _before(axis: int, axes: Sequence[int]) -> int | None:
    """The largest of the axes below one."""
    return max((other for other in axes if other < axis), default=None)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _convolution(node: NodeProto, tensors: Tensors) -> tuple[OpKind, tuple[int, int, int, int]]:
    weight = _shape(node, node.input[WEIGHT_AT.get(node.op_type, 1)], tensors)
    groups = int(str(attribute(node, "group", 1)))
    if node.op_type == TRANSPOSED:
        # Each input value meets the weight elements without its dimension 0.
        given = _shape(node, node.input[0], tensors)
        columns, depth = given[0] * math.prod(given[2:]), math.prod(weight[1:])
        rows, channels = given[1] // groups, weight[0]
    else:
        result = _shape(node, node.output[0], tensors)
        last = bool(attribute(node, "channels_last", 0))
        columns = result[0] * math.prod(result[1:-1] if last else result[2:])
        # A blocked layout pads channels; the kernels calculate the padding, too.
        depth, rows = math.prod(weight[1:]), max(1, weight[0] // groups)
        channels = weight[1] * groups
    if groups > 1 and groups == channels:
        kind = OpKind.DEPTHWISE
    elif groups > 1:
        kind = OpKind.GROUPED
    else:
        kind = OpKind.POINTWISE if math.prod(weight[2:]) == 1 else OpKind.CONV
    return kind, (rows, depth, columns, groups)


def _recurrence(node: NodeProto, tensors: Tensors) -> tuple[int, int, int, int]:
    """Gates of each step from its input and the hidden state; sums and products of gates are not counted."""
    given, weight, hidden = (_shape(node, name, tensors) for name in node.input[:3])
    directions, gates, inputs = weight
    return gates, inputs + hidden[2], given[0] * given[1], directions


def _product(node: NodeProto, tensors: Tensors) -> tuple[int, int, int, int]:
    first, second = PRODUCTS[node.op_type]
    left, right = (_shape(node, node.input[at], tensors) for at in (first, second))
    result = _shape(node, node.output[0], tensors)
    transposed = bool(attribute(node, "transA", 0))
    inner = left[-2] if transposed and len(left) > 1 else left[-1]
    if len(right) < 2:
        return 1, inner, math.prod(result), 1
    wide = result[-1] if result else 1
    batch = math.prod(right[:-2])
    return wide, inner, math.prod(result) // max(1, wide * batch), max(1, batch)
