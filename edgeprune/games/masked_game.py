"""The characteristic function of a network: the negative loss with absent players masked."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.accelerator import device_of, even_parts, exact, free_bytes, in_memory
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.coupling.membership import Membership
from edgeprune.fx import tensor_leaves
from edgeprune.games.losses import ImageLoss, LossKind
from edgeprune.games.partial import PartialGraph, cut_at_points
from edgeprune.games.saved_memory import saved_bytes_per_image
from edgeprune.games.second_moments import RecordedMoments, SecondMoments
from edgeprune.pruning.masking import POINTS, ChannelReconstruction

GRADIENT_BYTES = 2**29
"""What a pass with gradients may keep for its way back; a batch that would keep more comes in parts.

Eight images of EfficientNet-Lite0 keep 0.69 GB, of ResNet-50 1.21 GB; in two and three parts
they take 5 and 3% longer than in one.
"""

_WORTH_CUTTING = 32
"""Coalitions of one call; a cut takes as long as ten passes of a small network."""


class MaskedGame:
    """All players of a network as one game over calibration images (see ``shapley.game``).

    Args:
        masked: module (images, *further inputs, masks) -> outputs from ``masking.mask_module``; all is
            computed where its tensors are.
        batch: inputs; labels decide the loss if present.
        reference: the original's outputs on these images, one tensor per output.
        images_at_once: rows of one forward pass.
        gradient_bytes: see ``GRADIENT_BYTES``, a quarter of the free memory of a GPU; at least one image
            passes.
        further_inputs: those of a model with several inputs, after the images, one row per image each.
    """

    def __init__(
        self,
        masked: GraphModule,
        num_players: int,
        batch: ImageBatch,
        reference: list[Tensor],
        *,
        images_at_once: int = 128,
        gradient_bytes: int | None = None,
        further_inputs: tuple[Tensor, ...] = (),
    ) -> None:
        self._masked = masked
        self._device = device_of(masked)
        self._inputs = (batch.images, *further_inputs)
        self._images_at_once = images_at_once
        self._gradient_bytes = gradient_bytes or max(GRADIENT_BYTES, free_bytes(self._device) // 4)
        self._image_bytes: int | None = None
        self._drawn_shapes: list[tuple[int, ...]] | None = None
        self._num_players = num_players
        self._counter = [0]
        points = [m for m in masked.modules() if isinstance(m, POINTS)]
        self._points = points if any(isinstance(m, ChannelReconstruction) for m in points) else []
        self._image_loss = ImageLoss(batch, reference)
        self._cuts: dict[bytes, PartialGraph] = {}

    @property
    def evaluations(self) -> int:
        """Batch passes so far, including those of games narrowed from this one."""
        return self._counter[0]

    @property
    def images_at_once(self) -> int:
        """Images of one batch of ``values``: a coalition takes ``num_images / images_at_once`` passes."""
        return self._images_at_once

    @property
    def loss_kind(self) -> LossKind:
        """The loss of which v(S) is the negative."""
        return self._image_loss.kind

    @property
    def loss_description(self) -> str:
        """The loss in words."""
        return self.loss_kind.value

    def on_images(self, count: int) -> MaskedGame:
        """The same game on the first ``count`` images; evaluations are counted together."""
        narrowed = copy.copy(self)
        narrowed._inputs = tuple(i[:count] for i in self._inputs)
        narrowed._image_loss = self._image_loss.on_images(count)
        return narrowed

    def on_batch(self, batch: ImageBatch, reference: list[Tensor]) -> MaskedGame:
        """The same game on other images with the original outputs ``reference``; counted separately.

        Reconstructing mask points keep their statistics.
        """
        moved = copy.copy(self)
        moved._inputs = (batch.images,)
        moved._image_loss = ImageLoss(batch, reference)
        moved._counter = [0]
        return moved

    @property
    def mask_points(self) -> tuple[int, int]:
        """Number of mask points that reconstruct absent channels, and of all mask points."""
        reconstructing = [
            isinstance(m, ChannelReconstruction) for m in self._masked.modules() if isinstance(m, POINTS)
        ]
        return sum(reconstructing), len(reconstructing)

    @property
    def num_players(self) -> int:
        """Number of players."""
        return self._num_players

    @property
    def num_images(self) -> int:
        """Number of calibration images."""
        return len(self._inputs[0])

    def values(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """v(S) (m, k) of coalitions (m, n) on every image."""
        if self._points and len(coalitions) >= _WORTH_CUTTING:
            return self._values_of_few_changes(coalitions)
        result = np.empty((len(coalitions), self.num_images))
        for row, coalition in enumerate(coalitions):
            for chosen, outputs in self._replays(coalition):
                result[row, chosen.numpy()] = -exact(self._losses(outputs, chosen)).cpu().numpy()
        return result

    @torch.no_grad()
    def _values_of_few_changes(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """As ``values``; nodes that no varying player reaches are computed once for each image."""
        cut = self._cut(coalitions)
        result = np.empty((len(coalitions), self.num_images))
        for batch in self._batches():

            def values(part: slice, batch: Tensor = batch) -> list[NDArray[np.float64]]:
                return list(self._values_behind(cut, coalitions, batch[part]))

            for part, rows in in_memory([slice(0, len(batch))], values):
                self._counter[0] += len(coalitions)
                result[:, batch[part].numpy()] = rows
        return result

    def _values_behind(
        self, cut: PartialGraph, coalitions: NDArray[np.bool_], chosen: Tensor
    ) -> Iterator[NDArray[np.float64]]:
        """v(S) of every coalition on some images, whose nodes before the cut are computed once."""
        masks = self._membership(np.broadcast_to(coalitions[0], (len(chosen), self._num_players)))
        inputs = self._inputs_of(chosen)
        before = cut.before(inputs, masks)
        for coalition in coalitions:
            present = self._present(coalition)
            for point in cut.points:
                point.set_coalition(present)
            yield -exact(self._losses(cut.outputs(inputs, masks, before), chosen)).cpu().numpy()

    def _cut(self, coalitions: NDArray[np.bool_]) -> PartialGraph:
        varying = np.append((coalitions != coalitions[0]).any(axis=0), False)
        key = varying.tobytes()
        if key not in self._cuts:
            self._cuts[key] = cut_at_points(self._masked, torch.from_numpy(varying))
        return self._cuts[key]

    def outcome(self, coalition: NDArray[np.bool_]) -> tuple[list[NDArray[np.float32]], NDArray[np.float64]]:
        """Outputs of the network with only a coalition (n,) present, and its v(S) (k,), on every image."""
        parts: list[list[Tensor]] = []
        values = np.empty(self.num_images)
        for chosen, outputs in self._replays(coalition):
            parts.append([o.cpu() for o in outputs])
            values[chosen.numpy()] = -exact(self._losses(outputs, chosen)).cpu().numpy()
        return [torch.cat(p).numpy() for p in zip(*parts, strict=True)], values

    def values_of(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Negative loss (k,) of given outputs on all images."""
        losses = self._losses([torch.from_numpy(o) for o in outputs], torch.arange(self.num_images))
        return np.asarray(-losses.double().numpy())

    def marginals(self, memberships: NDArray[np.float64], images: NDArray[np.int64]) -> NDArray[np.float64]:
        """dv/dm (b, n) of every player for the images (b,), each at its own membership (b, n)."""
        marginals = np.empty(memberships.shape)

        def gradients(part: slice) -> NDArray[np.float64]:
            masks = self._membership(memberships[part]).requires_grad_(True)
            total = -self._loss(torch.from_numpy(images[part]), masks).sum()
            (gradient,) = torch.autograd.grad(total, masks)
            return np.asarray(exact(gradient[:, :-1]).cpu().numpy())

        with torch.enable_grad():
            for part, found in in_memory(self._parts(memberships, images), gradients):
                marginals[part] = found
        self._counter[0] += 1
        return marginals

    def second_moments(self) -> SecondMoments:
        """An empty accumulator of the output changes caused by errors at the mask points."""
        return SecondMoments(*self._reconstructed(), self._num_players, self._project)

    def recorded_moments(self) -> RecordedMoments:
        """As :meth:`second_moments`, to be replayed into those of another process."""
        return RecordedMoments(*self._reconstructed(), self._num_players, self._project)

    def _reconstructed(self) -> tuple[list[ChannelReconstruction], list[Membership]]:
        modules = tuple(self._masked.modules())
        return (
            [m for m in modules if isinstance(m, ChannelReconstruction)],
            [m for m in modules if isinstance(m, Membership)],
        )

    def skip_projection(
        self, coalition: NDArray[np.bool_], images: NDArray[np.int64], rng: np.random.Generator
    ) -> None:
        """Bring ``rng`` to where one pass of :meth:`second_moments` leaves it."""
        memberships = np.broadcast_to(coalition, (len(images), len(coalition)))
        if self._drawn_shapes is None:
            with torch.enable_grad():
                masks = self._membership(memberships[:1]).requires_grad_(True)
                outputs = self._outputs(torch.from_numpy(images[:1]), masks)
            self._drawn_shapes = self._image_loss.drawn_shapes(outputs)
        for part in self._parts(memberships, images):
            for shape in self._drawn_shapes:
                rng.standard_normal((part.stop - part.start, *shape), dtype=np.float32)

    def _project(
        self, coalition: NDArray[np.bool_], images: NDArray[np.int64], rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        memberships = np.broadcast_to(coalition, (len(images), len(coalition)))
        self._counter[0] += 1

        def projected(part: slice) -> tuple[Tensor, Tensor]:
            masks = self._membership(memberships[part]).requires_grad_(True)
            outputs = self._outputs(torch.from_numpy(images[part]), masks)
            return self._image_loss.projection(outputs, rng), masks

        for _, found in in_memory(self._parts(memberships, images), projected):
            yield found

    def _parts(
        self, memberships: NDArray[np.float64] | NDArray[np.bool_], images: NDArray[np.int64]
    ) -> list[slice]:
        """Parts of a batch whose tensors saved for the backward pass fit ``gradient_bytes``.

        Sizes differ by one image at most: the last bits of a convolution depend on its batch size.
        """
        if self._image_bytes is None:

            def loss(count: int) -> Tensor:
                same = np.broadcast_to(memberships[0], (count, self._num_players))
                masks = self._membership(same).requires_grad_(True)
                return self._loss(torch.from_numpy(np.repeat(images[:1], count)), masks)

            self._image_bytes = saved_bytes_per_image(loss)
        return even_parts(len(images), max(1, self._gradient_bytes // max(1, self._image_bytes)))

    @property
    def shared_coalition(self) -> bool:
        """Whether all images of a batch must have the same coalition (reconstructing mask points)."""
        return bool(self._points)

    def _membership(self, memberships: NDArray[np.float64] | NDArray[np.bool_]) -> Tensor:
        """The mask input of the network for these memberships (b, n)."""
        return self._set_coalition(memberships) if self._points else self._masks(memberships)

    def _set_coalition(self, memberships: NDArray[np.float64] | NDArray[np.bool_]) -> Tensor:
        if not (memberships == memberships[0]).all():
            raise ValueError("a reconstructing game takes one coalition per batch")
        present = self._present(memberships[0] > 0)
        for point in self._points:
            point.set_coalition(present)
        size = (len(memberships), self._num_players + 1)
        return torch.zeros(size, dtype=self._inputs[0].dtype, device=self._device)

    def _present(self, coalition: NDArray[np.bool_]) -> Tensor:
        present = torch.ones(self._num_players + 1, dtype=torch.bool)
        present[:-1] = torch.from_numpy(coalition)
        return present.to(self._device)

    def _masks(self, memberships: NDArray[np.float64] | NDArray[np.bool_]) -> Tensor:
        masks = torch.ones((len(memberships), self._num_players + 1), dtype=self._inputs[0].dtype)
        masks[:, :-1] = torch.from_numpy(np.array(memberships))
        return masks.to(self._device)

    @torch.no_grad()
    def _replay(self, coalition: NDArray[np.bool_], chosen: Tensor) -> list[Tensor]:
        """Outputs for some images under one coalition."""
        masks = self._membership(np.broadcast_to(coalition, (len(chosen), len(coalition))))
        self._counter[0] += 1
        return self._outputs(chosen, masks)

    def _replays(self, coalition: NDArray[np.bool_]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Outputs for all images under one coalition, with the images' indices, batch by batch."""
        for batch in self._batches():

            def replay(part: slice, batch: Tensor = batch) -> list[Tensor]:
                return self._replay(coalition, batch[part])

            for part, outputs in in_memory([slice(0, len(batch))], replay):
                yield batch[part], outputs

    def _batches(self) -> Iterator[Tensor]:
        """Indices of all images, batch by batch."""
        for start in range(0, self.num_images, self._images_at_once):
            yield torch.arange(start, min(start + self._images_at_once, self.num_images))

    def _outputs(self, chosen: Tensor, masks: Tensor) -> list[Tensor]:
        return tensor_leaves(self._masked(*self._inputs_of(chosen), masks))

    def _inputs_of(self, chosen: Tensor) -> tuple[Tensor, ...]:
        """Inputs for some images, where the network is."""
        return tuple(i[chosen].to(self._device) for i in self._inputs)

    def _loss(self, chosen: Tensor, masks: Tensor) -> Tensor:
        return self._losses(self._outputs(chosen, masks), chosen)

    def _losses(self, outputs: list[Tensor], chosen: Tensor) -> Tensor:
        return self._image_loss(outputs, chosen)
