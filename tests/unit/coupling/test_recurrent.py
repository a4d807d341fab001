"""LSTM, GRU and plain recurrent layers: units leave all gates, layers, directions and states together."""

from __future__ import annotations

import json
from pathlib import Path

import networks as nets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.applying import apply_surgery
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.exporting import save_surgery
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.pruning.masking import full_masks, mask_module
from edgeprune.pruning.surgery import own_state, prune, surgery_recipe
from edgeprune.recovery.reconstruction import reconstruct

STEPS = (3, 8, 8)
KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Reader(nn.Module):
    """Convolution, recurrent layers over the pixels, a linear layer over every step or the last states."""

    def __init__(self, rnn: nn.RNNBase, *, last: bool = False) -> None:
        super().__init__()
        self.stem = stem()
        self.rnn = rnn
        self.last = last
        directions = 2 if rnn.bidirectional else 1
        self.head = nn.Linear(rnn.hidden_size if last else rnn.hidden_size * directions, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.stem(x).flatten(2)
        output, states = self.rnn(steps.transpose(1, 2) if self.rnn.batch_first else steps.permute(2, 0, 1))
        if self.last:
            return self.head((states[0] if isinstance(states, tuple) else states)[-1])
        return self.head(output.mean(1 if self.rnn.batch_first else 0))


def stem() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())


def captured(module: nn.Module) -> CapturedModel:
    torch.manual_seed(0)
    nets.randomise(module, STEPS)
    return capture(module.eval(), STEPS)


def images(count: int = 6) -> Tensor:
    return torch.randn(count, *STEPS, generator=torch.Generator().manual_seed(1))


def check_removals(network: CapturedModel, coupling: CouplingGraph) -> None:
    """Mask and prune some channels of every group, and compare."""
    masked, rng = mask_module(network, coupling), np.random.default_rng(1)
    for _ in range(6):
        gone = rng.random(coupling.num_players) < rng.random()
        for group in coupling.groups:
            gone[group.players[0]] = False
        removed = tuple(np.flatnonzero(gone).tolist())
        masks = full_masks(6, coupling.num_players)
        masks[:, list(removed)] = 0
        with torch.no_grad():
            told = masked(images(), masks)
            wanted = prune(network, coupling, removed)(images())
        torch.testing.assert_close(told, wanted, rtol=1e-4, atol=1e-5)


def drawn(count: int) -> list[tuple[str, int, int, bool, bool, bool, bool]]:
    """Kinds, widths, layers, directions, orders, biases and readers, each value in some network."""
    rng = np.random.default_rng(0)
    flags = [rng.permutation(np.arange(count) % 2 == 0).tolist() for _ in range(4)]
    kinds, layers = sorted(KINDS), rng.permutation(np.arange(count) % 3 + 1)
    return [
        (kinds[i % 3], int(rng.integers(2, 8)), int(layers[i]), *(flag[i] for flag in flags))
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("kind", "width", "layers", "both", "first", "bias", "last"),
    [pytest.param(*each, marks=() if n < 6 else pytest.mark.wide) for n, each in enumerate(drawn(12))],
)
def test_masked_is_pruned_whatever_is_removed(kind, width, layers, both, first, bias, last):
    rnn = KINDS[kind](8, width, layers, bidirectional=both, batch_first=first, bias=bias)
    network = captured(Reader(rnn, last=last))
    coupling = couple(network)
    assert [len(g.players) for g in coupling.groups] == [8, width]
    assert coupling.unruled_ops == ()
    check_removals(network, coupling)


def test_every_image_has_its_own_mask_and_all_present_is_the_op_itself() -> None:
    network = captured(Reader(nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True)))
    coupling = couple(network)
    masked = mask_module(network, coupling)
    masks = (
        torch.rand(6, coupling.num_players + 1, generator=torch.Generator().manual_seed(2)) > 0.3
    ).float()
    masks[:, -1] = 1
    with torch.no_grad():
        together = masked(images(), masks)
        alone = torch.cat([masked(images()[i : i + 1], masks[i : i + 1]) for i in range(6)])
        whole = masked(images(), full_masks(6, coupling.num_players))
        torch.testing.assert_close(whole, network.graph_module(images()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_work_is_counted_by_steps_gates_and_directions() -> None:
    coupling = couple(captured(Reader(nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True))))
    own = sum(layer.macs(coupling.removed_mask(())) for layer in coupling.layers if layer.op == "lstm")
    # Nine steps; each of two layers in two directions has 4 gates of 6 units over its input and its state.
    assert own == 9 * 2 * 4 * 6 * ((8 + 6) + (12 + 6))


class FromImage(Reader):
    """The first state is a part of the image itself, which cannot become smaller."""

    def forward(self, x: Tensor) -> Tensor:
        steps = self.stem(x).flatten(2).transpose(1, 2)
        output, _ = self.rnn(steps, x.flatten(1)[:, : self.rnn.hidden_size][None].contiguous())
        return self.head(output.mean(1))


class Projected(Reader):
    """A hidden state that is projected to another width."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__(rnn)
        self.head = nn.Linear(rnn.proj_size, 5)


@pytest.mark.parametrize(
    ("module", "groups", "reason"),
    [
        (FromImage(nn.GRU(8, 6, batch_first=True)), [8], "its initial state is computed"),
        (
            Projected(nn.LSTM(8, 6, proj_size=3, batch_first=True)),
            [],
            "packed, projected or with computed weights",
        ),
    ],
    ids=["first state of the image", "projected"],
)
def test_what_cannot_leave_stays_with_its_reason(module: nn.Module, groups: list[int], reason: str) -> None:
    coupling = couple(captured(module))
    assert [len(g.players) for g in coupling.groups] == groups
    assert any(reason in frozen.reason for frozen in coupling.frozen)


def test_recovery_goes_around_it_with_one_note_and_statistics_leave_its_input_masked() -> None:
    network = captured(Reader(nn.GRU(8, 6, 2, batch_first=True)))
    coupling = couple(network)
    removed = (0, 3, 9, 11)
    many = images(40)
    assert {source for source, _ in channel_statistics(network, coupling, many)} == {
        p.source for p in coupling.mask_points if p.consumer == "linear"
    }
    _, report = reconstruct(
        network.graph_module, prune(network, coupling, removed), coupling, removed, nets.split(many),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert [n for n in report.notes if "gru" in n] == ["rnn (gru) is of a kind that recovery leaves as it is"]
    assert [step.layer for step in report.steps] == ["head"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_users_own_class_follows(kind: str, tmp_path: Path) -> None:
    module = Reader(KINDS[kind](8, 6, 2, bidirectional=True, batch_first=True))
    network = captured(module)
    coupling = couple(network)
    removed = (1, 2, 8, 12)
    pruned = prune(network, coupling, removed)
    counters = {k: v for k, v in module.state_dict().items() if k.endswith("num_batches_tracked")}
    state = counters | own_state(network, pruned.state_dict())
    save_surgery(surgery_recipe(coupling, removed, network), state, tmp_path)
    own = apply_surgery(module, tmp_path / "surgery.json", tmp_path / "weights.safetensors")
    assert (own.rnn.input_size, own.rnn.hidden_size) == (6, 4)
    assert json.loads((tmp_path / "surgery.json").read_text())["kept_indices"]["rnn.weight_hh_l1"]["1"] == [
        1,
        2,
        3,
        5,
    ]
    with torch.no_grad():
        torch.testing.assert_close(own(images()), pruned(images()), rtol=1e-4, atol=1e-5)
    # It trains on, too: the list of weights that the fused op reads is that of the new ones.
    own.train()(images()).sum().backward()
    assert own.rnn.weight_hh_l1.grad.shape == own.rnn.weight_hh_l1.shape


def rows_of_pixels(m: nets.Network, x: Tensor) -> Tensor:
    return m.stem(x).flatten(2).transpose(1, 2)


def windows(m: nets.Network, x: Tensor) -> Tensor:
    """Every row of pixels is a sequence of its own, so that rows share the batch dimension."""
    y = m.stem(x).permute(0, 2, 3, 1)
    read = m.rnn(y.flatten(0, 1))[0][:, -1]
    return m.head(read.unflatten(0, (len(x), y.shape[1])).mean(1))


ODD = {
    "pixels themselves": lambda: nets.Network(
        lambda m, x: m.head(m.rnn(x.transpose(1, 2).flatten(2))[0][:, -1]),
        rnn=nn.LSTM(24, 6, batch_first=True), head=nn.Linear(6, 5),
    ),
    "last states of both directions": lambda: nets.Network(
        lambda m, x: m.head(torch.cat(list(m.rnn(rows_of_pixels(m, x))[1]), 1)),
        stem=nets.conv_bn(3, 8, stride=2), rnn=nn.GRU(8, 6, batch_first=True, bidirectional=True),
        head=nn.Linear(12, 5),
    ),
    "shortcut around it": lambda: nets.Network(
        lambda m, x: m.head(((y := rows_of_pixels(m, x)) + m.rnn(y)[0]).mean(1)),
        stem=nets.conv_bn(3, 8, stride=2), rnn=nn.GRU(8, 8, batch_first=True), head=nn.Linear(8, 5),
    ),
    "one behind the other": lambda: nets.Network(
        lambda m, x: m.head(m.second(m.rnn(rows_of_pixels(m, x))[0].relu())[0].amax(1)),
        stem=nets.conv_bn(3, 8, stride=2), rnn=nn.LSTM(8, 6, batch_first=True),
        second=nn.GRU(6, 5, batch_first=True, bidirectional=True), head=nn.Linear(10, 5),
    ),
    "used twice": lambda: nets.Network(
        lambda m, x: m.head(m.rnn(m.rnn(rows_of_pixels(m, x))[0])[0].mean(1)),
        stem=nets.conv_bn(3, 6, stride=2), rnn=nn.GRU(6, 6, batch_first=True), head=nn.Linear(6, 5),
    ),
    "windows in the batch": lambda: nets.Network(
        windows, stem=nets.conv_bn(3, 8), rnn=nn.GRU(8, 6, batch_first=True), head=nn.Linear(6, 5),
    ),
    "cell state": lambda: nets.Network(
        lambda m, x: m.head(m.rnn(rows_of_pixels(m, x))[1][1][0]),
        stem=nets.conv_bn(3, 8, stride=2), rnn=nn.LSTM(8, 6, batch_first=True), head=nn.Linear(6, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "groups"),
    zip(ODD, ([6], [8, 6], [8], [8, 6, 5], [6], [8, 6], [8, 6]), strict=True),
)
def test_masked_is_pruned_wherever_a_recurrent_op_stands(name: str, groups: list[int]) -> None:
    network = captured(ODD[name]())
    coupling = couple(network)
    assert [len(g.players) for g in coupling.groups] == groups
    assert coupling.unruled_ops == ()
    check_removals(network, coupling)
