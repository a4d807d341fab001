"""Graph behaviour that affects figures per image: mixing the images of a batch, drawing random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeprune.fx import op_name
from edgeprune.showing import first_few

_MOST_NAMES = 3


def batch_statistics_notes(graph_module: GraphModule) -> tuple[str, ...]:
    """One note on all batch norms that normalise with the statistics of the batch, if there are any.

    Such a norm stores no statistics (``track_running_stats=False``) or ignores them (``training=True``).
    """
    norms = [n for n in graph_module.graph.nodes if n.op == "call_function" and _normalises_the_batch(n)]
    if not norms:
        return ()
    return (
        f"batch norm without stored statistics at {_names(norms)}: in evaluation mode, too, it normalises "
        "with the statistics of the batch, so the images of a batch see each other and figures per image "
        "depend on which images share a batch",
    )


def active_random_ops(graph_module: GraphModule) -> str | None:
    """Nodes that draw random numbers, in words; ``None`` where there are none."""
    nodes = [n for n in graph_module.graph.nodes if n.op == "call_function" and _draws(n)]
    return _names(nodes) if nodes else None


def _normalises_the_batch(node: Node) -> bool:
    if "batch_norm" not in op_name(node) or not _carries_batch_first(node.args[0]):
        return False
    arguments = dict(_arguments(node))
    return arguments.get("training") is True or getattr(node.target, "_overloadname", "") == "no_stats"


def _carries_batch_first(value: Any) -> bool:
    """Whether dimension 0 is the batch; instance norm may be a batch norm over one image, mixing none."""
    shape = list(value.meta["val"].shape) if isinstance(value, Node) else []
    return bool(shape) and not isinstance(shape[0], int)


def _draws(node: Node) -> bool:
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    given = dict(_arguments(node))
    switched_off = given.get("train") is False or given.get("training") is False
    return not switched_off and 0.0 not in (given.get("p"), given.get("dropout_p"))


def _arguments(node: Node) -> Iterator[tuple[str, Any]]:
    """Arguments by name, defaults included."""
    schema = getattr(node.target, "_schema", None)
    for place, argument in enumerate(() if schema is None else schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        given = node.args[place] if place < len(node.args) else default
        yield argument.name, node.kwargs.get(argument.name, given)


def _names(nodes: list[Node]) -> str:
    return first_few([_name(node) for node in nodes], _MOST_NAMES)


def _name(node: Node) -> str:
    """``backbone.norm1 (node batch_norm_3)``; the node alone where its module is not known."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    # A later call of the same module is NAME@1.
    path = str(stack[-1][0]).partition("@")[0] if stack else ""
    return f"{path} (node {node.name})" if path else f"node {node.name}"
