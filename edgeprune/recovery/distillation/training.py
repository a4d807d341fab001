"""Distillation: train the pruned network to match the original on the calibration images, without labels.

The student matches the teacher's softened outputs (Hinton et al., arXiv 1503.02531) and the features that
the last layers read, before pooling. Features count most: an image has thousands of them and few outputs.
Images are augmented by mirroring, shifting, mixup and CutMix; the teacher's targets are computed on the
augmented images. Norms keep the statistics that recovery left. The best weights on validation images that
training never saw are kept if they are better there than the starting network by more than chance.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.accelerator import CPU, device_of, even_parts, in_memory, moved, parts_of
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.pruning import DistillationReport, NetworkDecision
from edgeprune.outputs.errors import OutputErrors
from edgeprune.recovery.agreement import Proof, decide_between, is_classifier, outputs_on
from edgeprune.recovery.distillation.augmentation import mixed, pasted, varied
from edgeprune.recovery.distillation.features import Answers, joined, learnt_features, run, run_weighed
from edgeprune.recovery.distillation.fused import fast_graph
from edgeprune.recovery.distillation.losses import class_divergence
from edgeprune.recovery.splitting import SplitImages

_RISE = 0.05
_MOMENTUM = 0.9
_WEIGHT_DECAY = 1e-4
_LARGEST_GRADIENT = 5.0
_ASTRAY = 4.0
"""Times the divergence before training: beyond it, training goes back and is slower from there."""
_SLOWER = 0.25
_ALIKE = 1.15
"""Times the least divergence after a trial: of rates within it the highest is taken, which goes farther."""
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class DistillationOptions:
    """Schedule and augmentation; training ends after ``steps`` or the time limit, whichever is first.

    The ``learning_rates``, highest first, are each tried for ``trial_share`` of the training, which continues
    with the highest rate of about the least divergence. The schedule is a short warm-up, then a cosine decay
    to zero. At a high ``temperature`` all class scores count alike, not only those of likely classes.
    ``checks`` is the number of validations. The feature loss is scaled to ``feature_weight`` times the output
    loss before training. ``shift_share`` is the largest shift relative to the image size; ``mixed_share`` and
    ``pasted_share`` are the shares of a batch that mixup and CutMix change.
    """

    steps: int = 500
    time_limit_s: float = math.inf
    batch: int = 32
    learning_rates: tuple[float, ...] = (0.02, 0.004, 0.0008)
    trial_share: float = 0.05
    temperature: float = 16.0
    judging_temperature: float = 2.0
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
    images: SplitImages,
    *,
    generator: torch.Generator,
    options: DistillationOptions | None = None,
    advance: Callable[[int], None] = lambda _units: None,
    device: torch.device = CPU,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[GraphModule, DistillationReport]:
    """Train ``recovered`` to match ``original`` on images (n, c, h, w); returns a new graph and a report.

    The deciding images, not used by recovery either, select the learning rate and decide whether the last
    step is closer to the original than the network before, by more than chance; where it is not, the best
    step is asked, which has to show more since it looks better than it is. Else an unchanged copy is
    returned. All is computed on ``device``, and the returned graph is in the processor's memory. ``clock``
    gives the seconds that the time limit and the duration are counted in: ``time.process_time`` limits CPU
    time.
    """
    options = options or DistillationOptions()
    started = clock()
    original, before = moved(original, device), moved(recovered, device)
    pupil = _Pupil(original, copy.deepcopy(before), coupling, removed, images, options, generator)
    course = _Course(pupil, options, started, generator, advance, clock)
    rate = course.run()
    reached, network, decision = _delivered(course, pupil, original, before, images)
    return (moved(network, CPU) if decision.taken else copy.deepcopy(recovered)), DistillationReport(
        steps=course.taken,
        kept_step=reached.step if decision.taken else 0,
        learning_rate=rate,
        images=len(images.fitting),
        validation_images=len(images.deciding),
        divergence_before=course.first,
        divergence_after=reached.divergence if decision.taken else course.first,
        duration_s=clock() - started,
        feature=", ".join(pupil.features) or None,
        decision=decision,
    )


def _delivered(
    course: _Course, pupil: _Pupil, original: nn.Module, before: nn.Module, images: SplitImages
) -> tuple[_Reached, GraphModule, NetworkDecision]:
    """The last step, or the best where the last shows no gain; its network, and whether to deliver it."""
    told, untaught = (outputs_on(network, images.images, images.deciding) for network in (original, before))
    asked = {Proof.BEYOND_CHANCE: course.last}
    if course.best.step not in (0, course.last.step):
        asked[Proof.BEST_OF_SEVERAL] = course.best
    for needed, reached in asked.items():
        network = pupil.with_state(reached.state)
        decision = decide_between(
            "distillation",
            told,
            untaught,
            outputs_on(network, images.images, images.deciding),
            class_scores=images.class_scores,
            proof=needed,
        )
        if decision.taken:
            break
    return reached, network, decision


@dataclass(frozen=True, kw_only=True)
class _Reached:
    """Weights after a step, and their divergence from the original on the deciding images."""

    step: int
    divergence: float
    state: dict[str, Tensor]


class _Course:
    """One training run: trials of learning rates, then the rest with the best rate."""

    def __init__(
        self,
        pupil: _Pupil,
        options: DistillationOptions,
        started: float,
        generator: torch.Generator,
        advance: Callable[[int], None],
        clock: Callable[[], float],
    ) -> None:
        self._pupil = pupil
        self._options = options
        self._clock = clock
        self._started = started
        self._generator = generator
        self._advance = advance
        self._order = torch.empty(0, dtype=torch.long)
        self.first = pupil.balance()
        self.best = self.last = _Reached(step=0, divergence=self.first, state=pupil.state())
        self.taken = 0

    def run(self) -> float:
        """Train; returns the selected learning rate: the highest whose trial is about as good as the best."""
        rates, share = self._options.learning_rates, self._options.trial_share
        start, trials = self.best.state, []
        for number, rate in enumerate(rates):
            self._pupil.load(start)
            reached = self._train(rate, number * share, (number + 1) * share)
            trials.append((reached, rate, self._pupil.state()))
        nearest = min(reached for reached, *_ in trials)
        _, rate, state = next(trial for trial in trials if trial[0] <= _ALIKE * nearest)
        self._pupil.load(state)
        self._train(rate, len(trials) * share, 1.0)
        return rate

    def _train(self, rate: float, begin: float, end: float) -> float:
        """Run a full schedule from share ``begin`` to ``end`` of the training; returns its last divergence.

        Trials decay the rate, too: the rate that is best in the end looks worst while it is high.
        """
        options, optimizer = self._options, _optimizer(self._pupil.parameters())
        checks = max(1, round(options.checks * (end - begin)))
        next_check, reached = 1, math.inf
        while self._done() < end:
            for group in optimizer.param_groups:
                group["lr"] = rate * _rate((self._done() - begin) / (end - begin))
            self._step(optimizer)
            done = (self._done() - begin) / (end - begin)
            if done >= min(1.0, next_check / checks):
                next_check = int(done * checks) + 1
                reached = self._found()
                if not reached <= _ASTRAY * self.first:
                    self._pupil.load(self.best.state)
                    optimizer, rate = _optimizer(self._pupil.parameters()), _SLOWER * rate
        return reached

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        self._pupil.add_gradients(self._batch())
        torch.nn.utils.clip_grad_norm_(self._pupil.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        self.taken += 1
        self._advance(1)

    def _found(self) -> float:
        """Current divergence; ``last`` is updated, and ``best`` where it is the least."""
        divergence = self._pupil.divergence()
        self.last = _Reached(step=self.taken, divergence=divergence, state=self._pupil.state())
        if divergence < self.best.divergence:
            self.best = self.last
        return divergence if math.isfinite(divergence) else math.inf

    def _done(self) -> float:
        """Share of the steps or of the time limit that is used up."""
        share = self.taken / self._options.steps
        if math.isinf(self._options.time_limit_s):
            return share
        return max(share, (self._clock() - self._started) / self._options.time_limit_s)

    def _batch(self) -> Tensor:
        """Next batch of augmented images, reshuffled for every epoch."""
        options, generator = self._options, self._generator
        if len(self._order) < options.batch:
            again = torch.randperm(self._pupil.num_images, generator=generator)
            self._order = torch.cat([self._order, again])
        chosen, self._order = self._order[: options.batch], self._order[options.batch :]
        shown = varied(self._pupil.images(chosen), options.shift_share, generator)
        shown = mixed(shown, options.mixed_share, generator)
        return pasted(shown, options.pasted_share, generator)


def _optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum: Adam overfits the few images sooner (``docs/decisions``, 4)."""
    return torch.optim.SGD(parameters, lr=0.0, momentum=_MOMENTUM, nesterov=True, weight_decay=_WEIGHT_DECAY)


def _rate(done: float) -> float:
    """Learning-rate factor: a short warm-up, then a cosine decay."""
    return min(1.0, done / _RISE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class _Pupil:
    """The student in training, with the teacher that it learns from."""

    def __init__(
        self,
        original: GraphModule,
        network: GraphModule,
        coupling: CouplingGraph,
        removed: tuple[int, ...],
        images: SplitImages,
        options: DistillationOptions,
        generator: torch.Generator,
    ) -> None:
        self._network = network
        self._images = images
        self._options = options
        self._device = device_of(network)
        self._teacher, self._student = fast_graph(original), fast_graph(network)
        self._generator = generator
        self._feature_weight = 0.0
        self._images_at_once = options.batch
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        original_outputs = outputs_on(self._teacher, images.images, images.deciding)
        self._classes = images.class_scores and is_classifier(original_outputs)
        kept = learnt_features(original, coupling, removed, class_scores=self._classes)
        self.features = {name: channels.to(self._device) for name, channels in kept.items()}
        self._output_errors = OutputErrors([] if self._classes else original_outputs)
        self._wanted = [
            joined([each for _, each in in_memory([part], self._on_deciding(self._taught))])
            for part in self._deciding()
        ]

    @property
    def num_images(self) -> int:
        """Number of training images."""
        return len(self._images.fitting)

    def images(self, chosen: Tensor) -> Tensor:
        """Training images at the indices (k,)."""
        return self._images.images[self._images.fitting[chosen]]

    def _deciding(self) -> list[slice]:
        return parts_of(len(self._images.deciding), _AT_ONCE)

    def _on_deciding(self, answer: Callable[[Tensor], Answers]) -> Callable[[slice], Answers]:
        """``answer`` for a part of the deciding images."""
        images, deciding = self._images.images, self._images.deciding
        return lambda part: answer(images[deciding[part]].to(self._device))

    @torch.no_grad()
    def _told(self) -> list[Answers]:
        """The student's answers on the deciding images."""
        answer = self._on_deciding(lambda images: run(self._student, images, self.features))
        return [joined([each for _, each in in_memory([part], answer)]) for part in self._deciding()]

    @torch.no_grad()
    def _taught(self, images: Tensor) -> Answers:
        if self._classes:
            return run(self._teacher, images, self.features)
        return run_weighed(self._teacher, images, self.features, self._output_errors, self._generator)

    def parameters(self) -> list[nn.Parameter]:
        """Trained parameters."""
        return [p for p in self._network.parameters() if p.is_floating_point()]

    def state(self) -> dict[str, Tensor]:
        """A copy of all weights."""
        return {k: v.detach().clone() for k, v in self._network.state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore these weights."""
        self._network.load_state_dict(state)

    def with_state(self, state: dict[str, Tensor]) -> GraphModule:
        """The network with these weights, no longer in training."""
        self.load(state)
        for parameter in self._network.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        return self._network

    @torch.enable_grad()
    def add_gradients(self, images: Tensor) -> None:
        """Add the gradients of the distillation loss on these images, in parts that a GPU's memory holds."""
        parameters = self.parameters()

        def gradients(part: slice) -> tuple[Tensor | None, ...]:
            answers, features = self._errors(images[part])
            loss = answers + self._feature_weight * features
            share = (part.stop - part.start) / len(images)
            return torch.autograd.grad(share * loss, parameters, allow_unused=True)

        parts, sizes = even_parts(len(images), self._images_at_once), []
        for part, found in in_memory(parts, gradients):
            sizes.append(part.stop - part.start)
            for parameter, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        if len(sizes) > len(parts):
            self._images_at_once = max(sizes)

    @torch.no_grad()
    def balance(self) -> float:
        """Set the feature weight from both errors on the deciding images; returns the output divergence."""
        outputs = self._told()
        answers, features = self._mean_errors(outputs, self._options.temperature)
        self._feature_weight = self._options.feature_weight * answers / features if features > 0.0 else 0.0
        return self._mean_errors(outputs, self._options.judging_temperature)[0]

    def divergence(self) -> float:
        """Mean divergence of the outputs on unaugmented deciding images, at ``judging_temperature``.

        At temperature 1 a few images with confident errors outweigh all others; at the training temperature
        scores of unlikely classes do.
        """
        return self._mean_errors(self._told(), self._options.judging_temperature)[0]

    def _mean_errors(self, outputs: list[Answers], temperature: float) -> tuple[float, float]:
        answers = features = count = 0.0
        for told, wanted in zip(outputs, self._wanted, strict=True):
            parts = self._compared(told, wanted, temperature)
            weight = len(wanted.outputs[0])
            answers, features = answers + weight * float(parts[0]), features + weight * float(parts[1])
            count += weight
        # Rounding can make it negative for equal networks, and a ratio of that is meaningless.
        return (0.0 if answers < 0.0 else answers / count), features / count

    def _errors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Output error, and error of the features relative to their variance."""
        images = images.to(self._device)
        images = images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images
        wanted = self._taught(images)
        return self._compared(run(self._student, images, self.features), wanted, self._options.temperature)

    def _compared(self, told: Answers, wanted: Answers, temperature: float) -> tuple[Tensor, Tensor]:
        answers = (
            class_divergence(told.outputs[0], wanted.outputs[0], temperature)
            if self._classes
            else self._output_errors.squared(told.outputs, wanted.outputs).mean()
        )
        errors = []
        for name, kept in self.features.items():
            target = wanted.features[name].index_select(1, kept)
            squares = (told.features[name] - target).square()
            if name in wanted.weights:
                squares = squares * wanted.weights[name]
            errors.append(squares.mean() / target.var().clamp_min(1e-12))
        return answers, torch.stack(errors).mean() if errors else torch.zeros(())
