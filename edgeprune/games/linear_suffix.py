"""A network whose outputs are affine in the masks: one matrix product for thousands of coalitions.

This is derived from the ops after the mask points, each known to be affine in its activation, never from
measured values. Ops before the mask points may be of any kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from edgeprune.coupling.movement import MOVEMENT
from edgeprune.fx import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, op_name
from edgeprune.games.suffix import masks_of
from edgeprune.pruning.masking import ChannelMask

_AFFINE_IN_FIRST = frozenset(
    (
        *MOVEMENT,
        *("select", "getitem", "clone", "contiguous", "alias", "detach", "neg", "mean", "sum"),
        *("cat", "concat", "concatenate", "stack", "hstack", "vstack"),
        *("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d"),
        *("avg_pool1d", "avg_pool2d", "avg_pool3d"),
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool3d"),
        *CONVOLUTIONS,
        *TRANSPOSED_CONVOLUTIONS,
        *("linear", "div", "batch_norm", "dropout"),
        *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"),
    )
)
"""Affine in the first operand while the others do not depend on the masks."""

_AFFINE_IN_ALL = frozenset(("add", "sub", "rsub"))
_BILINEAR = frozenset(("mul", "matmul", "mm", "bmm"))
"""Affine in either of two operands while the other does not depend on the masks."""


def nonlinear_nodes(suffix: GraphModule) -> tuple[str, ...]:
    """Nodes between the masks and the outputs that are not known to be affine; empty if all are."""
    active = _active_nodes(suffix.graph)
    return tuple(
        node.name
        for node in suffix.graph.nodes
        if node in active
        and node.op not in ("placeholder", "output")
        and not _is_affine(suffix, node, active)
    )


def _active_nodes(graph: Graph) -> set[Node]:
    """Nodes whose values depend on the masks; sizes do not."""
    active = {masks_of(graph)}
    for node in graph.nodes:
        if op_name(node) != "sym_size" and any(i in active for i in node.all_input_nodes):
            active.add(node)
    return active


def _is_affine(suffix: GraphModule, node: Node, active: set[Node]) -> bool:
    if node.op == "call_module":
        module = suffix.get_submodule(str(node.target))
        return type(module) is ChannelMask and node.args[0] not in active
    name, places = op_name(node), _active_places(node, active)
    if name in _AFFINE_IN_ALL:
        return places <= {0, 1}
    if name in _BILINEAR:
        return len(places) == 1 and places <= {0, 1}
    return name in _AFFINE_IN_FIRST and places <= {0} and _settings_are_affine(name, node)


def _active_places(node: Node, active: set[Node]) -> set[int | str]:
    """Positions and names of arguments that depend on the masks."""
    given: list[tuple[int | str, object]] = [*enumerate(node.args), *node.kwargs.items()]
    return {place for place, value in given if any(n in active for n in _nodes_in(value))}


def _nodes_in(value: object) -> list[Node]:
    if isinstance(value, (list, tuple)):
        return [n for v in value for n in _nodes_in(v)]
    return [value] if isinstance(value, Node) else []


def _settings_are_affine(name: str, node: Node) -> bool:
    """Whether settings keep an op affine: no rounding division, no batch norm or dropout in training mode."""
    if name == "div":
        return node.kwargs.get("rounding_mode") is None
    if name == "batch_norm":
        return len(node.args) > 5 and node.args[5] is False
    if name == "dropout":
        return len(node.args) > 2 and node.args[2] is False
    return True


@dataclass(frozen=True, kw_only=True)
class LinearSuffix:
    """Outputs as sums over present players: ``base`` (k, ...), ``contributions`` (n, k, ...) by output."""

    base: tuple[Tensor, ...]
    contributions: tuple[Tensor, ...]

    @classmethod
    def of(cls, per_coalition: list[Tensor]) -> LinearSuffix:
        """From outputs (n + 1, k, ...) of the empty coalition and of every player alone."""
        return cls(
            base=tuple(o[0] for o in per_coalition),
            contributions=tuple(o[1:] - o[0] for o in per_coalition),
        )

    def outputs(self, coalitions: Tensor) -> list[Tensor]:
        """Outputs (m x k, ...) of coalitions (m, n) on all images, images innermost."""
        outputs = []
        for base, contributions in zip(self.base, self.contributions, strict=True):
            flat = contributions.reshape(len(contributions), -1)
            sums = torch.addmm(base.reshape(1, -1), coalitions.to(flat), flat)
            outputs.append(sums.reshape(-1, *base.shape[1:]))
        return outputs
