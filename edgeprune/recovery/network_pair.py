"""Evaluate the original and the pruned network on the same image chunks and extract a layer's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.recovery.activations import ActivationStore
from edgeprune.recovery.evaluation import LazyGraph
from edgeprune.recovery.row_sampling import drawn_positions, position_weights
from edgeprune.recovery.solving.clipping import Rows
from edgeprune.recovery.solving.deciding import RowReader
from edgeprune.recovery.solving.least_squares import ChannelMoments
from edgeprune.recovery.splitting import SplitImages
from edgeprune.recovery.structure import Geometry, LayerSite, channels_last, rows_of, targets_of

_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """Rows to read for a layer: its site, its geometry, its kept output channels and its target node.

    ``target`` is a residual sum if the layer ``repairs`` one.
    """

    site: LayerSite
    shape: Geometry
    keep_out: Tensor
    target: str
    repairs: bool
    unknowns: int


class NetworkPair:
    """Both networks on the same chunks, each of which is used for fitting or for deciding."""

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
        targets: Mapping[str, str],
    ) -> None:
        """``targets``: nodes that are targets of rows, with the op of the layer that is solved by them."""
        chunks = list(images.chunks(images_at_once))
        places = [places for places, _ in chunks]
        self._fits = [fits for _, fits in chunks]
        self._sizes = [len(p) for p in places]
        self._rng = generator
        self._fitting_images = len(images.fitting)
        self.original = LazyGraph(original, images.images, places, pins[0], store, "original")
        self.pruned = LazyGraph(pruned, images.images, places, pins[1], store, "pruned")
        self._store = store
        self._weighted: set[tuple[str, str, int]] = set()
        for name, index, weights in position_weights(original, images, places, targets, generator):
            self._weighted.add(("weights", name, index))
            store.put(("weights", name, index), weights, half=True)

    def pick(self, request: RowRequest, rows: int) -> list[Tensor]:
        """Sample output positions of each chunk to read rows at: ``rows`` in all fitting chunks together."""
        # Only the first chunk is read: loading all for their sizes would fragment the heap.
        target = self.original.chunk(request.target, 0)
        by_image = target.numel() // target.shape[request.shape.channel_dim] // self._sizes[0]
        picked = []
        for index, size in enumerate(self._sizes):
            share = max(1, round(rows * size / max(1, self._fitting_images)))
            key = ("weights", request.target, index)
            if key in self._weighted:
                share = min(share, by_image * size)
                picked.append(drawn_positions(self._store.get(key), share, self._rng))
                continue
            order = torch.randperm(by_image * size, generator=self._rng)
            picked.append(order[:share].sort().values)
        return picked

    def reader(self, request: RowRequest, picked: list[Tensor], *, fits: bool, limit_bytes: int) -> RowReader:
        """Reader of all fitting or deciding rows: cached if they fit into memory, else unfolded each time."""
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
        """Rows of the fitting or deciding chunks at the picked positions."""
        site, shape = request.site, request.shape
        for index, places in enumerate(picked):
            if self._fits[index] != fits:
                continue

            def told(name: str, index: int = index, places: Tensor = places) -> Tensor:
                value = self.original.chunk(name, index)
                return targets_of(
                    value.index_select(shape.channel_dim, request.keep_out.to(value.device)), shape, places
                )

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
        """Moments of a node in both networks, at ``rows`` positions of fitting images."""
        moments: ChannelMoments | None = None
        for index, size in enumerate(self._sizes):
            if not self._fits[index]:
                continue
            kept, wanted = (
                channels_last(network.chunk(name, index), is_linear=is_linear)
                for network in (self.pruned, self.original)
            )
            if moments is None:
                moments = ChannelMoments(kept.shape[1], wanted.shape[1], kept.device)
            picked = torch.randperm(len(kept), generator=self._rng)
            picked = picked[: max(1, rows * size // self._fitting_images)]
            moments.add(kept[picked], wanted[picked])
        assert moments is not None
        return moments


def _held_together(parts: Iterator[Rows], count: int) -> list[Rows]:
    """Copy all ``count`` rows into one memory block per field, split as they came.

    Rows kept from every chunk would fragment the heap, so that the next chunk does not fit into the freed
    memory: on EfficientNet-Lite0 the process grew by up to 1.9 GB in a layer with 4 MB of rows.
    """
    blocks: dict[str, Tensor] = {}
    rows: list[Rows] = []
    start = 0

    def held(kind: str, value: Tensor) -> Tensor:
        if kind not in blocks:
            blocks[kind] = value.new_empty((count, *value.shape[1:]))
        return blocks[kind][start : start + len(value)].copy_(value)

    for part in parts:
        rows.append(
            Rows(
                inputs=held("inputs", part.inputs),
                target=held("target", part.target),
                shortcut=None if part.shortcut is None else held("shortcut", part.shortcut),
                own_target=None if part.own_target is None else held("own_target", part.own_target),
            )
        )
        start += len(part.inputs)
    return rows
