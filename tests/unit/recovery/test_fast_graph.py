"""The graph that is trained computes what the given one does, with the same gradients."""

from __future__ import annotations

import networks as nets
import pytest
import torch
from torch import nn

from edgeprune.capture.capture import capture
from edgeprune.fx import tensor_leaves
from edgeprune.recovery.distillation.fused import fast_graph


class Bottleneck(nn.Module):
    """Pointwise, depthwise and pointwise convolutions with norms, one with a bias, and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(12, 12, 3, 2, 1, groups=12, bias=False), nn.BatchNorm2d(12))
        self.out = nn.Sequential(nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6, affine=True))
        self.strided = nn.Conv2d(3, 6, 1, 2)
        self.padded = nn.Conv2d(6, 6, 1, padding=1)
        self.head = nets.head(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run."""
        return self.head(self.padded(self.out(self.deep(self.wide(x))) + self.strided(x)))


def with_dropout() -> nn.Module:
    """Recurrent layers with dropout between them, which is none in evaluation mode."""
    module = nets.lstm()
    module.rnn.dropout = 0.5
    return module


FACTORIES = [
    Bottleneck, nets.chain, nets.residual_add, nets.squeeze_excitation, nets.grouped_convolution,
    nets.concat_flatten_linear, nets.two_outputs, nets.channels_last, nets.lstm, nets.gru, with_dropout,
]  # fmt: skip


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__)
def test_outputs_and_gradients_are_the_same(factory):
    module = factory()
    nets.randomise(module, nets.IMAGE)
    graph = capture(module.eval(), nets.IMAGE).graph_module.double()
    images = torch.randn(5, *nets.IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fast = fast_graph(graph)
    found = []
    for network, batch in ((graph, images), (fast, images.contiguous(memory_format=torch.channels_last))):
        for parameter in graph.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        outputs = tensor_leaves(network(batch))
        torch.stack([o.square().sum() for o in outputs]).sum().backward()
        found.append((outputs, {n: p.grad for n, p in graph.named_parameters() if p.grad is not None}))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-7, atol=1e-9)


def test_no_norm_is_left_behind_layers_and_the_given_graph_stays():
    graph = capture(Bottleneck().eval(), nets.IMAGE).graph_module
    before = graph.code
    fast = fast_graph(graph)
    assert "batch_norm" in before
    assert "batch_norm" not in fast.code
    assert fast.code.count("pointwise") == 2
    assert graph.code == before
