"""Groups of the requested layers, and the channel indices of their players."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from edgeprune.artifacts.coupling import CoupledGroup, CouplingGraph
from edgeprune.errors import NothingToPruneError, UsageError


def groups_of_layers(coupling: CouplingGraph, layers: Sequence[str]) -> tuple[CoupledGroup, ...]:
    """Groups with output channels of any of ``layers`` (all groups if none is named), in graph order.

    Raises:
        NothingToPruneError: the network has no players.
        UsageError: there is no such layer, or all its channels stay.
    """
    if coupling.num_players == 0:
        raise NothingToPruneError(
            "no channel of the model can be removed, so there is nothing to rank: 'edgeprune inspect' lists "
            "what holds each layer"
        )
    if not layers:
        return coupling.groups
    wanted: set[str] = set()
    for layer in layers:
        names = {g.name for g in coupling.groups if layer == g.name or layer in g.layers}
        if not names:
            raise UsageError(_no_group(coupling, layer))
        wanted |= names
    return tuple(g for g in coupling.groups if g.name in wanted)


def _no_group(coupling: CouplingGraph, layer: str) -> str:
    rankable = list(dict.fromkeys(name for g in coupling.groups for name in (*g.layers, g.name)))
    held = next((f for f in coupling.frozen if f.layer == layer), None)
    if held is not None:
        return (
            f"no channel of layer {layer!r} can be removed ({held.reason}), so there is nothing to rank; "
            f"accepted are {_listed(rankable)}"
        )
    near = difflib.get_close_matches(layer, rankable, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? Accepted are" if near else "accepted are"
    return f"there is no layer {layer!r} to rank; {hint} {_listed(rankable)}"


def _listed(names: Sequence[str], limit: int = 12) -> str:
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more ('edgeprune inspect' lists all)"


def channel_numbers(coupling: CouplingGraph, group: CoupledGroup) -> tuple[int, ...]:
    """Index of every player of a group in the outputs of the group's first layer.

    A player of several channels (an attention head) gets the first of them; a group without a layer numbers
    its players.
    """
    layer = next((each for each in coupling.layers if each.name in group.layers[:1]), None)
    if layer is None:
        return tuple(range(len(group.players)))
    first = {
        int(player): position for position, player in reversed(list(enumerate(layer.out_players.tolist())))
    }
    if not all(player in first for player in group.players):
        return tuple(range(len(group.players)))
    return tuple(first[player] for player in group.players)
