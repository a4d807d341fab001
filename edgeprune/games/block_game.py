"""Game with residual blocks as players: the branch of an absent block adds nothing."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from edgeprune.accelerator import device_of
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import GAME_MEMORY_BYTES
from edgeprune.artifacts.coupling import BatchLayout
from edgeprune.artifacts.model import CapturedModel
from edgeprune.coupling.context import Context
from edgeprune.coupling.layout import image_layout, trace_images
from edgeprune.errors import NothingToPruneError
from edgeprune.fx import WEIGHTED, op_name
from edgeprune.games.layer_game import SuffixGame
from edgeprune.pruning.masking import ChannelMask, add_mask_input


@dataclass(frozen=True, kw_only=True)
class ResidualBlock:
    """``add`` = branch + shortcut, both computed from ``start`` (nodes of the captured graph).

    ``name`` is the path that the branch's weights share (``layer1.0``), else the node of the addition.
    ``dim`` is a dimension of the branch besides the batch, whose layout is ``batch``.
    """

    name: str
    add: str
    branch: str
    shortcut: str
    start: str
    dim: int
    batch: BatchLayout


def find_blocks(captured: CapturedModel) -> tuple[ResidualBlock, ...]:
    """The residual blocks of a network in graph order, nested ones included.

    A block is an addition of two activations of equal shape. One, the branch, has more convolutions, linear
    layers and products since their last common activation; the other, the shortcut, may be that activation
    itself, a projection, or padded. Sums of operands with equally many are no blocks.
    """
    ancestors = _ancestors(captured.graph_module.graph)
    context = Context(graph_module=captured.graph_module)
    blocks = []
    for node in captured.graph_module.graph.nodes:
        context.image_rows[node] = trace_images(context, node)
        if op_name(node) == "add" and (block := _block_at(context, node, ancestors)) is not None:
            blocks.append(block)
    return tuple(blocks)


def _ancestors(graph: Graph) -> dict[Node, dict[Node, None]]:
    """Activations that each activation is computed from, itself included, in graph order."""
    result: dict[Node, dict[Node, None]] = {}
    for node in graph.nodes:
        operands = [result[i] for i in node.all_input_nodes if i in result]
        carries = node.op == "placeholder" or (node.op == "call_function" and bool(operands))
        if carries and op_name(node) != "sym_size":
            result[node] = dict.fromkeys([*itertools.chain.from_iterable(operands), node])
    return result


def _block_at(context: Context, add: Node, ancestors: dict[Node, dict[Node, None]]) -> ResidualBlock | None:
    pair = add.args[:2]
    if len(pair) != 2 or not all(isinstance(o, Node) and o in ancestors for o in pair):
        return None
    left, right = (o for o in pair if isinstance(o, Node))
    if left is right or context.shape(left) != context.shape(right):
        return None
    common = [n for n in ancestors[left] if n in ancestors[right]]
    if not common:
        return None
    order = {n: place for place, n in enumerate(add.graph.nodes)}
    start = max(common, key=order.__getitem__)
    parts = {o: [n for n in ancestors[o] if start in ancestors[n] and n is not start] for o in (left, right)}
    layers = {o: sum(op_name(n) in WEIGHTED for n in part) for o, part in parts.items()}
    if layers[left] == layers[right]:
        return None
    branch, shortcut = (left, right) if layers[left] > layers[right] else (right, left)
    batch = image_layout(context, branch)
    beside = set(range(len(context.shape(branch)))) - context.symbolic_dims(branch)
    if batch is None or not beside:
        return None
    return ResidualBlock(
        name=_shared_path(parts[branch]) or add.name,
        add=add.name,
        branch=branch.name,
        shortcut=shortcut.name,
        start=start.name,
        dim=min(beside),
        batch=batch,
    )


def _shared_path(nodes: list[Node]) -> str:
    """Common dotted path of all stored tensors of some nodes."""
    stored = {str(i.target) for n in nodes for i in n.all_input_nodes if i.op == "get_attr"}
    paths = [name.split(".")[:-1] for name in sorted(stored)]
    together = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in together)


def block_module(captured: CapturedModel, blocks: Sequence[ResidualBlock]) -> GraphModule:
    """The captured network with one more input, the last, ``masks`` (batch, blocks + 1), weights shared.

    A block's column scales what its branch adds.
    """
    graph = Graph()
    mapping: dict[Node, Node] = {}
    graph.output(graph.graph_copy(captured.graph_module.graph, mapping))
    by_name = {old.name: new for old, new in mapping.items()}
    root = copy.copy(captured.graph_module)
    root._modules = dict(root._modules)
    masks = add_mask_input(graph)
    for number, block in enumerate(blocks):
        branch, add = by_name[block.branch], by_name[block.add]
        columns = torch.full((int(branch.meta["val"].shape[block.dim]),), number)
        name = f"_block_mask_{number}"
        point = ChannelMask(columns, block.dim, block.batch)
        root.add_module(name, point.to(device_of(captured.graph_module)))
        with graph.inserting_before(add):
            masked = graph.call_module(name, (branch, masks))
        add.replace_input_with(branch, masked)
    return GraphModule(root, graph, class_name="MaskedBlocks")


class BlockGame(SuffixGame):
    """The game of a network's residual blocks, or of some of them; the branch of an absent one adds nothing.

    Arguments as for ``SuffixGame``; what comes before the first block's addition is computed once.

    Raises:
        NothingToPruneError: there are no residual blocks.
        UsageError: not even one image fits within the limit.
    """

    def __init__(
        self,
        captured: CapturedModel,
        batch: ImageBatch,
        reference: list[Tensor],
        *,
        blocks: Sequence[ResidualBlock] | None = None,
        memory_limit_bytes: int = GAME_MEMORY_BYTES,
        further_inputs: tuple[Tensor, ...] = (),
    ) -> None:
        self.blocks = tuple(find_blocks(captured) if blocks is None else blocks)
        if not self.blocks:
            raise NothingToPruneError(
                "the network has no residual blocks; accepted are networks that add a branch to a shortcut "
                "around it: rank channels instead"
            )
        super().__init__(
            block_module(captured, self.blocks),
            len(self.blocks),
            batch,
            reference,
            memory_limit_bytes=memory_limit_bytes,
            further_inputs=further_inputs,
        )
