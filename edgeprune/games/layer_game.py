"""A game over some channels, all others present: the part before their mask points is computed once.

A coalition replays only the part after them, many coalitions and images per pass; where that part is
affine in the masks, a matrix product replaces the replay (see ``games.linear_suffix``).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.accelerator import device_of, in_memory, parts_of
from edgeprune.artifacts.arrays import IndexArray
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import GAME_MEMORY_BYTES
from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.errors import UsageError
from edgeprune.fx import tensor_leaves
from edgeprune.games.linear_suffix import LinearSuffix, nonlinear_nodes
from edgeprune.games.losses import ImageLoss, LossKind
from edgeprune.games.suffix import cut_at_masks, peak_bytes_per_row
from edgeprune.pruning.masking import mask_module

_PASS_BYTES = 2**24
"""Activations of one pass: measured on ResNet-20, 4 to 32 MiB are within 10%, 64 MiB up to twice as slow."""

_FEW_ROWS = 32
"""Rows of one pass however large they are, within the memory limit."""

_MEASURED_IMAGES = 2
_SUMMED_BYTES = 2**22
"""Outputs of one matrix product: what a processor's cache holds."""


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Images of one chunk, rows of one pass and of one matrix product; whether all chunks are kept."""

    chunk: int
    replayed_rows: int
    summed_rows: int
    keep: bool


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Outputs (m x b, ...) of the coalitions ``coalitions`` on the images ``images``, images innermost."""

    coalitions: slice
    images: slice
    outputs: list[Tensor]


class SuffixGame:
    """A game over the masks of a network (see ``shapley.game``), for games of layers and of blocks.

    Args:
        masked: module (images, *further inputs, masks (rows, players + 1)) -> outputs.
        batch: inputs; labels decide the loss if present.
        reference: the original's outputs on these images, one tensor per output.
        memory_limit_bytes: of cached and replayed activations together, estimated without buffers inside
            ops and weights; what does not fit is cached in part and recomputed.
        further_inputs: those of a model with several inputs, after the images, one row per image each.

    Raises:
        UsageError: not even one image fits within the limit.
    """

    def __init__(
        self,
        masked: GraphModule,
        num_players: int,
        batch: ImageBatch,
        reference: list[Tensor],
        *,
        memory_limit_bytes: int = GAME_MEMORY_BYTES,
        further_inputs: tuple[Tensor, ...] = (),
    ) -> None:
        self._cut, self._device = cut_at_masks(masked), device_of(masked)
        self._inputs = (batch.images, *further_inputs)
        self._num_players = num_players
        self._loss = ImageLoss(batch, reference)
        self._limit = memory_limit_bytes
        self._cached: dict[int, list[Tensor]] = {}
        self._linear: dict[int, LinearSuffix] = {}
        self.nonlinear = nonlinear_nodes(self._cut.suffix)
        self._sizes = self._fitting_sizes()

    def without_images(self) -> Self:
        """A copy to be sent elsewhere, where :meth:`with_images` completes it."""
        bare = copy.copy(self)
        bare._inputs, bare._cached, bare._linear = (), {}, {}
        del bare._loss
        return bare

    def with_images(self, batch: ImageBatch, reference: list[Tensor]) -> Self:
        """The same game on the images that it had."""
        whole = copy.copy(self)
        whole._inputs, whole._loss = (batch.images,), ImageLoss(batch, reference)
        return whole

    @property
    def num_players(self) -> int:
        """Number of players."""
        return self._num_players

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self._inputs[0])

    @property
    def is_linear(self) -> bool:
        """Whether the outputs are a sum over the present players, so that no coalition is replayed."""
        return not self.nonlinear

    @property
    def loss_kind(self) -> LossKind:
        """The loss of which v(S) is the negative."""
        return self._loss.kind

    @property
    def loss_description(self) -> str:
        """The loss in words."""
        return self.loss_kind.value

    @property
    def rows_at_once(self) -> int:
        """Maximum number of (coalition, image) pairs per pass."""
        return self._sizes.replayed_rows

    def values(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """v(S) (m, k) of coalitions (m, n) on every image."""
        result = np.empty((len(coalitions), self.num_images))
        for replay in self.replays(coalitions):
            size = replay.images.stop - replay.images.start
            count = replay.coalitions.stop - replay.coalitions.start
            images = torch.arange(replay.images.start, replay.images.stop).repeat(count)
            loss = self._loss(replay.outputs, images).view(count, size)
            result[replay.coalitions, replay.images] = -loss.cpu().numpy()
        return result

    @torch.no_grad()
    def replays(self, coalitions: NDArray[np.bool_]) -> Iterator[Replay]:
        """Outputs of the network for coalitions (m, n) on all images, block by block.

        Raises:
            ValueError: the coalitions have another number of players.
        """
        if coalitions.ndim != 2 or coalitions.shape[1] != self._num_players:
            raise ValueError(
                f"coalitions of the shape {coalitions.shape} were given; accepted is "
                f"(coalitions, {self._num_players}): one column a player"
            )
        for start in range(0, self.num_images, self._sizes.chunk):
            images = slice(start, min(start + self._sizes.chunk, self.num_images))
            play = self._summed if self.is_linear else self._replayed
            yield from play(coalitions, images)

    def _summed(self, coalitions: NDArray[np.bool_], images: slice) -> Iterator[Replay]:
        linear = self._linear.get(images.start) or self._solve(images)
        at_once = max(1, self._sizes.summed_rows // (images.stop - images.start))
        for start in range(0, len(coalitions), at_once):
            block = torch.from_numpy(coalitions[start : start + at_once])
            yield Replay(
                coalitions=slice(start, start + len(block)), images=images, outputs=linear.outputs(block)
            )

    def _solve(self, images: slice) -> LinearSuffix:
        """Contributions of every player to the outputs on some images, cached where they fit."""
        alone = np.concatenate(
            [np.zeros((1, self._num_players), bool), np.eye(self._num_players, dtype=bool)]
        )
        size = images.stop - images.start
        parts = [
            [o.reshape(-1, size, *o.shape[1:]) for o in replay.outputs]
            for replay in self._replayed(alone, images)
        ]
        linear = LinearSuffix.of([torch.cat(p) for p in zip(*parts, strict=True)])
        if self._sizes.keep:
            self._linear[images.start] = linear
        return linear

    def _replayed(self, coalitions: NDArray[np.bool_], images: slice) -> Iterator[Replay]:
        cut, size = self._prefix(images), images.stop - images.start
        at_once = max(1, self._sizes.replayed_rows // size) if self._cut.tileable else 1
        tiled, times = cut, 1

        def outputs(part: slice) -> list[Tensor]:
            nonlocal tiled, times
            block = coalitions[part]
            if len(block) != times:
                tiled, times = cut, 1  # what was tiled before is freed first
                tiled, times = self._cut.tile(cut, len(block)), len(block)
            masks = _masks(block, size, self._inputs[0].dtype).to(self._device)
            return tensor_leaves(self._cut.suffix(*tiled, masks))

        for part, found in in_memory(parts_of(len(coalitions), at_once), outputs):
            yield Replay(coalitions=part, images=images, outputs=found)

    def _prefix(self, images: slice) -> list[Tensor]:
        """Activations on the cut for some images, computed once if all of them fit."""
        cut = self._cached.get(images.start)
        if cut is None:
            cut = tensor_leaves(self._cut.prefix(*(i[images].to(self._device) for i in self._inputs)))
            if self._sizes.keep and not self.is_linear:
                self._cached[images.start] = cut
        return cut

    @torch.no_grad()
    def _fitting_sizes(self) -> _Sizes:
        """Measure activations on a few images and divide the memory between cache and passes."""
        few = min(_MEASURED_IMAGES, self.num_images)
        inputs = [i[:few].clone().to(self._device) for i in self._inputs]
        cut = tensor_leaves(self._cut.prefix(*inputs))
        masks = _masks(np.ones((1, self._num_players), bool), few, inputs[0].dtype).to(self._device)
        outputs = tensor_leaves(self._cut.suffix(*cut, masks))
        output_bytes, cut_bytes = (-(-sum(t.nbytes for t in ts) // few) for ts in (outputs, cut))
        row = max(1, peak_bytes_per_row(self._cut.suffix, [*cut, masks], few))
        passing = max(row, peak_bytes_per_row(self._cut.prefix, inputs, few))
        kept = cut_bytes
        if self.is_linear:
            kept, passing = output_bytes * (self._num_players + 1), passing + cut_bytes
        keep = kept * self.num_images <= self._limit // 2
        room = self._limit - kept * self.num_images if keep else self._limit
        most = max(_FEW_ROWS, _PASS_BYTES // row)
        chunk = min(self.num_images, most, room // (passing if keep else passing + kept))
        if chunk < 1:
            raise UsageError(
                f"memory_limit_bytes={self._limit} is too small: the activations of one image take about "
                f"{kept + passing} bytes; give at least that"
            )
        chunk = -(-self.num_images // -(-self.num_images // chunk))
        left = room if keep else room - kept * chunk
        return _Sizes(
            chunk=chunk,
            replayed_rows=max(chunk, min(most, left // row)),
            summed_rows=max(chunk, min(_SUMMED_BYTES, left // 4) // output_bytes),
            keep=keep,
        )


class LayerGame(SuffixGame):
    """The game of some of a network's players, all others present; arguments as for ``SuffixGame``.

    Args:
        players: indices of players of ``coupling``, such as a group's, in the order of the game's columns.

    Raises:
        UsageError: a player is given twice or is not one of the coupling's, or no image fits the limit.
    """

    def __init__(
        self,
        captured: CapturedModel,
        coupling: CouplingGraph,
        players: IndexArray | tuple[int, ...],
        batch: ImageBatch,
        reference: list[Tensor],
        *,
        memory_limit_bytes: int = GAME_MEMORY_BYTES,
        further_inputs: tuple[Tensor, ...] = (),
    ) -> None:
        chosen = np.asarray(players, dtype=np.int64)
        super().__init__(
            mask_module(captured, narrowed(coupling, chosen)),
            len(chosen),
            batch,
            reference,
            memory_limit_bytes=memory_limit_bytes,
            further_inputs=further_inputs,
        )


def narrowed(coupling: CouplingGraph, players: IndexArray) -> CouplingGraph:
    """The coupling with only the mask points of ``players`` (n,), which are renumbered in their order.

    Raises:
        UsageError: a player is given twice or is not one of the coupling's.
    """
    known = coupling.num_players
    if (
        len(np.unique(players)) != len(players)
        or ((players < 0) | (players >= known)).any()
        or not len(players)
    ):
        raise UsageError(
            f"players={players.tolist()} is not accepted: give each once, at least one, from 0 to {known - 1}"
        )
    number = np.full(known + 1, NO_PLAYER, dtype=np.int64)  # the last entry serves NO_PLAYER = -1
    number[players] = np.arange(len(players))
    points = [dataclasses.replace(p, players=number[p.players]) for p in coupling.mask_points]
    return dataclasses.replace(
        coupling,
        num_players=len(players),
        mask_points=tuple(p for p in points if (p.players != NO_PLAYER).any()),
    )


def _masks(coalitions: NDArray[np.bool_], images: int, dtype: torch.dtype) -> Tensor:
    """Masks (coalitions x images, players + 1), images innermost."""
    masks = torch.ones((len(coalitions), coalitions.shape[1] + 1), dtype=dtype)
    masks[:, :-1] = torch.from_numpy(coalitions)
    return masks.repeat_interleave(images, dim=0)
