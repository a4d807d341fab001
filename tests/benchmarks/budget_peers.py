"""Torch-Pruning's plans, told in our players, so that both sides are recovered alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from resnet20 import ResNet20
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph

BISECTIONS = 14
BATCH = 125
_TAGGED = "running_var"


def residual_stream(network: ResNet20) -> list[nn.Module]:
    """What Torch-Pruning has to ignore in ResNet-20, and the classifier.

    Its graph does not follow the zero-padded shortcuts (the pruned network would not run), so the layers of
    the residual stream are ignored, as its user would have to; channels inside the blocks go.
    """
    blocks = [b for stage in (network.layer1, network.layer2, network.layer3) for b in stage]
    return [network.conv1, network.linear, *(b.conv2 for b in blocks)]


def torch_pruning_plan(
    network: nn.Module,
    coupling: CouplingGraph,
    images: Tensor,
    *,
    importance: str,
    global_pruning: bool,
    ratio: float,
    ignored: Callable[[Any], list[nn.Module]] = residual_stream,
    round_to: int | None = None,
) -> tuple[int, ...]:
    """Players that Torch-Pruning removes for at least ``ratio`` of the MACs, in one step.

    ``ignored`` gives the modules of a copy of the network whose outputs stay; widths are multiples of
    ``round_to``.
    Taylor's gradients are those of the cross-entropy with the network's own predictions on ``images``.
    """
    import torch_pruning

    kinds: dict[str, Callable[[], object]] = {
        "magnitude": lambda: torch_pruning.importance.MagnitudeImportance(p=2),
        "taylor": torch_pruning.importance.TaylorImportance,
    }
    prepared = copy.deepcopy(network)
    if importance == "taylor":
        _with_gradients(prepared, images)

    def removed_at(channel_ratio: float) -> tuple[int, ...]:
        smaller = copy.deepcopy(prepared)
        for mine, theirs in zip(smaller.parameters(), prepared.parameters(), strict=True):
            mine.grad = None if theirs.grad is None else theirs.grad.clone()
        pruner = torch_pruning.pruner.BasePruner(
            smaller,
            images[:2],
            importance=kinds[importance](),
            global_pruning=global_pruning,
            pruning_ratio=channel_ratio,
            ignored_layers=ignored(smaller),
            round_to=round_to,
        )
        _number_channels(smaller)
        pruner.step()
        with torch.no_grad():
            smaller(images[:2])
        return _players_gone(smaller, coupling)

    least, most = 0.0, 1.0
    found = removed_at(1.0 - 2.0**-BISECTIONS)
    for _ in range(BISECTIONS):
        middle = (least + most) / 2
        tried = removed_at(middle)
        gone = coupling.removed_mask(tried)
        if coupling.total_macs(gone) <= (1 - ratio) * coupling.total_macs():
            most, found = middle, tried
        else:
            least = middle
    return found


def _with_gradients(network: nn.Module, images: Tensor) -> None:
    network.zero_grad()
    for batch in torch.split(images, BATCH):
        answers = network(batch)
        loss = functional.cross_entropy(answers, answers.detach().argmax(1), reduction="sum")
        (loss / len(images)).backward()


def _number_channels(network: nn.Module) -> None:
    """Put numbers in place of the norms' running variances, which the importance does not read."""
    for name, buffer in network.named_buffers():
        if name.endswith(_TAGGED):
            buffer.copy_(torch.arange(1, len(buffer) + 1))


def _players_gone(smaller: nn.Module, coupling: CouplingGraph) -> tuple[int, ...]:
    """Which channels are missing, told by the numbers that are left.

    Raises:
        ValueError: a channel is gone behind one norm and left behind another.
    """
    gone: set[int] = set()
    left: set[int] = set()
    for name, buffer in smaller.named_buffers():
        if name.endswith(_TAGGED):
            players = coupling.parameter_players[name, 0]
            kept = np.isin(np.arange(1, len(players) + 1), buffer.numpy())
            gone.update(players[~kept].tolist())
            left.update(players[kept].tolist())
    if torn := gone & left:
        raise ValueError(f"{len(torn)} channels are gone in one place and left in another")
    return tuple(sorted(gone - {NO_PLAYER}))
