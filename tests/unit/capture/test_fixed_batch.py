"""Models whose code fixes the batch get a dynamic one where that can be told, and are refused where not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.errors import CaptureError

IMAGE = (3, 8, 8)


class Anchored(nn.Module):
    """Keeps anchors for the shape that it saw last, its batch included, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 5, 1)
        self.shape: tuple[int, ...] | None = None
        self.anchors = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(self.body(x))
        if self.shape != tuple(h.shape):
            self.shape = tuple(h.shape)
            self.anchors = torch.arange(float(h.shape[2] * h.shape[3]))
        flat = h.view(self.shape[0], 5, -1)
        return torch.cat([flat[:, :4] + self.anchors, flat[:, 4:].sigmoid()], 1)


class Reshaped(nn.Module):
    """Reshapes by a literal."""

    def __init__(self, reshape: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))
        self.reshape = reshape

    def forward(self, x: Tensor) -> Tensor:
        return self.reshape(self.body(x))


ON_TWO_BATCHES = {
    "batch as a number": lambda h: h.reshape(int(h.shape[0]), 4, -1),
    "twice the batch": lambda h: h.reshape(2 * int(h.shape[0]), 2, 64).reshape(int(h.shape[0]), -1),
    "made for the batch": lambda h: h + torch.ones(int(h.shape[0]), 4, 8, 8),
}
ON_SINGLE_IMAGES = {
    "view": lambda h: h.view(1, 4, -1),
    "several": lambda h: h.reshape(1, 2, 2, 64).transpose(1, 2).reshape(1, 4, 64),
    "expanded": lambda h: h.mean((2, 3), keepdim=True).expand(1, 4, 8, 8) + h,
}


def outputs_by_image(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([module(image[None]) for image in images])


@given(batch=st.integers(1, 7))
@settings(max_examples=5, deadline=None)
def test_anchors_kept_for_a_shape(batch: int) -> None:
    torch.manual_seed(0)
    module = Anchored().eval()
    found = capture(module, IMAGE)
    assert any("code fixes the batch" in note for note in found.notes)
    images = torch.rand(batch, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(found.graph_module(images), module(images))


@pytest.mark.parametrize("name", [*ON_TWO_BATCHES, *ON_SINGLE_IMAGES])
def test_reshapes_by_a_number_take_any_batch(name: str) -> None:
    torch.manual_seed(0)
    module = Reshaped({**ON_TWO_BATCHES, **ON_SINGLE_IMAGES}[name]).eval()
    found = capture(module, IMAGE)
    alone = any("single images alone" in note for note in found.notes)
    assert alone == (name in ON_SINGLE_IMAGES)
    for batch in (1, 2, 4):
        images = torch.rand(batch, *IMAGE)
        with torch.no_grad():
            given_ = found.graph_module(images)
        torch.testing.assert_close(given_, outputs_by_image(module, images))
    coupling = couple(found)
    assert isinstance(coupling, CouplingGraph)
    assert coupling.num_players >= 6


@pytest.mark.parametrize(
    "forward",
    [
        lambda h: h if h.shape[0] == 2 else 2 * h,
        lambda h: h.squeeze(0).unsqueeze(0) if h.shape[0] == 1 else h.view(-1, 7),
        lambda h: (h.view(1, -1) + torch.arange(256.0)).view(256, 1),
    ],
    ids=["condition", "no batch at all", "batch moved"],
)
def test_what_depends_on_the_batch_otherwise_is_refused(forward: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CaptureError):
        capture(Reshaped(forward).eval(), IMAGE)
