"""Whole attention heads as players."""

from __future__ import annotations

from collections.abc import Callable

import networks as nets
import pytest
import torch
from networks import Network, counted_macs, make_case
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgeprune.artifacts.choices import AttentionUnit, CouplingOptions
from edgeprune.pruning.surgery import prune
from edgeprune.selection import Widths, macs_model

WIDTH, HEADS, TOKENS = 12, 3, 16
WHOLE = CouplingOptions(attention=AttentionUnit.HEADS)


class Attention(nn.Module):
    """Queries, keys and values from one layer; the product is a choice."""

    def __init__(self, product: Callable[[Attention, Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 2, 2)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 5)
        self.table = nn.Parameter(torch.randn(49, HEADS))
        self.warmth = nn.Parameter(torch.rand(HEADS, 1, 1) + 0.5)
        self.register_buffer("places", torch.arange(TOKENS**2).reshape(TOKENS, TOKENS) % 49)
        self.product = product

    def bias(self) -> Tensor:
        return self.table[self.places].permute(2, 0, 1).unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        split = self.qkv(x).reshape(-1, TOKENS, 3, HEADS, WIDTH // HEADS)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.product(self, q, k, v).transpose(1, 2).reshape(-1, TOKENS, WIDTH)
        return self.head(functional.gelu(self.out(mixed)).mean(1))


class TorchAttention(nn.Module):
    """PyTorch's own module, which folds heads into the batch on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(WIDTH, 5)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(functional.gelu(self.attention(x, x, x, need_weights=False)[0]).mean(1))


def by_matmul(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * m.warmth) @ k.transpose(-2, -1) + m.bias()).softmax(-1) @ v


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "fused": lambda: Attention(lambda m, q, k, v: functional.scaled_dot_product_attention(q, k, v)),
    "fused with a bias for each head": lambda: Attention(
        lambda m, q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=m.bias())
    ),
    "products with a bias and a scale for each head": lambda: Attention(by_matmul),
    "torch's module": TorchAttention,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_heads_leave_exactly(name):
    torch.manual_seed(0)
    case = make_case(NETWORKS[name](), options=WHOLE)
    heads = [g for g in case.coupling.groups if len(g.players) == HEADS]
    assert len(heads) == 1
    assert case.coupling.notes == ()
    rows = nets.compare(case, [(p,) for p in heads[0].players] + case.removals())
    for row in rows:
        assert row.deviation < 1e-10
        assert row.effect > 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_by_default_channels_of_the_heads_leave_in_step(name):
    torch.manual_seed(0)
    case = make_case(NETWORKS[name]())
    assert WIDTH // HEADS in {len(g.players) for g in case.coupling.groups}
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10


@pytest.mark.parametrize(("heads", "width"), [(1, 8), (2, 5), (3, 8), (3, 16), (4, 3)])
def test_a_view_behind_attention_holds_for_every_width(heads, width):
    """As in Hugging Face's networks: a view is captured, whose strides depend on the widths of a head."""

    class Separate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(WIDTH, 5)
            self.q, self.k, self.v = (nn.Linear(WIDTH, heads * width) for _ in range(3))
            self.out = nn.Linear(heads * width, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).flatten(2).transpose(1, 2)
            q, k, v = (f(x).view(-1, TOKENS, heads, width).transpose(1, 2) for f in (self.q, self.k, self.v))
            mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()
            return self.head(functional.gelu(self.out(mixed.view(-1, TOKENS, heads * width))).mean(1))

    torch.manual_seed(0)
    case = make_case(Separate())
    removals = case.removals()
    for group in case.coupling.groups:  # every number that may stay
        removals += [tuple(group.players[kept:]) for kept in range(1, len(group.players))]
    for row in nets.compare(case, removals):
        assert row.deviation < 1e-10


def by_einsum(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    products = torch.einsum("bhqd,bhkd->bhqk", q, k)
    return torch.einsum("bhqk,bhkd->bhqd", (products + m.bias()).softmax(-1), v)


@pytest.mark.parametrize("options", [WHOLE, CouplingOptions()], ids=["whole heads", "channels in step"])
@pytest.mark.parametrize("name", [*NETWORKS, "einsum"])
def test_products_of_activations_are_counted(name, options):
    """As torch's own counter finds them in what is left, and as the selection goes by."""
    torch.manual_seed(0)
    case = make_case((NETWORKS | {"einsum": lambda: Attention(by_einsum)})[name](), options=options)
    coupling = case.coupling
    assert len(coupling.products) == 2
    for removed in [(), *case.removals()]:
        with sdpa_kernel(SDPBackend.MATH):  # the counter does not know the other kernels
            counted = counted_macs(prune(case.captured, coupling, removed), case.images)
        assert coupling.total_macs(coupling.removed_mask(removed)) == counted
    widths = Widths(coupling, [macs_model(coupling)])
    for index, group in enumerate(coupling.groups):
        count = len(group.players) // 2
        gone = coupling.removed_mask(group.players[:count])
        (saved,) = widths.savings(index, count)
        assert saved == coupling.total_macs() - coupling.total_macs(gone)


def test_more_heads_than_channels_in_each_are_not_mistaken_for_them():
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.qkv = nn.Conv2d(3, WIDTH, 2, 2), nn.Linear(WIDTH, 3 * WIDTH)
            self.head = nn.Linear(WIDTH, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).flatten(2).transpose(1, 2)
            q, k, v = self.qkv(x).reshape(-1, TOKENS, 3, 6, 2).permute(2, 0, 3, 1, 4).unbind(0)
            mixed = functional.scaled_dot_product_attention(q, k, v)
            return self.head(mixed.transpose(1, 2).reshape(-1, TOKENS, WIDTH).mean(1))

    for options, expected in ((WHOLE, 6), (CouplingOptions(), 2)):
        case = make_case(Wide(), options=options)
        group = next(g for g in case.coupling.groups if g.layers[0] == "qkv")
        assert len(group.players) == expected
        for row in nets.compare(case, case.removals()):
            assert row.deviation < 1e-10


def test_products_that_do_not_tell_heads_apart_are_named():
    case = make_case(
        Network(
            lambda m, x: m.head(
                ((t := m.stem(x).flatten(2).transpose(1, 2)) @ t.transpose(1, 2)).softmax(-1) @ m.v(t)
            ).mean(1),
            stem=nn.Conv2d(3, WIDTH, 2, 2), v=nn.Linear(WIDTH, WIDTH), head=nn.Linear(WIDTH, 5),
        ),
        options=WHOLE,
    )  # fmt: skip
    (note,) = case.coupling.notes
    assert "do not tell heads apart" in note
    assert "matmul" in note
