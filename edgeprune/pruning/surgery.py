"""Prune: remove players from the graph's weights and rewrite the shape constants that depend on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx import Graph, GraphModule, Node

from edgeprune.artifacts.coupling import CouplingGraph, kept_positions
from edgeprune.artifacts.model import CapturedModel
from edgeprune.attributes import set_attribute
from edgeprune.coupling.movement import MOVEMENT
from edgeprune.coupling.rewrites import REWRITES, Sizes
from edgeprune.fx import op_name

SURGERY_SCHEMA_VERSION = "1.2"


def prune(
    captured: CapturedModel,
    coupling: CouplingGraph,
    removed: tuple[int, ...],
    *,
    share_unchanged: bool = False,
) -> GraphModule:
    """A new, physically smaller graph without the ``removed`` players; the captured one is not changed.

    Peak memory is that of the new weights plus one layer cut along one dimension only. No tensor is shared
    with the captured graph: either may be changed in place. With ``share_unchanged``, uncut tensors are
    shared, which is faster if the new graph is only run.
    """
    gone = coupling.removed_mask(removed)
    # Compiling the new code needs temporary memory, so the new weights are made after it.
    pruned = _rewritten(captured.graph_module, Sizes(coupling, gone))
    _cut_tensors(pruned, coupling, gone, share_unchanged=share_unchanged)
    return pruned


def _rewritten(source: GraphModule, sizes: Sizes) -> GraphModule:
    """The graph with its sizes rewritten, still on the tensors of ``source``."""
    # Rewrites may add stored tensors to the graph's owner; this one avoids compiling the old code.
    owner = GraphModule(nn.Module(), Graph())
    for name, tensor in _tensors_by_name(source):
        set_attribute(owner, name, tensor)
    graph = copy.deepcopy(source.graph)
    graph.owning_module = owner
    for node in graph.nodes:
        if node.op == "call_function":
            rewrite = REWRITES.get(op_name(node))
            if rewrite is not None:
                rewrite(sizes, node)
    for node in graph.nodes:
        node.meta.pop("val", None)
    pruned = GraphModule(owner, graph, class_name=type(source).__name__)
    pruned.train(source.training)
    return pruned


def _cut_tensors(
    module: nn.Module, coupling: CouplingGraph, gone: NDArray[np.bool_], *, share_unchanged: bool
) -> None:
    """Replace every tensor by its kept positions, or a copy; shared tensors stay shared."""
    keeps: dict[str, dict[int, torch.Tensor]] = {}
    for (name, dim), players in coupling.parameter_players.items():
        keep = kept_positions(players, gone)
        if keep.size < players.size:
            keeps.setdefault(name, {})[dim] = torch.from_numpy(keep)
    tensors = _tensors_by_name(module)
    by_identity: dict[int, dict[int, torch.Tensor]] = {}
    for name, tensor in tensors:
        by_identity.setdefault(id(tensor), {}).update(keeps.get(name, {}))
    made: dict[int, torch.Tensor] = {}
    for name, tensor in tensors:
        if id(tensor) not in made:
            untouched = share_unchanged and not by_identity[id(tensor)]
            made[id(tensor)] = tensor if untouched else _sliced(tensor, by_identity[id(tensor)])
        set_attribute(module, name, made[id(tensor)])


def _tensors_by_name(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers; a tensor with several names is listed under each."""
    return [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]


def _sliced(tensor: torch.Tensor, keeps: dict[int, torch.Tensor]) -> torch.Tensor:
    """A copy of the kept positions; the most reduced dimension is cut first, to keep temporaries small."""
    value = tensor.detach() if keeps else tensor.detach().clone()
    for dim, keep in sorted(keeps.items(), key=lambda item: len(item[1]) / tensor.shape[item[0]]):
        value = value.index_select(dim, keep)
    return nn.Parameter(value, requires_grad=False) if isinstance(tensor, nn.Parameter) else value


def surgery_recipe(
    coupling: CouplingGraph, removed: tuple[int, ...], captured: CapturedModel | None = None
) -> dict[str, Any]:
    """Kept indices by parameter name and dimension, to replay the pruning on the user's own class.

    With ``captured``, the network before pruning, it also holds the input shape without the batch, the
    original shape of every tensor of the graph, to recognise the model, and the new sizes in each module's
    own forward pass, to set its attributes (``docs/surgery-format.md``).
    """
    gone = coupling.removed_mask(removed)
    parameters: dict[str, dict[str, list[int]]] = {}
    for (name, dim), players in sorted(coupling.parameter_players.items()):
        keep = kept_positions(players, gone)
        if keep.size < players.size:
            parameters.setdefault(name, {})[str(dim)] = keep.tolist()
    recipe: dict[str, Any] = {"schema_version": SURGERY_SCHEMA_VERSION, "kept_indices": parameters}
    if captured is not None:
        own = captured.own_names
        recipe["kept_indices"] = {own.get(name, name): dims for name, dims in parameters.items()}
        state = own_state(captured, captured.graph_module.state_dict())
        shapes = [list(shape) for shape in captured.joins.values() or captured.input_shapes]
        recipe.update({"input_shape": shapes[0]} if len(shapes) == 1 else {"input_shapes": shapes})
        recipe["original_shapes"] = {name: list(value.shape) for name, value in sorted(state.items())}
        recipe["module_sizes"] = _module_sizes(captured.graph_module, Sizes(coupling, gone))
    return recipe


def own_state(captured: CapturedModel, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of the captured graph, or of one made from it, under the names of the user's own model."""
    return {captured.own_names.get(name, name): value for name, value in state.items()}


def _module_sizes(graph_module: GraphModule, sizes: Sizes) -> dict[str, dict[str, list[int]]]:
    """Module -> size of some dimension in its own forward pass -> all sizes that it is reduced to."""
    by_module: dict[str, dict[int, set[int]]] = {}
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        stack = [str(path).partition("@")[0] for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        # The export may move a view into the module that reads it, so the enclosing one counts as well.
        moves = op_name(node) in MOVEMENT
        for path in stack[-2:] if moves else stack[-1:]:
            module = by_module.setdefault(path, {})
            for each in (node, *node.all_input_nodes) if moves else (node,):
                for old, new in _sizes_of(each, sizes):
                    module.setdefault(old, set()).add(new)
    return {
        path: {str(old): sorted(new) for old, new in sorted(module.items()) if new != {old}}
        for path, module in sorted(by_module.items())
        if any(new != {old} for old, new in module.items())
    }


def _sizes_of(node: Node, sizes: Sizes) -> Iterator[tuple[int, int]]:
    """Sizes before and after of every dimension, except the batch, of a node's value or values."""
    value = node.meta.get("val")
    several = isinstance(value, (list, tuple))
    parts: list[Any] = list(value) if several else [value]  # type: ignore[arg-type]
    for place, part in enumerate(parts):
        for dim, size in enumerate(getattr(part, "shape", ())):
            if isinstance(size, int):
                keep = sizes.kept(f"{node.name}[{place}]" if several else node.name, dim)
                yield size, size if keep is None else len(keep)
