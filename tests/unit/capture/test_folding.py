"""Weights that are computed from others become layers like any other."""

from __future__ import annotations

from collections.abc import Callable

import networks as nets
import pytest
import torch
from networks import Network, make_case
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from edgeprune.capture.capture import capture


class StandardisedConv(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        spread = self.weight.std((1, 2, 3), keepdim=True) + 1e-5
        return functional.conv2d(x, (self.weight - mean) / spread, self.bias, self.stride, self.padding)


class PositionNetwork(nn.Module):
    """A position bias from a small network of its own, as in Swin V2."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 8))
        self.register_buffer("places", torch.randn(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(self.places).T.view(8, 8, 8)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def chain(first: nn.Module, second: nn.Module) -> nn.Module:
    return Network(
        lambda m, x: m.head(functional.relu(m.c(m.a(x))).mean((2, 3))),
        a=first, c=second, head=nn.Linear(6, 4),
    )  # fmt: skip


COMPUTED: dict[str, Callable[[], nn.Module]] = {
    "weight standardisation": lambda: chain(
        StandardisedConv(3, 8, 3, padding=1), StandardisedConv(8, 6, 3, padding=1)
    ),
    "weight normalisation": lambda: chain(
        parametrizations.weight_norm(conv(3, 8)), parametrizations.weight_norm(conv(8, 6))
    ),
    "spectral normalisation": lambda: chain(
        parametrizations.spectral_norm(conv(3, 8)), parametrizations.spectral_norm(conv(8, 6))
    ),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_layers_with_computed_weights_can_be_pruned(name):
    torch.manual_seed(0)
    case = make_case(COMPUTED[name]())
    assert [layer.name for layer in case.coupling.layers] == ["a.folded", "c.folded", "head"]
    assert case.coupling.num_players == 14
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
        assert row.effect > 1e-6


@pytest.mark.parametrize("name", COMPUTED)
def test_what_only_the_computation_needed_is_dropped(name):
    captured = capture(COMPUTED[name]().eval(), nets.IMAGE)
    names = {n for n, _ in captured.graph_module.named_parameters()}
    assert names == {"a.folded.weight", "a.bias", "c.folded.weight", "c.bias", "head.weight", "head.bias"}
    used = {str(n.target) for n in captured.graph_module.graph.nodes if n.op == "get_attr"}
    assert used == names


def test_a_network_that_sees_no_image_is_a_constant_and_no_layer():
    torch.manual_seed(0)
    case = make_case(chain(nn.Sequential(conv(3, 8), PositionNetwork()), conv(8, 6)))
    assert [layer.name for layer in case.coupling.layers] == ["a.0", "c", "head"]
    assert case.coupling.num_players == 14
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10


def test_plain_networks_keep_their_names_and_their_number_of_parameters():
    module = chain(conv(3, 8), conv(8, 6)).eval()
    captured = capture(module, nets.IMAGE)
    assert dict(captured.graph_module.named_parameters()).keys() == dict(module.named_parameters()).keys()


def test_two_uses_of_one_computed_weight_stay_one_parameter():
    shared = StandardisedConv(8, 8, 3, padding=1)
    torch.manual_seed(0)
    case = make_case(
        Network(
            lambda m, x: m.head(m.s(functional.relu(m.s(m.a(x)))).mean((2, 3))),
            a=conv(3, 8), s=shared, head=nn.Linear(8, 4),
        )
    )  # fmt: skip
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
