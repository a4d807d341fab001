"""Distillation: the pruned network learns from the original on the calibration images, without labels.

The student is taught the original's softened answers (Hinton et al., arXiv 1503.02531) and the activations
that the last layer reads, before they are pooled, which count most: an image has thousands of those and few
answers. Images are mirrored, shifted, mixed and pasted into each other, and the original answers for each
as it is shown. Norms keep the statistics that recovery left them. What is best on images that
training never saw is kept, so that the result is never worse there than what it began with.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.nn import functional

from edgeprune.artifacts.coupling import CouplingGraph, kept_positions
from edgeprune.artifacts.pruning import DistillationReport
from edgeprune.fx import op_name, tensor_leaves

_POOLING = frozenset(
    {"adaptive_avg_pool2d", "avg_pool2d", "adaptive_max_pool2d", "max_pool2d", "mean", "flatten", "reshape"}
    | {"view", "squeeze", "dropout", "contiguous"}
)

_RISE = 0.05
_MOMENTUM = 0.9
_WEIGHT_DECAY = 1e-4
_LARGEST_GRADIENT = 5.0
_ASTRAY = 4.0
"""Times the divergence before training: beyond it, training goes back and is slower from there."""
_SLOWER = 0.25


@dataclass(frozen=True, kw_only=True)
class DistillationOptions:
    """How long and how fast; training ends with the steps or with the time, whichever comes first.

    ``learning_rate`` falls to zero along a cosine after a short rise. At a high ``temperature`` all class
    scores count alike, not only those of the likely classes. ``checks`` is how often the network is
    judged on the validation images. Features count ``feature_weight`` times as much as the answers do before
    training, however far each is off. ``shift_share`` of an image's size is the most that it is shifted,
    ``mixed_share`` of a batch is mixed with other images, into ``pasted_share`` pieces of others are pasted.
    """

    steps: int = 500
    time_limit_s: float = math.inf
    batch: int = 32
    learning_rate: float = 0.02
    temperature: float = 16.0
    feature_weight: float = 3.0
    checks: int = 10
    shift_share: float = 0.125
    mixed_share: float = 0.5
    pasted_share: float = 1.0


def distill(
    original: GraphModule,
    recovered: GraphModule,
    coupling: CouplingGraph,
    removed: tuple[int, ...],
    images: Tensor,
    validation: Tensor,
    *,
    generator: torch.Generator,
    options: DistillationOptions | None = None,
    advance: Callable[[int], None] = lambda _units: None,
) -> tuple[GraphModule, DistillationReport]:
    """Train ``recovered`` to answer like ``original`` on ``images``: a new graph, and what was done.

    Both ``images`` and ``validation`` are (n, c, h, w); the latter must be new to the recovery, too, which
    would look better on them than it is.
    """
    options = options or DistillationOptions()
    started = time.perf_counter()
    pupil = _Pupil(original, copy.deepcopy(recovered), coupling, removed, options)
    best_state, first = pupil.state(), pupil.balance(validation)
    best, best_step, taken = first, 0, 0
    parameters = pupil.parameters()
    optimizer = _optimizer(parameters)
    next_check, highest_rate = 1, options.learning_rate
    for step, batch in enumerate(_batches(images, options, generator), 1):
        done = _done(step, started, options)
        for group in optimizer.param_groups:
            group["lr"] = highest_rate * _rate(done)
        loss = pupil.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        optimizer.step()
        advance(1)
        taken = step
        if done >= next_check / options.checks:
            next_check = int(done * options.checks) + 1
            found = pupil.divergence(validation)
            if found < best:
                best, best_step, best_state = found, step, pupil.state()
            elif not found <= _ASTRAY * first:
                pupil.load(best_state)
                optimizer, highest_rate = _optimizer(parameters), _SLOWER * highest_rate
        if done >= 1.0:
            break
    network = pupil.with_state(best_state)
    return network, DistillationReport(
        steps=taken,
        kept_step=best_step,
        images=len(images),
        validation_images=len(validation),
        divergence_before=first,
        divergence_after=best,
        duration_s=time.perf_counter() - started,
        feature=pupil.feature,
    )


def _optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Gradient descent with momentum: Adam overfits the few images sooner (``docs/architecture.md``)."""
    return torch.optim.SGD(parameters, lr=0.0, momentum=_MOMENTUM, nesterov=True, weight_decay=_WEIGHT_DECAY)


def _done(step: int, started: float, options: DistillationOptions) -> float:
    """Share of the steps or of the time that is gone after this step."""
    if math.isinf(options.time_limit_s):
        return step / options.steps
    return max(step / options.steps, (time.perf_counter() - started) / options.time_limit_s)


def _rate(done: float) -> float:
    """Share of the learning rate: a short rise, then half a cosine."""
    return min(1.0, done / _RISE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _batches(images: Tensor, options: DistillationOptions, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of ``options.steps`` steps, in an order drawn anew for every pass over the images."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(options.steps):
        if len(order) < options.batch:
            order = torch.cat([order, torch.randperm(len(images), generator=generator)])
        chosen, order = order[: options.batch], order[options.batch :]
        shown = varied(images[chosen], options.shift_share, generator)
        shown = mixed(shown, options.mixed_share, generator)
        yield pasted(shown, options.pasted_share, generator)


def varied(images: Tensor, shift_share: float, generator: torch.Generator) -> Tensor:
    """Each image mirrored half of the time and shifted by up to a share of its size, edges repeated."""
    if images.dim() != 4:
        return images
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    found = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    reach = [max(0, round(shift_share * size)) for size in images.shape[-2:]]
    if max(reach) == 0:
        return found
    padded = functional.pad(found, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    tops = torch.randint(0, 2 * reach[0] + 1, (len(images),), generator=generator)
    lefts = torch.randint(0, 2 * reach[1] + 1, (len(images),), generator=generator)
    rows = tops[:, None] + torch.arange(images.shape[-2])
    columns = lefts[:, None] + torch.arange(images.shape[-1])
    number = torch.arange(len(images))
    shifted = padded[number[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2).contiguous()


def mixed(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the images, each with up to half of another one on top (cf. mixup, arXiv 1710.09412).

    The original answers for what is shown, so there is no label to mix; between two images it is less sure
    than on images that it was trained on, and tells more.
    """
    count = round(share * len(images))
    if count < 2:
        return images
    weight = 0.5 * torch.rand(count, *[1] * (images.dim() - 1), generator=generator)
    partner = images[torch.randperm(len(images), generator=generator)[:count]]
    return torch.cat([(1 - weight) * images[:count] + weight * partner, images[count:]])


def pasted(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the images, each with a rectangle of another one in the same place (CutMix, 1905.04899).

    Its sides are a quarter to three quarters of the image's. The original answers for what is shown.
    """
    count = round(share * len(images))
    if count < 1 or len(images) < 2 or images.dim() != 4:
        return images
    inside = torch.ones(count, *images.shape[-2:], dtype=torch.bool)
    for axis, size in enumerate(images.shape[-2:]):
        shortest = max(1, size // 4)
        length = torch.randint(shortest, max(shortest, 3 * size // 4) + 1, (count,), generator=generator)
        start = (torch.rand(count, generator=generator) * (size - length + 1)).long()
        place = torch.arange(size)
        along = (place >= start[:, None]) & (place < (start + length)[:, None])
        inside &= along.unsqueeze(2 - axis)
    partner = images[torch.randperm(len(images), generator=generator)[:count]]
    return torch.cat([torch.where(inside.unsqueeze(1), partner, images[:count]), images[count:]])


class _Pupil:
    """The network in training, beside the original that it learns from."""

    def __init__(
        self,
        original: GraphModule,
        network: GraphModule,
        coupling: CouplingGraph,
        removed: tuple[int, ...],
        options: DistillationOptions,
    ) -> None:
        self._original = original
        self._network = network
        self._options = options
        self.feature, self._kept = _last_features(original, coupling, removed)
        self._feature_weight = 0.0
        for parameter in network.parameters():
            parameter.requires_grad_(True)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for p in self._network.parameters() if p.is_floating_point()]

    def state(self) -> dict[str, Tensor]:
        """A copy of all weights."""
        return {k: v.detach().clone() for k, v in self._network.state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go back to these weights."""
        self._network.load_state_dict(state)

    def with_state(self, state: dict[str, Tensor]) -> GraphModule:
        """The network with these weights, no longer in training."""
        self.load(state)
        for parameter in self._network.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        return self._network

    @torch.enable_grad()
    def loss(self, images: Tensor) -> Tensor:
        """What is left to learn on these images."""
        answers, features = self._errors(images)
        return answers + self._feature_weight * features

    @torch.no_grad()
    def balance(self, images: Tensor) -> float:
        """Weigh features against answers by how far both are off now; the divergence of the answers."""
        parts = [(len(x), *map(float, self._errors(x))) for x in torch.split(images, 100)]
        answers, features = (sum(p[0] * p[i] for p in parts) / len(images) for i in (1, 2))
        self._feature_weight = self._options.feature_weight * answers / features if features > 0.0 else 0.0
        return answers

    def _errors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """How far the answers are off, and the features relative to their spread."""
        with torch.no_grad():
            wanted, wanted_feature = _run(self._original, images, self.feature)
        found, feature = _run(self._network, images, self.feature)
        answers = _difference(found, wanted, self._options.temperature)
        if self.feature is None:
            return answers, torch.zeros(())
        assert feature is not None
        assert wanted_feature is not None
        target = wanted_feature.index_select(1, self._kept)
        return answers, (feature - target).square().mean() / target.var().clamp_min(1e-12)

    @torch.no_grad()
    def divergence(self, images: Tensor) -> float:
        """Mean difference of the answers on images as they are, at the temperature of training.

        At a temperature of 1 a few images on which the network is surely wrong outweigh all others.
        """
        temperature = self._options.temperature
        parts = [
            float(_difference(tensor_leaves(self._network(x)), tensor_leaves(self._original(x)), temperature))
            * len(x)
            for x in torch.split(images, 100)
        ]
        return sum(parts) / len(images)


def _difference(found: list[Tensor], wanted: list[Tensor], temperature: float) -> Tensor:
    """Kullback-Leibler divergence of class scores; squared error relative to its spread of anything else."""
    if len(found) == 1 and found[0].dim() == 2 and found[0].shape[1] >= 2:
        log_found = functional.log_softmax(found[0] / temperature, dim=1)
        log_wanted = functional.log_softmax(wanted[0] / temperature, dim=1)
        return temperature**2 * functional.kl_div(
            log_found, log_wanted, reduction="batchmean", log_target=True
        )
    errors = [(f - w).square().mean() / w.var().clamp_min(1e-12) for f, w in zip(found, wanted, strict=True)]
    return torch.stack(errors).mean()


def _last_features(
    original: GraphModule, coupling: CouplingGraph, removed: tuple[int, ...]
) -> tuple[str | None, Tensor]:
    """Node whose channels the last layer reads, before pooling, and those of its channels that stay."""
    nodes = {n.name: n for n in original.graph.nodes}
    last = coupling.layers[-1]
    node = nodes[last.node].args[0]
    while isinstance(node, Node) and op_name(node) in _POOLING and isinstance(node.args[0], Node):
        node = node.args[0]
    value = node.meta.get("val") if isinstance(node, Node) else None
    kept = torch.from_numpy(kept_positions(last.in_players, coupling.removed_mask(removed)))
    if not isinstance(node, Node) or not isinstance(value, Tensor) or value.dim() < 2:
        return None, kept
    if int(value.shape[1]) != last.in_players.size:
        return None, kept
    return node.name, kept


def _run(network: GraphModule, images: Tensor, feature: str | None) -> tuple[list[Tensor], Tensor | None]:
    """Outputs, and the value of the node ``feature``."""
    if feature is None:
        return tensor_leaves(network(images)), None
    tap = _Tap(network, feature)
    return tensor_leaves(tap.run(images)), tap.seen


class _Tap(Interpreter):
    """Runs a graph and remembers one node's value."""

    def __init__(self, network: GraphModule, name: str) -> None:
        super().__init__(network)
        self._name = name
        self.seen: Tensor | None = None

    def run_node(self, n: Node) -> object:
        """As the interpreter does."""
        value: object = super().run_node(n)
        if n.name == self._name:
            assert isinstance(value, Tensor)
            self.seen = value
        return value
