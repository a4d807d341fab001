"""Prune: remove players from the graph's weights and rewrite the shape constants that depend on them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx import GraphModule

from edgeprune.artifacts.coupling import CouplingGraph, kept_positions
from edgeprune.artifacts.model import CapturedModel
from edgeprune.fx import op_name
from edgeprune.graph.capture import get_attribute, set_attribute
from edgeprune.graph.rewrites import REWRITES, Sizes

SURGERY_SCHEMA_VERSION = "1.1"


def prune(captured: CapturedModel, coupling: CouplingGraph, removed: tuple[int, ...]) -> GraphModule:
    """A new, physically smaller graph without the ``removed`` players; the captured one is not changed."""
    gone = coupling.removed_mask(removed)
    pruned = copy.deepcopy(captured.graph_module)
    _slice_parameters(pruned, coupling, gone)
    for node in pruned.graph.nodes:
        if node.op == "call_function":
            rewrite = REWRITES.get(op_name(node))
            if rewrite is not None:
                rewrite(Sizes(coupling, gone), node)
    for node in pruned.graph.nodes:
        node.meta.pop("val", None)
    pruned.recompile()
    return pruned


def _slice_parameters(module: nn.Module, coupling: CouplingGraph, gone: NDArray[np.bool_]) -> None:
    for (name, dim), players in coupling.parameter_players.items():
        keep = torch.from_numpy(kept_positions(players, gone))
        value = get_attribute(module, name)
        sliced = value.detach().index_select(dim, keep).clone()
        if isinstance(value, nn.Parameter):
            sliced = nn.Parameter(sliced, requires_grad=False)
        set_attribute(module, name, sliced)


def surgery_recipe(
    coupling: CouplingGraph, removed: tuple[int, ...], captured: CapturedModel | None = None
) -> dict[str, Any]:
    """What was kept of each parameter: name -> dimension -> kept indices; replays on the user's own class.

    With ``captured``, the network before pruning, it also tells the input shape without the batch and the
    original shape of every tensor of the graph, to recognise the model (``docs/surgery-format.md``).
    """
    gone = coupling.removed_mask(removed)
    parameters: dict[str, dict[str, list[int]]] = {}
    for (name, dim), players in sorted(coupling.parameter_players.items()):
        keep = kept_positions(players, gone)
        if keep.size < players.size:
            parameters.setdefault(name, {})[str(dim)] = keep.tolist()
    recipe: dict[str, Any] = {"schema_version": SURGERY_SCHEMA_VERSION, "kept_indices": parameters}
    if captured is not None:
        state = captured.graph_module.state_dict()
        recipe["input_shape"] = list(captured.input_shape)
        recipe["original_shapes"] = {name: list(value.shape) for name, value in sorted(state.items())}
    return recipe
