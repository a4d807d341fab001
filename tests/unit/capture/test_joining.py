"""Several inputs as one row of numbers: the same network, the same players, and its own inputs again."""

from __future__ import annotations

import networks as nets
import pytest
import torch
from several_inputs import NETWORKS, ImageAndVector, case
from torch import nn

from edgeprune.artifacts.model import places_in_a_row, taken_apart
from edgeprune.capture.capture import capture
from edgeprune.capture.inputs import input_names
from edgeprune.capture.joining import TakesJoined, with_joined_inputs, with_own_inputs
from edgeprune.coupling.coupling import couple
from edgeprune.fx import tensor_leaves
from edgeprune.pruning.surgery import prune


def rows_of(inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.cat([each.reshape(len(each), -1) for each in inputs], dim=1)


@pytest.mark.parametrize("factory", NETWORKS, ids=lambda f: f.__name__)
def test_a_network_with_joined_inputs_is_pruned_as_the_one_with_its_own(factory):
    found, inputs = case(factory)
    joined = with_joined_inputs(found.captured)
    coupling = couple(joined)
    rows = rows_of(inputs)
    assert joined.input_shape == (rows.shape[1],)
    assert coupling.num_players == found.coupling.num_players
    assert coupling.total_macs() == found.coupling.total_macs()
    assert coupling.unruled_ops == ()
    with torch.no_grad():
        original = tensor_leaves(found.captured.graph_module(*inputs))
        assert nets.distance(original, tensor_leaves(joined.graph_module(rows))) == 0
        for removed in found.removals():
            own = tensor_leaves(prune(found.captured, found.coupling, removed)(*inputs))
            pruned = prune(joined, coupling, removed)
            assert nets.distance(own, tensor_leaves(pruned(rows))) < 1e-12
            again = with_own_inputs(pruned, joined)
            assert nets.distance(own, tensor_leaves(again(*inputs))) < 1e-12
            assert [n.op for n in again.graph.nodes].count("placeholder") == len(inputs)


def test_the_inputs_keep_their_names_shapes_and_order():
    found, inputs = case(ImageAndVector)
    joined = with_joined_inputs(found.captured, ("image", "vector", "unused"))
    assert list(joined.joins.items()) == [("image", (3, 8, 8)), ("vector", (5,))]
    apart = taken_apart(rows_of(inputs), tuple(joined.joins.values()))
    assert all(torch.equal(a, b) for a, b in zip(apart, inputs, strict=True))
    assert places_in_a_row(joined.joins.values()) == ((0, 192), (192, 197))


def test_names_that_are_not_known_are_numbers():
    found, _ = case(ImageAndVector)
    assert list(with_joined_inputs(found.captured, ("image",)).joins) == ["input_0", "input_1"]


def test_names_of_the_language_stay():
    """torch.fx renames what Python has a function for."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, input: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
            return self.layer(input) + output

    module = Named().eval()
    joined = with_joined_inputs(capture(module, ((4,), (3,))), input_names(module))
    assert list(joined.joins) == ["input", "output"]
    inputs = (torch.randn(2, 4), torch.randn(2, 3))
    again = with_own_inputs(prune(joined, couple(joined), ()), joined)
    torch.testing.assert_close(again(*inputs), module(*inputs))


def test_a_network_of_one_input_stays_as_it_is():
    captured = capture(nets.chain().eval(), (3, 8, 8))
    assert with_joined_inputs(captured) is captured
    assert with_own_inputs(captured.graph_module, captured) is captured.graph_module


def test_an_input_that_nothing_reads_is_still_an_input():
    class Ignores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, first: torch.Tensor, unread: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
            return self.layer(last) + first

    module = Ignores().eval()
    joined = with_joined_inputs(capture(module, ((3,), (2, 2), (4,))))
    inputs = tuple(torch.randn(2, *shape) for shape in joined.joins.values())
    again = with_own_inputs(prune(joined, couple(joined), ()), joined)
    torch.testing.assert_close(again(*inputs), module(*inputs))
    called = TakesJoined(module, tuple(joined.joins.values()))
    torch.testing.assert_close(called(rows_of(inputs)), module(*inputs))
