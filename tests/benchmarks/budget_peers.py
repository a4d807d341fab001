"""Torch-Pruning's plans for ResNet-20, told in our players, so that both sides are recovered alike."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from resnet20 import ResNet20
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.coupling import CouplingGraph

BISECTIONS = 14
BATCH = 125


def torch_pruning_plan(
    network: ResNet20,
    coupling: CouplingGraph,
    images: Tensor,
    *,
    importance: str,
    global_pruning: bool,
    ratio: float,
) -> tuple[int, ...]:
    """Players that Torch-Pruning removes for at least ``ratio`` of the MACs, in one step.

    Its graph does not follow the zero-padded shortcuts (the pruned network would not run), so the layers of
    the residual stream are ignored, as its user would have to; channels inside the blocks go.
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
            ignored_layers=_stream(smaller),
        )
        pruner.step()
        with torch.no_grad():
            smaller(images[:2])
        return _players_gone(network, smaller, coupling)

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


def _stream(network: ResNet20) -> list[nn.Module]:
    blocks = [b for stage in (network.layer1, network.layer2, network.layer3) for b in stage]
    return [network.conv1, network.linear, *(b.conv2 for b in blocks)]


def _with_gradients(network: ResNet20, images: Tensor) -> None:
    network.zero_grad()
    for batch in torch.split(images, BATCH):
        answers = network(batch)
        loss = functional.cross_entropy(answers, answers.detach().argmax(1), reduction="sum")
        (loss / len(images)).backward()


def _players_gone(network: ResNet20, smaller: nn.Module, coupling: CouplingGraph) -> tuple[int, ...]:
    """Which channels are missing, recognised by the running variances of their norms."""
    layers = {layer.name: layer for layer in coupling.layers}
    left = dict(smaller.named_buffers())
    gone: set[int] = set()
    for name, before in network.named_buffers():
        if not name.endswith("bn1.running_var"):
            continue
        layer = layers[name.replace("bn1.running_var", "conv1")]
        kept = np.isin(before.numpy(), left[name].numpy())
        if int(kept.sum()) != len(left[name]):
            raise ValueError(f"{name}: the channels that stay cannot be told by their variance")
        gone.update(layer.out_players[~kept].tolist())
    return tuple(sorted(gone))
