"""Coupling analysis: walk the graph once, apply the rules, and turn classes of atoms into players."""

from __future__ import annotations

from collections import Counter

import numpy as np
from torch.fx import Node

from edgeprune.artifacts.arrays import IndexArray
from edgeprune.artifacts.choices import AttentionUnit, CouplingOptions
from edgeprune.artifacts.coupling import (
    NO_PLAYER,
    CoupledGroup,
    CouplingGraph,
    FrozenChannels,
    MaskPoint,
    WeightedLayer,
)
from edgeprune.artifacts.model import CapturedModel
from edgeprune.coupling.context import Context, Labelling
from edgeprune.coupling.labels import FROZEN, Atoms, DimLabels, Freeze
from edgeprune.coupling.layout import trace_images
from edgeprune.coupling.plugins import load_rule_plugins
from edgeprune.coupling.products import activation_products
from edgeprune.coupling.rules import builtin  # noqa: F401 - registers all rules
from edgeprune.coupling.rules.attention_heads import find_head_splits
from edgeprune.coupling.rules.table import RULES, freeze_all
from edgeprune.fx import op_name

_NAMED = 5
"""Nodes named in a note."""


def couple(captured: CapturedModel, options: CouplingOptions | None = None) -> CouplingGraph:
    """Find the players of a captured model, their groups, mask points and index maps.

    Labels follow the channels through the ATen graph: union-find over the indices of the weights'
    dimensions. An op without a rule freezes the channels that touch it and is listed.
    """
    load_rule_plugins()
    context = Context(graph_module=captured.graph_module, options=options or CouplingOptions())
    context.head_splits, headless = find_head_splits(context)
    for node in captured.graph_module.graph.nodes:
        context.image_rows[node] = trace_images(context, node)
        context.values[node] = _visit(context, node)
    return _assemble(context, _notes(context, headless))


def _notes(context: Context, headless: list[Node]) -> tuple[str, ...]:
    """Notes on options that could not be applied."""
    if context.options.attention is not AttentionUnit.HEADS or not headless:
        return ()
    names = ", ".join(n.name for n in headless[:_NAMED]) + (", ..." if len(headless) > _NAMED else "")
    return (
        f"whole heads were asked for, but {len(headless)} products of activations do not tell heads apart "
        f"({names}); there, channels of the heads leave in step",
    )


def _visit(context: Context, node: Node) -> Labelling:
    if node.op in ("placeholder", "get_attr"):
        return {}
    if node.op == "output":
        return freeze_all(context, node, "output of the model")
    rule = RULES.get(op_name(node))
    if rule is None:
        if _carries_labels(context, node):
            context.unruled.append(node)
        return freeze_all(context, node, "no rule for this op")
    return rule(context, node)


def _carries_labels(context: Context, node: Node) -> bool:
    return any(context.values.get(operand) for operand in node.all_input_nodes)


class _Players:
    """Player numbers of the removable classes, in the order of their first producing layer."""

    def __init__(self, context: Context) -> None:
        masked: set[int] = set()
        for mask in context.masks:
            masked.update(context.atoms.roots(mask.atoms).tolist())
        masked.discard(FROZEN)
        self._context = context
        self.number: dict[int, int] = {}
        for layer in context.layers:
            for root in context.atoms.roots(layer.out_atoms).tolist():
                if root in masked and root not in self.number:
                    self.number[root] = len(self.number)

    def of(self, atoms: Atoms) -> IndexArray:
        roots = self._context.atoms.roots(atoms)
        return np.array([self.number.get(r, NO_PLAYER) for r in roots.tolist()], dtype=np.int64)


def _assemble(context: Context, notes: tuple[str, ...]) -> CouplingGraph:
    players = _Players(context)
    names = _layer_names(context)
    parameter_players = {
        key: indices
        for key, atoms in context.parameters.items()
        if ((indices := players.of(atoms)) != NO_PLAYER).any()
    }
    layers = tuple(
        WeightedLayer(
            name=label,
            node=record.node.name,
            op=record.op,
            weight=record.weight,
            macs_per_weight=record.macs_per_weight,
            out_players=players.of(record.out_atoms),
            in_players=players.of(record.in_atoms),
        )
        for label, record in zip(names, context.layers, strict=True)
    )
    sizes = _node_players(context, players)
    return CouplingGraph(
        num_players=len(players.number),
        groups=_groups(parameter_players, layers, len(players.number)),
        mask_points=tuple(
            MaskPoint(
                consumer=m.node.name,
                source=m.source.name,
                dim=m.dim,
                players=indices,
                batch=m.batch,
                renormalises=m.renormalises,
                inside=m.inside,
            )
            for m in context.masks
            if ((indices := players.of(m.atoms)) != NO_PLAYER).any()
        ),
        layers=layers,
        frozen=_frozen(context, players, names),
        parameter_players=parameter_players,
        node_players=sizes,
        products=activation_products(context, sizes),
        unruled_ops=tuple(f"{op_name(n)} ({n.name})" for n in context.unruled),
        notes=notes,
    )


def _layer_names(context: Context) -> list[str]:
    """Name of each weighted layer: its weight's path without ``.weight``; later uses are numbered."""
    seen: Counter[str] = Counter()
    names = []
    for record in context.layers:
        base = record.weight.removesuffix(".weight")
        seen[base] += 1
        names.append(base if seen[base] == 1 else f"{base}@{seen[base]}")
    return names


def _groups(
    parameter_players: dict[tuple[str, int], IndexArray], layers: tuple[WeightedLayer, ...], num_players: int
) -> tuple[CoupledGroup, ...]:
    """Players with the same multiset of parameter dimensions are interchangeable and form one group."""
    signatures: list[list[tuple[str, int, int]]] = [[] for _ in range(num_players)]
    for (name, dim), indices in sorted(parameter_players.items()):
        used, counts = np.unique(indices[indices != NO_PLAYER], return_counts=True)
        for player, count in zip(used.tolist(), counts.tolist(), strict=True):
            signatures[player].append((name, dim, count))
    members: dict[tuple[tuple[str, int, int], ...], list[int]] = {}
    for player, signature in enumerate(signatures):
        members.setdefault(tuple(signature), []).append(player)
    groups = []
    taken: Counter[str] = Counter()
    for players in members.values():
        first = players[0]
        producing = tuple(x.name for x in layers if (x.out_players == first).any())
        consuming = tuple(x.name for x in layers if (x.in_players == first).any())
        taken[producing[0]] += 1
        suffix = f"#{taken[producing[0]]}" if taken[producing[0]] > 1 else ""
        groups.append(
            CoupledGroup(
                name=producing[0] + suffix,
                players=tuple(players),
                layers=producing,
                consumers=consuming,
            )
        )
    return tuple(groups)


def _frozen(context: Context, players: _Players, names: list[str]) -> tuple[FrozenChannels, ...]:
    unknown = Freeze(node="", op="", reason="never enters a layer that could do without it")
    rows = []
    for name, record in zip(names, context.layers, strict=True):
        stay = record.out_atoms[players.of(record.out_atoms) == NO_PLAYER]
        if not len(stay):
            continue
        because = next(
            (reason for atom in stay.tolist() if (reason := context.atoms.reason_of(atom))), unknown
        )
        rows.append(
            FrozenChannels(
                layer=name,
                channels=len(stay),
                op=because.op,
                node=because.node,
                reason=because.reason,
            )
        )
    return tuple(rows)


def _stored_labels(context: Context, node: Node) -> DimLabels:
    """Labels of a stored tensor's dimensions that a rule touched."""
    name = str(node.target)
    touched = range(len(context.shape(node)))
    return {dim: context.parameters[(name, dim)] for dim in touched if (name, dim) in context.parameters}


def _node_players(context: Context, players: _Players) -> dict[tuple[str, int], IndexArray]:
    """Players along every dimension of an activation whose size changes when they are removed."""
    result = {}
    for node, labelling in context.values.items():
        carried = _stored_labels(context, node) if node.op == "get_attr" else labelling
        several = carried if isinstance(carried, list) else [carried]
        for number, labels in enumerate(several):
            for dim, atoms in labels.items():
                indices = players.of(atoms)
                if (indices != NO_PLAYER).any():
                    name = node.name if not isinstance(labelling, list) else f"{node.name}[{number}]"
                    result[(name, dim)] = indices
    return result
