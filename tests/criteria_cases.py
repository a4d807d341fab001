"""What tests of criteria share: evidence over toy networks, and scoring with the passes checked."""

from __future__ import annotations

import functools

import networks as nets
import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.pruning import Ranking
from edgeprune.fx import tensor_leaves
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.registry import criterion
from edgeprune.pruning.masking import mask_module

WEIGHTS = ("l1", "l2", "bn-scale", "fpgm")
PASSES = ("apoz", "activation-weight", "reconstruction-residual")
GRADIENTS = ("taylor", "taylor-abs", "taylor-squared")
MEASURED = ("leave-one-out", "greedy-leave-one-out")
BASELINES = ("random", *WEIGHTS, *PASSES, *GRADIENTS, *MEASURED)


def context_of(
    case: nets.Case, *, images: int = 12, max_evaluations: int | None = None, images_at_once: int = 5
) -> ScoringContext:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, *case.captured.input_shape, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        reference = tensor_leaves(case.captured.graph_module(pixels))
    batch = ImageBatch(images=pixels, labels=torch.arange(images) % 5)
    masked = mask_module(case.captured, case.coupling)
    count = case.coupling.num_players
    game = MaskedGame(masked, count, batch, reference, images_at_once=images_at_once)
    return ScoringContext(
        captured=case.captured, coupling=case.coupling, images=batch, game=game, recovery_game=game,
        ratio=0.25, max_evaluations=max_evaluations,
    )  # fmt: skip


def score(name: str, context: ScoringContext, seed: int = 0) -> Ranking:
    units: list[int] = []
    chosen = criterion(name)
    announced = chosen.passes(context)
    before = context.game.evaluations
    found = chosen.score(context, rng=np.random.default_rng(seed), advance=units.append)
    assert sum(units) == announced == found.evaluations
    assert context.game.evaluations - before in (0, found.evaluations)
    return found


def parameter(case: nets.Case, name: str) -> Tensor:
    return case.captured.graph_module.get_parameter(name).detach()


def tiny(*filters: list[float], reader: list[list[float]]) -> nets.Case:
    """Pixels of one colour through a 1x1 convolution, a ReLU and another 1x1 convolution, then averaged."""
    first = nn.Conv2d(len(filters[0]), len(filters), 1, bias=False)
    second = nn.Conv2d(len(filters), len(reader), 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor(filters)[:, :, None, None])
        second.weight.copy_(torch.tensor(reader)[:, :, None, None])
    module = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nets.make_case(module, (len(filters[0]), 4, 4), trained=True)


@functools.cache
def three_filters() -> nets.Case:
    """Filters of different length and direction; nobody changes it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny([3.0, -4.0], [1.0, 1.0], [-2.0, 0.0], reader=[[1.0, 2.0, 0.0], [0.0, 2.0, 5.0]])
