"""Graph structure around a layer for least squares: its normalisation, residual add and unfolding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional

from edgeprune.fx import op_name

_BATCH_NORMS = ("_native_batch_norm_legit_no_training", "batch_norm", "native_batch_norm")


@dataclass(frozen=True, kw_only=True)
class LayerSite:
    """Names of the nodes around one weighted layer.

    ``linear_output`` is the layer's output after its batch norm; ``residual`` is the add that is its only
    user, and ``shortcut`` the add's other operand.
    """

    node: str
    source: str
    weight: str
    bias: str | None
    norm: str | None
    linear_output: str
    residual: str | None
    shortcut: str | None


def find_site(module: GraphModule, name: str) -> LayerSite:
    """Look up what follows the weighted layer ``name`` in the graph."""
    node = next(n for n in module.graph.nodes if n.name == name)
    source, weight = node.args[0], node.args[1]
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    norm, output = find_norm(node)
    residual, shortcut = _following_add(output)
    return LayerSite(
        node=name,
        source=source.name,
        weight=str(weight.target),
        bias=str(bias.target) if isinstance(bias, Node) and bias.op == "get_attr" else None,
        norm=norm.name if norm is not None else None,
        linear_output=output.name,
        residual=residual.name if residual is not None else None,
        shortcut=shortcut.name if shortcut is not None else None,
    )


_AVERAGES = frozenset({"mean", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "avg_pool2d"})
_MOVES = frozenset({"flatten", "reshape", "view", "squeeze", "dropout", "contiguous", "clone", "alias"})


@dataclass(frozen=True)
class MapsBehind:
    """Feature maps (images, channels, height, width) that a layer reads averaged or flattened."""

    node: Node
    averaged: bool


def maps_behind(node: Node) -> MapsBehind | None:
    """The feature maps that ``node`` averages by channel or flattens; ``None`` for other nodes."""
    current, averaged = node, False
    while op_name(current) in _AVERAGES or op_name(current) in _MOVES:
        averaged = averaged or op_name(current) in _AVERAGES
        operand = current.args[0]
        if not isinstance(operand, Node):
            return None
        current = operand
    read, maps = (n.meta.get("val") for n in (node, current))
    if current is node or not isinstance(read, Tensor) or not isinstance(maps, Tensor) or maps.dim() != 4:
        return None
    if averaged:
        pooled = read.dim() >= 2 and all(_is(size, 1) for size in read.shape[2:])
        return MapsBehind(current, True) if pooled and read.shape[1] == maps.shape[1] else None
    numbers = [size for size in maps.shape[1:] if isinstance(size, int)]
    whole = read.dim() == 2 and len(numbers) == 3 and _is(read.shape[1], math.prod(numbers))
    return MapsBehind(current, False) if whole else None


def _is(size: object, number: int) -> bool:
    return isinstance(size, int) and size == number


def has_computed_bias(node: Node) -> bool:
    """Whether a weighted layer's bias is the result of an op, so that no new bias can be stored."""
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    return isinstance(bias, Node) and bias.op != "get_attr"


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def find_norm(node: Node) -> tuple[Node | None, Node]:
    """The batch norm with stored scale and shift that is a layer's only user, and its output node."""
    user = _only_user(node)
    if user is None or op_name(user) not in _BATCH_NORMS or user.args[0] is not node:
        return None, node
    if not all(isinstance(stored, Node) for stored in user.args[1:5]):  # no scale and shift to write to
        return None, node
    if op_name(user) == "batch_norm":
        return user, user
    result = next((u for u in user.users if op_name(u) == "getitem" and u.args[1] == 0), None)
    return (user, result) if result is not None else (None, node)


def _following_add(output: Node) -> tuple[Node | None, Node | None]:
    user = _only_user(output)
    if user is None or op_name(user) not in ("add", "add_") or user.kwargs.get("alpha", 1) != 1:
        return None, None
    operands = [a for a in user.args if isinstance(a, Node)]
    if len(operands) != 2 or operands[0] is operands[1]:
        return None, None
    other = operands[1] if operands[0] is output else operands[0]
    return user, other


def depends_on(node: Node, unsolved: set[str]) -> bool:
    """Whether a node is computed from any of the named nodes."""
    seen: set[Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.name in unsolved:
            return True
        stack.extend(current.all_input_nodes)
    return False


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a convolution or linear layer reads its input."""

    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    is_linear: bool

    @property
    def channel_dim(self) -> int:
        """Channel dimension of the layer's output."""
        return -1 if self.is_linear else 1


def geometry(node: Node, weight: Tensor) -> Geometry | None:
    """Geometry of a linear or two-dimensional convolution node; ``None`` for other kinds."""
    if op_name(node) == "linear":
        return Geometry(groups=1, kernel=(), stride=(), padding=(), dilation=(), is_linear=True)
    if op_name(node) != "conv2d":
        return None
    padding = _pair(node, 4, "padding", 0)
    if padding is None:
        return None
    return Geometry(
        groups=int(_value(node, 6, "groups", 1)),
        kernel=tuple(weight.shape[2:]),
        stride=_pair(node, 3, "stride", 1) or (1, 1),
        padding=padding,
        dilation=_pair(node, 5, "dilation", 1) or (1, 1),
        is_linear=False,
    )


def _value(node: Node, index: int, name: str, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _pair(node: Node, index: int, name: str, default: int) -> tuple[int, ...] | None:
    value = _value(node, index, name, default)
    if isinstance(value, str):
        return None
    if isinstance(value, int):
        return (value, value)
    values = tuple(int(v) for v in value)
    return values * 2 if len(values) == 1 else values


def rows_of(x: Tensor, shape: Geometry, picked: Tensor) -> Tensor:
    """Unfolded input rows (picked, groups, d) at the picked output positions of one batch."""
    if shape.is_linear:
        return x.reshape(-1, x.shape[-1])[picked].unsqueeze(1)
    picked = picked.to(x.device)
    (down, right), (high, wide) = shape.padding, shape.kernel
    last = functional.pad(x, (right, right, down, down)).permute(0, 2, 3, 1).contiguous()
    _, height, width, channels = last.shape
    rows_out, columns_out = (
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, dilation, kernel, stride in zip(
            (height, width), shape.dilation, shape.kernel, shape.stride, strict=True
        )
    )
    image, place = picked // (rows_out * columns_out), picked % (rows_out * columns_out)
    top, left = place // columns_out * shape.stride[0], place % columns_out * shape.stride[1]
    corner = (image * height + top) * width + left
    below = shape.dilation[0] * width * torch.arange(high, device=x.device)
    beside = shape.dilation[1] * torch.arange(wide, device=x.device)
    # Only the picked patches are gathered: unfolding everything takes up to fifty times as long.
    patches = last.view(-1, channels)[corner[:, None] + (below[:, None] + beside).flatten()]
    if shape.groups == 1:
        return patches.transpose(1, 2).reshape(len(picked), 1, -1)
    # Rows of one unknown of one group are contiguous: sums over rows take a tenth of the time.
    by_group = patches.view(len(picked), high * wide, shape.groups, -1).permute(2, 3, 1, 0)
    return by_group.reshape(shape.groups, -1, len(picked)).permute(2, 0, 1)


def targets_of(t: Tensor, shape: Geometry, picked: Tensor) -> Tensor:
    """Target rows (picked, groups, o) at the same positions."""
    if shape.is_linear:
        return t.reshape(-1, t.shape[-1])[picked].unsqueeze(1)
    flat = t.flatten(2)
    rows = flat[picked // flat.shape[2], :, picked % flat.shape[2]].view(len(picked), shape.groups, -1)
    return rows.permute(1, 2, 0).contiguous().permute(2, 0, 1) if shape.groups > 1 else rows


def channels_last(x: Tensor, *, is_linear: bool) -> Tensor:
    """Activation as rows (images * positions, channels)."""
    if is_linear:
        return x.reshape(-1, x.shape[-1])
    return x.flatten(2).transpose(1, 2).reshape(-1, x.shape[1])


def grouped(flat: Tensor, shape: Geometry) -> Tensor:
    """Weights (o, d) as (groups, d, o / groups)."""
    return flat.view(shape.groups, -1, flat.shape[1]).transpose(1, 2)


def ungrouped(solved: Tensor) -> Tensor:
    """Weights (groups, d, o / groups) as (o, d)."""
    return solved.transpose(1, 2).flatten(0, 1)


def same_shape(left: Node, right: Node) -> bool:
    """Whether the values of two nodes have the same shape for an image."""
    a, b = left.meta.get("val"), right.meta.get("val")
    return isinstance(a, Tensor) and isinstance(b, Tensor) and tuple(a.shape[1:]) == tuple(b.shape[1:])
