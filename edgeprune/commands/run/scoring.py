"""Inputs of criteria, and rankings by them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from edgeprune import parity
from edgeprune.accelerator import CPU, device_of, moved
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import GAME_MEMORY_BYTES
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.artifacts.pruning import Ranking
from edgeprune.commands.run.shared.cached_statistics import Observed, cached_statistics
from edgeprune.commands.run.state import Prepared, Run, Variant
from edgeprune.commands.run.time_limits import affordable_evaluations
from edgeprune.coupling.unflattening import at_maps
from edgeprune.errors import UsageError
from edgeprune.fake_quant import round_layers
from edgeprune.games.channel_statistics import ChannelStatistics, channel_statistics
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.base import Criterion, ScoringContext
from edgeprune.importance.registry import SPREAD, is_ours, is_spread
from edgeprune.pruning.masking import mask_module
from edgeprune.system import progress
from edgeprune.system.imports import user_code
from edgeprune.system.memory import keep_freed_memory


def scoring_context(
    run: Run,
    prepared: Prepared,
    variant: Variant | None = None,
    *,
    ratio: float,
    max_evaluations: int | None = None,
    groups: tuple[str, ...] | None = None,
    memory_limit_bytes: int = GAME_MEMORY_BYTES,
) -> ScoringContext:
    """Inputs of criteria: network and fitting images, for a cut of the share ``ratio`` of the MACs.

    Those of the ``variant`` (``None``: the original), compared with the outputs of the original.
    """
    keep_freed_memory()
    network, images = variant or prepared.variant, prepared.calibration.fitting
    stored = _as_stored(network, prepared)

    def observe() -> Observed:
        return Observed(
            outputs=original_outputs(prepared.running, images),
            statistics=_statistics(stored, network.coupling, images, prepared.device),
        )

    is_original = network.captured is prepared.captured
    observed = cached_statistics(run, prepared, observe) if is_original else observe()
    context = context_of_network(
        stored, network.coupling, images, observed.outputs,
        ratio=ratio, device=prepared.device, statistics=observed.statistics,
    )  # fmt: skip
    return replace(
        context, max_evaluations=max_evaluations, groups=groups, memory_limit_bytes=memory_limit_bytes
    )


def _as_stored(network: Variant, prepared: Prepared) -> CapturedModel:
    """A network with its weights rounded as stored; unchanged in 32 bits."""
    if prepared.stored_as is None:
        return network.captured
    module = copy.deepcopy(network.captured.graph_module)
    round_layers(module, network.coupling, prepared.stored_as)
    return replace(network.captured, graph_module=module)


@torch.no_grad()
def context_of_network(
    captured: CapturedModel,
    coupling: CouplingGraph,
    images: ImageBatch,
    reference: list[torch.Tensor],
    *,
    ratio: float,
    device: torch.device = CPU,
    statistics: ChannelStatistics | None = None,
) -> ScoringContext:
    """Inputs of criteria for one network, compared with the outputs ``reference`` on ``images``.

    ``statistics`` of its channels, where they are known.
    """
    running = replace(captured, graph_module=moved(captured.graph_module, device))
    maps = at_maps(running, coupling)
    if statistics is None:
        statistics = channel_statistics(running, maps, images.images)
    plain, reconstructing = (
        MaskedGame(masked, coupling.num_players, images, reference)
        for masked in (mask_module(running, coupling), mask_module(running, maps, statistics))
    )
    return ScoringContext(
        captured=captured,
        coupling=coupling,
        images=images,
        game=plain,
        recovery_game=reconstructing,
        ratio=ratio,
        device=device_of(running.graph_module),
    )


def _statistics(
    captured: CapturedModel, coupling: CouplingGraph, images: ImageBatch, device: torch.device
) -> ChannelStatistics:
    running = replace(captured, graph_module=moved(captured.graph_module, device))
    return channel_statistics(running, at_maps(running, coupling), images.images)


def within_time_by(
    run: Run, criterion: Criterion, context: ScoringContext, *, criteria_left: int
) -> ScoringContext:
    """The context with a limit on the passes if those of the criterion would take too long.

    ``criteria_left``: number of rankings that share the time, including this one.
    """
    if context.max_evaluations is not None:
        return context

    def passes(allowed: int | None) -> int:
        return criterion.passes(replace(context, max_evaluations=allowed))

    allowed = affordable_evaluations(
        run, context.journals, criterion.name, context.recovery_game, passes, criteria_left
    )
    return replace(context, max_evaluations=allowed)


def note_if_not_spread(run: Run, criterion: Criterion) -> None:
    """Say that workers were asked for where a criterion does not use them."""
    if run.executor is not None and not is_spread(criterion):
        run.note(
            f"{criterion.name} was computed in one process: workers share the passes of {', '.join(SPREAD)}"
        )


def ranked_by(
    criterion: Criterion,
    context: ScoringContext,
    *,
    rng: np.random.Generator,
    asked: Sequence[int] | None = None,
) -> Ranking:
    """The ranking by a criterion; the players ``asked`` (``None``: all) have finite figures.

    Raises:
        UsageError: a figure is not finite, or the code of an external criterion raises.
    """
    what, remedy = f"the criterion {criterion.name!r}", "correct it, or choose another with --criterion"
    with (
        contextlib.nullcontext() if is_ours(criterion) else user_code(what, UsageError, remedy),
        progress.task(f"ranking by {criterion.name}", criterion.passes(context)) as advance,
    ):
        ranking = criterion.score(context, rng=rng, advance=advance)
    players = slice(None) if asked is None else list(asked)
    for values in (ranking.values, ranking.removal_costs):
        if values.shape != (context.coupling.num_players,) or not np.isfinite(values[players]).all():
            raise UsageError(
                f"criterion {criterion.name!r} did not give a finite value for each of the "
                f"{context.coupling.num_players} channels; its plug-in has to be corrected, or choose "
                "another with --criterion"
            )
    return ranking


def original_outputs(captured: CapturedModel, images: ImageBatch) -> list[torch.Tensor]:
    """The original's outputs, one tensor per output, computed where the network is."""
    return [torch.from_numpy(o) for o in parity.run_torch(captured.graph_module, images.images)]
