"""Networks without some residual blocks, whose channels a budget search prunes next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph, player_origins
from edgeprune.artifacts.pruning import Ranking, RankingMethod
from edgeprune.commands.run.scoring import original_outputs
from edgeprune.commands.run.state import Prepared, Run, Variant
from edgeprune.coupling.coupling import couple
from edgeprune.games.block_game import BlockGame, ResidualBlock, find_blocks
from edgeprune.games.dropped_blocks import drop_blocks
from edgeprune.notes import Fact
from edgeprune.selection import CostModel

MOST_DROPPED = 8
_WORK_MACS = 1e12
_FEWEST_IMAGES = 32


def shallower(run: Run, prepared: Prepared, cost: CostModel) -> Iterator[Variant]:
    """The network without one block, two and so on, up to half of them: each step drops the cheapest one.

    The cheapest block has the least loss per saved cost.

    The loss is v(N) - v(S) of the blocks' game for the set S that would stay. Shapley values, which average
    over sets of all sizes, chose worse on ResNet-20 (decision 5 in ``docs/decisions``).
    Blocks that save nothing are not considered.
    """
    blocks = find_blocks(prepared.captured)
    savings = np.array([_saving(prepared, block, cost) for block in blocks])
    blocks = tuple(block for block, saved in zip(blocks, savings, strict=True) if saved > 0.0)
    if len(blocks) < 2:
        return
    for chosen in _greedy(run, prepared, blocks, savings[savings > 0.0]):
        yield without(run, prepared, tuple(blocks[i] for i in sorted(chosen)))


def without(run: Run, prepared: Prepared, blocks: tuple[ResidualBlock, ...]) -> Variant:
    """The network without these blocks, and its coupling."""
    captured = drop_blocks(prepared.captured, blocks)
    return Variant(captured=captured, coupling=couple(captured, run.options.coupling), dropped=blocks)


def restricted(cost: CostModel, whole: CouplingGraph, variant: CouplingGraph) -> CostModel:
    """A cost model of the whole network restricted to the layers of ``variant``; fixed costs stay."""
    left = {x.node for x in variant.layers} | {x.node for x in variant.products}
    layers = zip(whole.layers, cost.layers, strict=True)
    products = zip(whole.products, cost.products, strict=True) if cost.products else ()
    return replace(
        cost,
        layers=tuple(model for layer, model in layers if layer.node in left),
        products=tuple(each for product, each in products if product.node in left),
    )


def projected(ranking: Ranking, whole: CouplingGraph, variant: CouplingGraph) -> Ranking:
    """The ranking of the whole network's players for those of ``variant``.

    A channel that only a dropped block had frozen was never valued and gets the highest figures.
    """
    origin = player_origins(whole, variant)
    known = origin != NO_PLAYER

    def taken(values: FloatArray) -> FloatArray:
        return np.asarray(np.where(known, values[origin], values.max(initial=0.0)))

    estimate = ranking.estimate
    if estimate is not None:
        methods = {
            g.name: estimate.group_methods.get(g.name, RankingMethod.MULTILINEAR) for g in variant.groups
        }
        estimate = replace(estimate, group_methods=methods)
    return replace(
        ranking,
        values=taken(ranking.values),
        standard_errors=taken(ranking.standard_errors),
        removal_costs=taken(ranking.removal_costs),
        estimate=estimate,
    )


def _saving(prepared: Prepared, block: ResidualBlock, cost: CostModel) -> float:
    """Cost of the layers removed with a block."""
    left = {node.name for node in drop_blocks(prepared.captured, (block,)).graph_module.graph.nodes}
    layers, products = prepared.coupling.layers, prepared.coupling.products
    terms = [(x.node, [x.out_players.size, x.in_players.size]) for x in layers]
    terms += [(x.node, [d.size for d in x.dimensions]) for x in products]
    return sum(cost.term(i, sizes) for i, (node, sizes) in enumerate(terms) if node not in left)


def _greedy(
    run: Run, prepared: Prepared, blocks: tuple[ResidualBlock, ...], savings: FloatArray
) -> Iterator[list[int]]:
    """Growing lists of block indices to drop."""
    fitting = prepared.calibration.fitting
    most = min(MOST_DROPPED, len(blocks) // 2)
    passes = most * len(blocks)
    affordable = int(_WORK_MACS // max(1, passes * prepared.coupling.total_macs()))
    count = min(len(fitting), max(_FEWEST_IMAGES, affordable))
    batch = fitting.first(count)
    run.notes.append(Fact(f"residual blocks to drop were chosen by what is lost over {count} images"))
    with run.stage("load the game of residual blocks"):
        game = BlockGame(prepared.running, batch, original_outputs(prepared.running, batch), blocks=blocks)
        whole = float(game.values(np.ones((1, len(blocks)), dtype=bool)).mean())
    dropped: list[int] = []
    for _ in range(most):
        rest = [i for i in range(len(blocks)) if i not in dropped]
        coalitions = np.ones((len(rest), len(blocks)), dtype=bool)
        coalitions[:, dropped] = False
        coalitions[np.arange(len(rest)), rest] = False
        with run.stage("value residual blocks"):
            lost = whole - game.values(coalitions).mean(axis=1)
        dropped = [*dropped, rest[int(np.argmin(np.maximum(lost, 0.0) / savings[rest]))]]
        yield dropped
