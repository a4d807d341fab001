"""Networks that end in a softmax are ranked, recovered and trained as those without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import edgeprune
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.games.losses import ImageLoss
from edgeprune.outputs.scores import are_probabilities, log_scores
from edgeprune.recovery.agreement import decide_between
from edgeprune.recovery.distillation.losses import class_divergence

CLASSES = 5


def drawn(seed: int, images: int = 24) -> Tensor:
    return 3 * torch.randn((images, CLASSES), generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**31), st.booleans())
def test_losses_decisions_and_divergences_are_those_of_the_scores(seed: int, labelled: bool) -> None:
    original, before, after = (drawn(seed + k) for k in range(3))
    labels = torch.arange(24) % CLASSES if labelled else None
    batch, chosen = ImageBatch(images=torch.zeros(24, 1, 2, 2), labels=labels), torch.arange(24)

    def results(turn: Any) -> list[Any]:
        loss = ImageLoss(batch, [turn(original)])
        decision = decide_between("step", *([turn(x)] for x in (original, before, after)))
        divergence = class_divergence(
            turn(before), turn(original), 2.0, of_softmax=are_probabilities(turn(original))
        )
        projection = loss.projection([turn(before)], np.random.default_rng(0))
        return [
            loss([turn(before)], chosen).numpy(),
            loss.on_images(7)([turn(before)[:7]], chosen[:7]).numpy(),
            [decision.before, decision.after, float(decision.taken)],
            float(divergence),
            float(projection),
        ]

    of_scores, of_probabilities = results(lambda x: x), results(lambda x: x.softmax(1))
    for one, other in zip(of_scores, of_probabilities, strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-3, atol=2e-4)


def test_what_probabilities_are() -> None:
    assert are_probabilities(drawn(0).softmax(1))
    assert not are_probabilities(drawn(0))
    assert not are_probabilities(drawn(0).abs())
    assert not are_probabilities(drawn(0).sigmoid())
    assert not are_probabilities(torch.ones((3, 1), dtype=torch.int64))
    sure = torch.eye(CLASSES)
    assert are_probabilities(sure)
    assert torch.isfinite(log_scores(sure, probabilities=True)).all()


def network(*, softmax: bool) -> nn.Module:
    generator = torch.Generator().manual_seed(4)
    layers = [nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, CLASSES), *([nn.Softmax(1)] if softmax else []))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


@pytest.mark.parametrize("criterion", ["hybrid", "taylor"])
def test_the_same_channels_go(tmp_path: Any, criterion: str) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, images=np.random.default_rng(2).integers(0, 256, (60, 12, 12), dtype=np.uint8))
    values = []
    for softmax in (False, True):
        report = edgeprune.rank(
            network(softmax=softmax), calibration=path, input_shape=(1, 12, 12), criteria=(criterion,)
        )
        values.append(np.concatenate([group.values for group in report.criteria[0].groups]))
    np.testing.assert_allclose(values[1], values[0], rtol=0.02, atol=1e-3 * np.abs(values[0]).max())
