"""Channels under a layer norm, on request: masks take statistics over what is present, as pruning will."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import networks as nets
import numpy as np
import pytest
import torch
from networks import Case, Network, conv_bn, make_case
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.choices import CouplingOptions
from edgeprune.coupling.coupling import couple
from edgeprune.pruning.masking import full_masks, mask_module

WIDTH = 12
ALLOWED = CouplingOptions(prune_normalized=True)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a feature map, as in ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Depthwise convolution, norm, two pointwise convolutions with a layer scale, shortcut."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norm = norm
        self.wide, self.narrow = nn.Conv2d(WIDTH, 24, 1), nn.Conv2d(24, WIDTH, 1)
        self.scale = nn.Parameter(torch.rand(WIDTH, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.narrow(functional.gelu(self.wide(self.norm(self.depthwise(x)))))


def convolutional(norm: nn.Module, last: nn.Module) -> nn.Module:
    return Network(
        lambda m, x: m.head(m.last(m.block(m.stem(x)).mean((2, 3)))),
        stem=nn.Conv2d(3, WIDTH, 2, 2), block=Block(norm), last=last, head=nn.Linear(WIDTH, 4),
    )  # fmt: skip


class Transformer(nn.Module):
    """Patches, a class token, positions, PyTorch's own encoder layer, norm, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 2, 2)
        self.token, self.places = (nn.Parameter(torch.randn(1, n, WIDTH)) for n in (1, 17))
        self.encoder = nn.TransformerEncoderLayer(
            WIDTH, 3, 24, dropout=0, batch_first=True, norm_first=True, activation="gelu"
        )
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.encoder(x))[:, 0])


class Merging(nn.Module):
    """Four neighbours joined, normalised together and reduced, as between the stages of Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 1)
        self.norm, self.reduce = nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = torch.cat([x[:, a::2, b::2] for b in (0, 1) for a in (0, 1)], -1)
        return self.head(functional.relu(self.reduce(self.norm(x))).mean((1, 2)))


NETWORKS = {
    "layer norm": lambda: convolutional(ChannelNorm(WIDTH), nn.LayerNorm(WIDTH)),
    "without scale and shift": lambda: convolutional(
        ChannelNorm(WIDTH, elementwise_affine=False), nn.LayerNorm(WIDTH, bias=False)
    ),
    "group norm of one group": lambda: convolutional(nn.GroupNorm(1, WIDTH), nn.LayerNorm(WIDTH)),
    "RMS norm": lambda: convolutional(nn.GroupNorm(1, WIDTH), nn.RMSNorm(WIDTH)),
    "transformer": Transformer,
    "patch merging": Merging,
}


def made(name: str, options: CouplingOptions = ALLOWED) -> Case:
    """The case of a network, captured once; nobody changes it."""
    case = captured_once(NETWORKS[name])
    return replace(case, coupling=couple(case.captured, options))


@functools.cache
def captured_once(build: Callable[[], nn.Module]) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_case(build())


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_equals_pruned_for_every_group(name):
    case = made(name)
    assert {(f.op, f.reason) for f in case.coupling.frozen} == {("output", "output of the model")}
    rows = nets.compare(case, case.removals())
    for row in rows:
        assert row.deviation < 1e-10
        assert row.effect > 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_left_alone_without_being_asked(name):
    case = made(name, CouplingOptions())
    assert case.coupling.num_players < made(name).coupling.num_players
    assert not any(point.renormalises for point in case.coupling.mask_points)
    assert any("--prune-normalized lets them go" in f.reason for f in case.coupling.frozen)


def test_images_of_a_batch_may_have_different_masks():
    case = made("transformer")
    masked = mask_module(case.captured, case.coupling)
    masks = full_masks(2, case.coupling.num_players, dtype=torch.float64)
    masks[0, ::3] = 0
    masks[1, 1::2] = 0
    together = masked(case.images, masks)
    for row in range(2):
        alone = masked(case.images[row : row + 1], masks[row : row + 1])
        assert torch.allclose(together[row : row + 1], alone, rtol=0, atol=1e-12)


def test_memberships_between_absent_and_present_have_a_derivative():
    case = made("layer norm")
    masked = mask_module(case.captured, case.coupling)
    masks = full_masks(2, case.coupling.num_players, dtype=torch.float64) * 0.5
    assert torch.autograd.gradcheck(
        lambda m: masked(case.images, m), masks.requires_grad_(True), fast_mode=True
    )


def test_the_graph_tells_which_norms_a_plan_changes():
    case = made("transformer")
    coupling = case.coupling
    stream = next(g for g in coupling.groups if g.layers[0] == "stem")
    inside = next(g for g in coupling.groups if g.layers[0] == "encoder.linear1")
    assert len(coupling.renormalised(coupling.removed_mask(stream.players[:1]))) == 3
    assert coupling.renormalised(coupling.removed_mask(inside.players[:1])) == ()


def test_norms_of_other_kinds_stay_even_on_request():
    case = make_case(
        Network(
            lambda m, x: m.head(m.norm(m.stem(x)).mean((2, 3))),
            stem=conv_bn(3, 8), norm=nn.LayerNorm([8, 8, 8]), head=nn.Linear(8, 4),
        ),
        options=ALLOWED,
    )  # fmt: skip
    assert case.coupling.num_players == 0


def test_couple_without_options_is_the_default():
    case = made("layer norm", CouplingOptions())
    again = couple(case.captured)
    assert again.num_players == case.coupling.num_players
    assert all(
        np.array_equal(a.players, b.players)
        for a, b in zip(again.mask_points, case.coupling.mask_points, strict=True)
    )


class ResponseNorm(nn.Module):
    """Global response normalisation (Woo et al. 2023): a length a channel, relative to their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.rand(width)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        length = x.norm(p=2, dim=(1, 2), keepdim=True)
        share = length / (length.mean(-1, keepdim=True) + 1e-6)
        return (x + torch.addcmul(self.shift, self.scale, x * share)).permute(0, 3, 1, 2)


class ChannelAttention(nn.Module):
    """Attention between the channels of each head, of unit length over the tokens (El-Nouby et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(WIDTH, 3 * WIDTH)
        self.out, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).reshape(-1, 16, 3, 3, 4).permute(2, 0, 3, 4, 1).unbind(0)
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(self.out(mixed.permute(0, 3, 1, 2).reshape(-1, 16, WIDTH)).mean(1))


def between(op: nn.Module) -> nn.Module:
    return Network(
        lambda m, x: m.head(functional.relu(m.c(m.op(m.a(x)))).mean((2, 3))),
        a=nn.Conv2d(3, 8, 3), op=op, c=nn.Conv2d(8, 6, 3), head=nn.Linear(6, 4),
    )  # fmt: skip


REDUCTIONS = {
    "response norm": (lambda: between(ResponseNorm(8)), 6, 14),
    "softmax gate": (lambda: between(Network(lambda m, x: x * x.softmax(1))), 6, 14),
    "attention between channels": (ChannelAttention, 24, 28),
    "sum": (lambda: between(Network(lambda m, x: x * torch.sigmoid(x.sum(1, keepdim=True)))), 14, 14),
    "unit length": (lambda: between(Network(lambda m, x: functional.normalize(x, dim=1))), 14, 14),
    "largest": (lambda: between(Network(lambda m, x: x * x.amax(1, keepdim=True))), 6, 6),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("options", [CouplingOptions(), ALLOWED], ids=["default", "on request"])
def test_ops_that_reduce_channels(name, options):
    """Sums lose their terms exactly; means and softmax are taken over what is present on request only."""
    build, *players = REDUCTIONS[name]
    case = captured_once(build)
    case = replace(case, coupling=couple(case.captured, options))
    assert case.coupling.num_players == players[options.prune_normalized]
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
        assert row.effect > 1e-6
