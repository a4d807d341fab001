"""Put together what criteria look at."""

from __future__ import annotations

import torch

from edgeprune import parity
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.criteria.base import Evidence
from edgeprune.graph.layer_game import MEMORY_LIMIT_BYTES
from edgeprune.graph.masking import mask_module
from edgeprune.graph.replay import MaskedGame
from edgeprune.graph.statistics import channel_statistics
from edgeprune.pipeline.state import Prepared


@torch.no_grad()
def gather(
    prepared: Prepared,
    *,
    ratio: float,
    max_evaluations: int | None = None,
    groups: tuple[str, ...] | None = None,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> Evidence:
    """Evidence from the fitting images, for a cut of the share ``ratio`` of the MACs."""
    captured, coupling, images = prepared.captured, prepared.coupling, prepared.calibration.fitting
    reference = original_outputs(captured, images)
    statistics = channel_statistics(captured, coupling, images.images)
    reconstructing = mask_module(captured, coupling, statistics)
    return Evidence(
        captured=captured,
        coupling=coupling,
        images=images,
        game=MaskedGame(mask_module(captured, coupling), coupling.num_players, images, reference),
        recovery_game=MaskedGame(reconstructing, coupling.num_players, images, reference),
        ratio=ratio,
        max_evaluations=max_evaluations,
        groups=groups,
        memory_limit_bytes=memory_limit_bytes,
    )


def masking_game(captured: CapturedModel, coupling: CouplingGraph, images: ImageBatch) -> MaskedGame:
    """The game that masks absent players with zeros, on any images."""
    masked = mask_module(captured, coupling)
    return MaskedGame(masked, coupling.num_players, images, original_outputs(captured, images))


def original_outputs(captured: CapturedModel, images: ImageBatch) -> list[torch.Tensor]:
    """The original's outputs, one tensor per output."""
    return [torch.from_numpy(o) for o in parity.run_torch(captured.graph_module, images.images)]
