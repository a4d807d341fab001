"""Networks of several inputs, and each of them captured and coupled."""

from __future__ import annotations

import functools
from collections.abc import Callable

import networks as nets
import torch
from networks import conv_bn, head
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.model import InputShapes
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple

IMAGE, VECTOR = (3, 8, 8), (5,)
Inputs = tuple[Tensor, ...]


class Joined(nn.Module):
    """Layers by name and a forward function of several inputs."""

    def __init__(self, forward: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self._run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Tensor) -> object:
        return self._run(self, *inputs)


class ImageAndVector(nn.Module):
    """Features of an image beside the numbers of a vector, as of a camera and other sensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.joined = nn.Linear(8 + 5, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        features = self.stem(image).mean((2, 3))
        return self.head(functional.relu(self.joined(torch.cat([features, vector], 1))))


def shared_backbone() -> nn.Module:
    """Two images through the same layers, compared (Bromley et al. 1993)."""
    return Joined(
        lambda m, a, b: m.head((m.backbone(a) - m.backbone(b)).abs()),
        backbone=nn.Sequential(conv_bn(3, 8), conv_bn(8, 6)),
        head=head(6),
    )


def _compare_halves(m: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    both = m.backbone(torch.cat([a, b]))
    return m.head(torch.cat([both[: a.shape[0]], both[a.shape[0] :] - both[: a.shape[0]]], 1))


def joined_batches() -> nn.Module:
    """Two images through the same layers in one batch of twice the size."""
    return Joined(_compare_halves, backbone=nn.Sequential(conv_bn(3, 8), conv_bn(8, 6)), head=head(12))


def _own_batch_twice(m: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    y = m.stem(a) * b
    return m.head(m.last(torch.cat([y, y]))[a.shape[0] :])


def own_batch_twice() -> nn.Module:
    """The same features twice in one batch."""
    return Joined(_own_batch_twice, stem=conv_bn(3, 8), last=conv_bn(8, 6), head=head(6))


def added_branch() -> nn.Module:
    """The second image's features are added: both stems leave together."""
    return Joined(
        lambda m, a, b: m.head(m.last(functional.relu(m.left(a) + m.right(b)))),
        left=conv_bn(3, 8),
        right=nn.Conv2d(3, 8, 3, padding=1),
        last=conv_bn(8, 6),
        head=head(6),
    )


def added_input() -> nn.Module:
    """The second input itself is added to the channels, which therefore stay."""
    return Joined(
        lambda m, a, b: m.head(m.last(m.stem(a) + b)), stem=conv_bn(3, 8), last=conv_bn(8, 6), head=head(6)
    )


def added_to_all_channels() -> nn.Module:
    """The second input is one map, the same for every channel."""
    return Joined(
        lambda m, a, b: m.head(m.last(m.stem(a) + b)), stem=conv_bn(3, 8), last=conv_bn(8, 6), head=head(6)
    )


def gate() -> nn.Module:
    """A vector scales the channels of the image."""
    return Joined(
        lambda m, a, v: m.head(m.last(m.stem(a) * m.gate(v)[:, :, None, None])),
        stem=conv_bn(3, 8),
        gate=nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 8), nn.Sigmoid()),
        last=conv_bn(8, 6),
        head=head(6),
    )


def one_number() -> nn.Module:
    """One number an image, of shape (batch,), as the time step of a denoiser."""
    return Joined(
        lambda m, a, t: m.head(m.last(m.stem(a) * t.view(-1, 1, 1, 1))),
        stem=conv_bn(3, 8),
        last=conv_bn(8, 6),
        head=head(6),
    )


def three_inputs() -> nn.Module:
    return Joined(
        lambda m, a, v, b: m.head(
            torch.cat([m.left(a), v[:, :, None, None].expand(-1, 5, 8, 8), m.right(b)], 1)
        ),
        left=conv_bn(3, 8),
        right=conv_bn(1, 4),
        head=nn.Sequential(conv_bn(8 + 5 + 4, 6), *head(6)),
    )


def several_outputs() -> nn.Module:
    return Joined(
        lambda m, a, v: {"scores": m.head(y := m.stem(a)), "maps": [m.maps(y), (m.vector(v), None)]},
        stem=conv_bn(3, 8),
        head=head(8),
        maps=nn.Conv2d(8, 2, 1),
        vector=nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)),
    )


NETWORKS: dict[Callable[[], nn.Module], tuple[InputShapes, int]] = {
    ImageAndVector: ((IMAGE, VECTOR), 8 + 6),
    shared_backbone: ((IMAGE, IMAGE), 8 + 6),
    joined_batches: ((IMAGE, IMAGE), 8 + 6),
    own_batch_twice: ((IMAGE, (1, 8, 8)), 8 + 6),
    added_branch: ((IMAGE, IMAGE), 8 + 6),
    added_input: ((IMAGE, (8, 8, 8)), 6),
    added_to_all_channels: ((IMAGE, (1, 8, 8)), 8 + 6),
    gate: ((IMAGE, VECTOR), 8 + 6 + 6),
    one_number: ((IMAGE, ()), 8 + 6),
    three_inputs: ((IMAGE, VECTOR, (1, 8, 8)), 8 + 4 + 6),
    several_outputs: ((IMAGE, VECTOR), 8 + 7),
}


@functools.cache
def case(factory: Callable[[], nn.Module]) -> tuple[nets.Case, Inputs]:
    """A captured float64 network, its coupling, and two of each input."""
    shapes, _ = NETWORKS[factory]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = factory().eval()
        for norm in (n for n in module.modules() if isinstance(n, nn.BatchNorm2d)):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
        captured = capture(module, shapes)
        inputs = tuple(torch.randn((2, *shape), dtype=torch.float64) for shape in shapes)
    coupling = couple(captured)
    captured.graph_module.double()
    return nets.Case(captured=captured, coupling=coupling, images=inputs[0]), inputs
