"""Constant folding: compute once what a captured graph computes for every image from its weights alone.

Weight standardisation, weight normalisation and other parametrisations give a layer a weight that is the
result of ops; a position bias may come from a small network of its own. In a trained network these are
constants. After folding, such a layer is an ordinary one and can be pruned.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.attributes import get_attribute, has_attribute, set_attribute
from edgeprune.fx import op_name

FOLDED = "folded"
"""Part of the name of every folded tensor: ``stem.conv.folded.weight``."""

_LAYERS = re.compile(r"conv\d?d?|convolution|conv_transpose[123]d|linear")
_PARAMETRISED = re.compile(r"\.parametrizations\..*$")


def fold_computed_weights(graph_module: GraphModule) -> tuple[str, ...]:
    """Replace computed weights, and outputs of layers without image input, by stored tensors.

    A stored tensor has the layer's name with ``folded`` in it; what only the computation used is dropped.
    Returns the new names. ``graph_module`` is changed in place; its outputs are not.
    """
    constant = _constant_nodes(graph_module)
    wanted = [n for n in constant if n.op == "call_function" and _worth_folding(n, constant)]
    names = []
    values: dict[Node, Any] = {}
    for node in wanted:
        value = _evaluate(graph_module, node, values)
        if isinstance(value, Tensor):
            names.append(_store(graph_module, node, value))
    if names:
        _drop_unused(graph_module, constant)
        graph_module.recompile()
    return tuple(names)


def _constant_nodes(graph_module: GraphModule) -> dict[Node, bool]:
    """Nodes that depend only on stored tensors; true where a weighted layer is among their ancestors."""
    constant: dict[Node, bool] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            constant[node] = False
        elif node.op == "call_function" and all(i in constant for i in node.all_input_nodes):
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                continue
            layered = bool(_LAYERS.fullmatch(op_name(node)))
            constant[node] = layered or any(constant[i] for i in node.all_input_nodes)
    return constant


def _worth_folding(node: Node, constant: dict[Node, bool]) -> bool:
    """Whether a node is a layer's weight, or the last constant after a layer without image input."""
    as_weight = any(
        _LAYERS.fullmatch(op_name(user)) and len(user.args) > 1 and user.args[1] is node
        for user in node.users
        if user not in constant
    )
    return as_weight or (constant[node] and any(user not in constant for user in node.users))


@torch.no_grad()
def _evaluate(graph_module: GraphModule, node: Node, values: dict[Node, Any]) -> Any:
    """Value of a constant node; ``values`` caches intermediate results."""
    pending = [node]
    while pending:
        current = pending[-1]
        missing = [i for i in current.all_input_nodes if i not in values]
        if current in values or not missing:
            pending.pop()
        if current not in values and not missing:
            values[current] = _call(graph_module, current, values)
        pending.extend(missing)
    return values[node]


def _call(graph_module: GraphModule, node: Node, values: dict[Node, Any]) -> Any:
    if node.op == "get_attr":
        return get_attribute(graph_module, str(node.target))
    assert callable(node.target)
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
    return node.target(*args, **kwargs)


def _store(graph_module: GraphModule, node: Node, value: Tensor) -> str:
    name = _free_name(graph_module, node)
    set_attribute(graph_module, name, nn.Parameter(value.detach().clone(), requires_grad=False))
    with graph_module.graph.inserting_before(node):
        stored = graph_module.graph.get_attr(name)
    stored.meta.update(node.meta)
    node.replace_all_uses_with(stored)
    return name


def _free_name(graph_module: GraphModule, node: Node) -> str:
    """Unused name ``LAYER.folded.weight``; LAYER is the module of the first stored tensor it depends on."""
    origin = next((n for n in _ancestors(node) if n.op == "get_attr"), None)
    base = "" if origin is None else _PARAMETRISED.sub(".weight", str(origin.target))
    owner = base.rpartition(".")[0]
    prefix = f"{owner}.{FOLDED}" if owner else FOLDED
    number, name = 1, f"{prefix}.weight"
    while has_attribute(graph_module, name):
        number += 1
        name = f"{prefix}{number}.weight"
    return name


def _ancestors(node: Node) -> list[Node]:
    """A node and all nodes that it depends on, in graph order."""
    ancestors, pending = {node}, [node]
    while pending:
        for source in pending.pop().all_input_nodes:
            if source not in ancestors:
                ancestors.add(source)
                pending.append(source)
    return [n for n in node.graph.nodes if n in ancestors]


def _drop_unused(graph_module: GraphModule, constant: dict[Node, bool]) -> None:
    """Erase unused computations, and the stored tensors that only they read."""
    before = {str(n.target) for n in constant if n.op == "get_attr"}
    graph_module.graph.eliminate_dead_code()
    after = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
    for name in before - after:
        *parents, leaf = name.split(".")
        owner = get_attribute(graph_module, ".".join(parents)) if parents else graph_module
        delattr(owner, leaf)
