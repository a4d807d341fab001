"""The original and the pruned network side by side on chunks of images, and rows of a layer out of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.recovery.activations import ActivationStore
from edgeprune.recovery.clipping import Rows
from edgeprune.recovery.deciding import RowReader
from edgeprune.recovery.evaluation import LazyGraph
from edgeprune.recovery.least_squares import ChannelMoments
from edgeprune.recovery.splitting import SplitImages
from edgeprune.recovery.structure import Geometry, LayerSite, channels_last, rows_of, targets_of

_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """What to read of a layer: its site, its geometry, channels that stay, and the nodes of its targets.

    ``target`` is a residual sum where the layer ``repairs`` one.
    """

    site: LayerSite
    shape: Geometry
    keep_out: Tensor
    target: str
    repairs: bool
    unknowns: int


class NetworkPair:
    """Both networks on the same chunks, each of which is fitted to or decides."""

    def __init__(
        self,
        original: GraphModule,
        pruned: GraphModule,
        images: SplitImages,
        pins: tuple[Counter[str], Counter[str]],
        store: ActivationStore,
        *,
        images_at_once: int,
        generator: torch.Generator,
    ) -> None:
        chunks = list(images.chunks(images_at_once))
        places = [places for places, _ in chunks]
        self._fits = [fits for _, fits in chunks]
        self._sizes = [len(p) for p in places]
        self._rng = generator
        self._fitting_images = len(images.fitting)
        self.original = LazyGraph(original, images.images, places, pins[0], store, "original")
        self.pruned = LazyGraph(pruned, images.images, places, pins[1], store, "pruned")

    def pick(self, request: RowRequest, rows: int) -> list[Tensor]:
        """Output positions of each chunk that give a row: ``rows`` in all chunks that are fitted to."""
        # Only the first chunk is looked at: to load all for their sizes would leave holes in the heap.
        target = self.original.chunk(request.target, 0)
        by_image = target.numel() // target.shape[request.shape.channel_dim] // self._sizes[0]
        picked = []
        for size in self._sizes:
            share = max(1, round(rows * size / max(1, self._fitting_images)))
            order = torch.randperm(by_image * size, generator=self._rng)
            picked.append(order[:share].sort().values)
        return picked

    def reader(self, request: RowRequest, picked: list[Tensor], *, fits: bool, limit_bytes: int) -> RowReader:
        """Gives all rows of either kind each time, unfolded once where they fit into memory, else anew."""
        count = sum(len(p) for p, kind in zip(picked, self._fits, strict=True) if kind == fits)
        if count * request.unknowns * request.shape.groups * _FLOAT_BYTES > limit_bytes:
            return lambda: self._rows(request, picked, fits=fits)
        kept: list[Rows] = []

        def read() -> Iterable[Rows]:
            if not kept:
                kept.extend(_held_together(self._rows(request, picked, fits=fits), count))
            return kept

        return read

    def _rows(self, request: RowRequest, picked: list[Tensor], *, fits: bool) -> Iterator[Rows]:
        """Rows of the chunks of one kind at the picked positions."""
        site, shape = request.site, request.shape
        for index, places in enumerate(picked):
            if self._fits[index] != fits:
                continue

            def told(name: str, index: int = index, places: Tensor = places) -> Tensor:
                value = self.original.chunk(name, index)
                return targets_of(value.index_select(shape.channel_dim, request.keep_out), shape, places)

            shortcut = None
            if request.repairs:
                shortcut = targets_of(self.pruned.chunk(str(site.shortcut), index), shape, places)
            yield Rows(
                inputs=rows_of(self.pruned.chunk(site.source, index), shape, places),
                target=told(request.target),
                shortcut=shortcut,
                own_target=told(site.linear_output) if request.repairs and fits else None,
            )

    def channel_moments(self, name: str, rows: int, *, is_linear: bool) -> ChannelMoments:
        """Of a node in the pruned and in the original network, at ``rows`` places of fitting images."""
        moments: ChannelMoments | None = None
        for index, size in enumerate(self._sizes):
            if not self._fits[index]:
                continue
            kept, wanted = (
                channels_last(network.chunk(name, index), is_linear=is_linear)
                for network in (self.pruned, self.original)
            )
            if moments is None:
                moments = ChannelMoments(kept.shape[1], wanted.shape[1])
            picked = torch.randperm(len(kept), generator=self._rng)
            picked = picked[: max(1, rows * size // self._fitting_images)]
            moments.add(kept[picked], wanted[picked])
        assert moments is not None
        return moments


def _held_together(parts: Iterator[Rows], count: int) -> list[Rows]:
    """All ``count`` rows in one block of memory a kind, cut as they came.

    A few rows kept out of every chunk lie where the chunk was, so that the next one does not fit there any
    more: on EfficientNet-Lite0 the process grew by up to 1.9 GB in a layer with 4 MB of rows.
    """
    blocks: dict[str, Tensor] = {}
    found: list[Rows] = []
    start = 0

    def held(kind: str, value: Tensor) -> Tensor:
        if kind not in blocks:
            blocks[kind] = value.new_empty((count, *value.shape[1:]))
        return blocks[kind][start : start + len(value)].copy_(value)

    for part in parts:
        found.append(
            Rows(
                inputs=held("inputs", part.inputs),
                target=held("target", part.target),
                shortcut=None if part.shortcut is None else held("shortcut", part.shortcut),
                own_target=None if part.own_target is None else held("own_target", part.own_target),
            )
        )
        start += len(part.inputs)
    return found
