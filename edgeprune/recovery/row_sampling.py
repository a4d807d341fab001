"""Where rows of a layer are read: half of them where its errors move the outputs.

A layer is solved on some positions of its output. Where objects are rare, as in most images that a detector
sees, positions drawn evenly show hardly any, and a least squares fit to the others makes scores of objects
too small. So half of the positions are drawn in proportion to the squared gradient of a random projection of
the outputs (the diagonal of Fisher's information), each image by itself. Class scores have no positions: for
them all are drawn evenly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.accelerator import device_of, exact
from edgeprune.fx import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from edgeprune.outputs.errors import OutputErrors
from edgeprune.recovery.agreement import is_classifier, outputs_on
from edgeprune.recovery.output_gradients import output_gradients
from edgeprune.recovery.splitting import SplitImages

EVEN_SHARE = 0.5
_AT_ONCE = 4
_CHANNELS_FIRST = frozenset((*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS))


def position_weights(
    original: GraphModule,
    images: SplitImages,
    chunks: list[Tensor],
    targets: Mapping[str, str],
    rng: torch.Generator,
) -> Iterator[tuple[str, int, Tensor]]:
    """Node, chunk and weights (images, positions) of it, 1 on average, for the ``targets`` of layers.

    Nothing where the only output is class scores; nodes without a gradient are left out.
    """
    whole = torch.cat(chunks)
    some = outputs_on(original, images.images, whole[:1])
    if images.class_scores and is_classifier(some):
        return
    channel_dims = {name: 1 if op in _CHANNELS_FIRST else -1 for name, op in targets.items()}
    errors = OutputErrors(outputs_on(original, images.images, whole))
    for index, places in enumerate(chunks):
        parts: dict[str, list[Tensor]] = {}
        for part in torch.split(places, _AT_ONCE):
            for name, weights in _weights(original, images.images[part], errors, channel_dims, rng):
                parts.setdefault(name, []).append(weights)
        for name, found in parts.items():
            if sum(map(len, found)) == len(places):
                yield name, index, torch.cat(found)


def drawn_positions(weights: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Indices (count,) into ``weights`` (images, positions), flattened; some more than once."""
    flat = weights.flatten().double()
    chances = EVEN_SHARE / len(flat) + (1.0 - EVEN_SHARE) * flat / flat.sum().clamp_min(1e-30)
    return torch.multinomial(chances, count, replacement=True, generator=rng).sort().values


def _weights(
    original: GraphModule,
    images: Tensor,
    errors: OutputErrors,
    channel_dims: Mapping[str, int],
    rng: torch.Generator,
) -> Iterator[tuple[str, Tensor]]:
    felt = output_gradients(original, images.to(device_of(original)), channel_dims, errors, rng)
    for name, gradient in felt.gradients.items():
        squares = exact(gradient).square().sum(channel_dims[name]).reshape(len(images), -1)
        mean = squares.mean(dim=1, keepdim=True)
        usable = mean.isfinite() & (mean > 0)
        yield name, torch.where(usable, squares / mean.clamp_min(1e-300), 1.0).float().cpu()
