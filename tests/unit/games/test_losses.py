"""What a coalition costs by the kind of output: classes, or any others by their channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.games.losses import ImageLoss, LossKind
from edgeprune.recovery.agreement import decide_between

IMAGES = torch.zeros(12, 3, 2, 2)


def reference(seed: int = 0) -> Tensor:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("labels", "class_scores", "kind"),
    [
        (None, True, LossKind.PSEUDO_LABELS),
        (torch.arange(12) % 6, True, LossKind.LABELS),
        (None, False, LossKind.OUTPUTS),
    ],
)
def test_a_single_row_of_values_is_class_scores_unless_the_task_is_another(
    labels: Tensor | None, class_scores: bool, kind: LossKind
) -> None:
    batch = ImageBatch(images=IMAGES, labels=labels, class_scores=class_scores)
    assert ImageLoss(batch, [reference()]).kind is kind
    assert ImageLoss(batch.first(4), [reference()[:4]]).kind is kind
    assert ImageLoss(batch, [reference().reshape(12, 3, 2)]).kind is LossKind.OUTPUTS


def test_an_embedding_turned_round_costs_by_its_values_and_not_by_its_greatest() -> None:
    wanted = reference()
    batch = ImageBatch(images=IMAGES, labels=None, class_scores=False)
    loss = ImageLoss(batch, [wanted])
    everyone = torch.arange(12)
    assert loss([wanted], everyone).abs().max() == 0
    shifted = wanted + 3.0  # softmax does not see it
    assert loss([shifted], everyone).min() > 1.0
    as_classes = ImageLoss(ImageBatch(images=IMAGES, labels=None), [wanted])
    torch.testing.assert_close(as_classes([shifted], everyone), as_classes([wanted], everyone))


def test_decisions_follow_the_task() -> None:
    wanted = reference()
    nearer, shifted = wanted + 0.1 * reference(1), wanted + 3.0
    classes = decide_between("a step", [wanted], [nearer], [shifted])
    values = decide_between("a step", [wanted], [nearer], [shifted], class_scores=False)
    assert classes.taken  # of classes the shifted ones are right
    assert not values.taken


@pytest.mark.parametrize("exponent", range(-30, 19, 6))
def test_losses_of_outputs_do_not_depend_on_their_scale(exponent: int) -> None:
    """A network of any scale that single precision holds: squares of its errors alone may not fit."""
    batch = ImageBatch(images=IMAGES, labels=None, class_scores=False)
    everyone, scale = torch.arange(12), 10.0**exponent
    wanted, found = reference() * scale, (reference() + 0.3 * reference(1)) * scale
    loss = ImageLoss(batch, [wanted])([found], everyone)
    plain = ImageLoss(batch, [reference()])([reference() + 0.3 * reference(1)], everyone)
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=0.0)
    drawn = [
        ImageLoss(batch, [w]).projection([f], np.random.default_rng(0))
        for w, f in ((wanted, found), (reference(), reference() + 0.3 * reference(1)))
    ]
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-4, atol=0.0)
