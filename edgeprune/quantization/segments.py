"""Cut a network where a single tensor passes, into the pieces that mixed precision chooses among."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import NodeProto

from edgeprune.quantization.preparation import FloatModel, is_weighted

MOST_SEGMENTS = 16


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Nodes in a row: their names, the weighted ones among them, and the values of the tensor they end with
    (for one image)."""

    nodes: tuple[str, ...]
    weighted: tuple[str, ...]
    work: int
    ends_with: str
    end_values: int


def segments(model: FloatModel, most: int = MOST_SEGMENTS) -> tuple[Segment, ...]:
    """Pieces between tensors through which all data pass, at most ``most``: those of the least work join.

    Pieces without weights join the one before, or the first one after.
    """
    pieces: list[Segment] = []
    for nodes in _pieces(model):
        piece = _segment(model, nodes)
        idle = not piece.weighted or (pieces and not pieces[-1].weighted)
        if pieces and idle:
            pieces[-1] = _joined(pieces[-1], piece)
        else:
            pieces.append(piece)
    while len(pieces) > most:
        place = min(range(len(pieces) - 1), key=lambda i: pieces[i].work + pieces[i + 1].work)
        pieces[place : place + 2] = [_joined(pieces[place], pieces[place + 1])]
    return tuple(pieces)


def _pieces(model: FloatModel) -> list[list[NodeProto]]:
    """Nodes between one lone tensor and the next, in order."""
    last_use: dict[str, int] = {}
    nodes = list(model.proto.graph.node)
    for place, node in enumerate(nodes):
        for name in node.input:
            last_use[name] = place
    outputs = {value.name for value in model.proto.graph.output}
    alive: set[str] = {model.input_name}
    pieces: list[list[NodeProto]] = [[]]
    for place, node in enumerate(nodes):
        pieces[-1].append(node)
        computed = any(name in alive for name in node.input)
        if computed:
            alive.update(name for name in node.output if name in model.shapes)
        alive = {name for name in alive if last_use.get(name, -1) > place or name in outputs}
        lone = len(alive) == 1 and computed
        if lone and place + 1 < len(nodes):
            pieces.append([])
    return [piece for piece in pieces if piece]


def _segment(model: FloatModel, nodes: list[NodeProto]) -> Segment:
    weighted = tuple(node.name for node in nodes if is_weighted(node, model))
    end = nodes[-1].output[0]
    return Segment(
        nodes=tuple(node.name for node in nodes),
        weighted=weighted,
        work=sum(_work(node, model) for node in nodes if node.name in weighted),
        ends_with=end,
        end_values=math.prod(model.shapes.get(end, (1,))),
    )


def _work(node: NodeProto, model: FloatModel) -> int:
    """Multiply-adds of one image, about: weights times positions of the output."""
    positions = math.prod(model.shapes.get(node.output[0], (1,))[1:])
    return int(model.weights[node.input[1]].size * positions)


def _joined(first: Segment, second: Segment) -> Segment:
    return Segment(
        nodes=first.nodes + second.nodes,
        weighted=first.weighted + second.weighted,
        work=first.work + second.work,
        ends_with=second.ends_with,
        end_values=second.end_values,
    )
