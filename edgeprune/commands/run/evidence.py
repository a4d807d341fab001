"""Put together what criteria look at."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from edgeprune import parity
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.commands.run.state import Prepared
from edgeprune.coupling.unflattening import at_maps
from edgeprune.fake_quant import round_layers
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.games.layer_game import MEMORY_LIMIT_BYTES
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.base import Evidence
from edgeprune.pruning.masking import mask_module
from edgeprune.system.memory import keep_freed_memory


def gather(
    prepared: Prepared,
    *,
    ratio: float,
    max_evaluations: int | None = None,
    groups: tuple[str, ...] | None = None,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> Evidence:
    """Evidence from the fitting images, for a cut of the share ``ratio`` of the MACs."""
    keep_freed_memory()
    captured, images = prepared.captured, prepared.calibration.fitting
    reference = original_outputs(captured, images)
    found = evidence_of(as_stored(captured, prepared), prepared.coupling, images, reference, ratio=ratio)
    return replace(
        found, max_evaluations=max_evaluations, groups=groups, memory_limit_bytes=memory_limit_bytes
    )


def as_stored(
    captured: CapturedModel, prepared: Prepared, coupling: CouplingGraph | None = None
) -> CapturedModel:
    """A network with its weights as they will be stored; itself where that changes nothing."""
    if prepared.stored_as is None:
        return captured
    module = copy.deepcopy(captured.graph_module)
    round_layers(module, coupling or prepared.coupling, prepared.stored_as)
    return replace(captured, graph_module=module)


@torch.no_grad()
def evidence_of(
    captured: CapturedModel,
    coupling: CouplingGraph,
    images: ImageBatch,
    reference: list[torch.Tensor],
    *,
    ratio: float,
) -> Evidence:
    """What criteria look at in one network, judged by ``reference``, outputs on ``images``."""
    maps = at_maps(captured, coupling)
    statistics = channel_statistics(captured, maps, images.images)
    plain, reconstructing = (
        MaskedGame(masked, coupling.num_players, images, reference)
        for masked in (mask_module(captured, coupling), mask_module(captured, maps, statistics))
    )
    return Evidence(
        captured=captured,
        coupling=coupling,
        images=images,
        game=plain,
        recovery_game=reconstructing,
        ratio=ratio,
    )


def original_outputs(captured: CapturedModel, images: ImageBatch) -> list[torch.Tensor]:
    """The original's outputs, one tensor per output."""
    return [torch.from_numpy(o) for o in parity.run_torch(captured.graph_module, images.images)]
