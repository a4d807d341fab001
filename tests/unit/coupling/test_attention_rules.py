"""Attention: head dimensions leave in step in all heads, whatever way the batch is folded meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import networks as nets
import pytest
import torch
from networks import Network, conv_bn, make_case
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.coupling import BatchLayout

TOKENS, WIDTH, HEADS = 16, 12, 2


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention written as most vision transformers do, with a choice of the product."""

    def __init__(self, product: Callable[[Tensor, Tensor, Tensor], Tensor], windows: int = 1) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.product = product
        self.windows = windows

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        x = x.reshape(-1, TOKENS // self.windows, WIDTH)
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.product(q, k, v).transpose(1, 2).reshape(x.shape)
        return self.out(mixed).reshape(shape)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


def by_matmul(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
    return torch.einsum("bhij,bhjd->bhid", weights, v)


def around(attention: nn.Module) -> nn.Module:
    """An image of 4x4 in tokens, the attention beside a shortcut, and a classifier."""
    return Network(
        lambda m, x: m.head((y := tokens(m.stem(x))) + m.attention(y)).mean(1),
        stem=nn.Conv2d(3, WIDTH, 1),
        attention=attention,
        head=nn.Linear(WIDTH, 5),
    )


class TorchAttention(nn.Module):
    """PyTorch's own module, which folds heads into the batch and puts tokens first."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


VARIANTS = {
    "fused": lambda: Attention(fused),
    "matmul": lambda: Attention(by_matmul),
    "einsum": lambda: Attention(by_einsum),
    "matmul in windows": lambda: Attention(by_matmul, windows=4),
    "fused in windows": lambda: Attention(fused, windows=4),
    "nn.MultiheadAttention": TorchAttention,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_is_exact_and_its_head_dimensions_can_go(variant: str) -> None:
    torch.manual_seed(0)
    case = make_case(around(VARIANTS[variant]()), (3, 4, 4))
    sizes = sorted(len(group.players) for group in case.coupling.groups)
    assert sizes == [WIDTH // HEADS, WIDTH], "head dimensions in step, and the residual stream"
    assert case.coupling.unruled_ops == ()
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
        assert row.effect > 1e-6


def test_softmax_over_channels_holds_them() -> None:
    case = make_case(
        Network(
            lambda m, x: m.head(m.stem(x).softmax(1).mean((2, 3))),
            stem=conv_bn(3, 8),
            head=nn.Linear(8, 5),
        )
    )
    assert case.coupling.num_players == 0
    assert case.coupling.frozen[0].reason.startswith("softmax over it")


@pytest.mark.parametrize("shape", [lambda y: y, lambda y: y.flatten(1), lambda y: y.unsqueeze(1).squeeze(1)])
def test_softmax_on_the_way_out_is_named_as_the_output(shape: Callable[[Tensor], Tensor]) -> None:
    case = make_case(
        Network(
            lambda m, x: shape(m.head(m.stem(x).mean((2, 3))).softmax(1)),
            stem=conv_bn(3, 8),
            head=nn.Linear(8, 5),
        )
    )
    assert case.coupling.num_players == 8
    assert [held.reason for held in case.coupling.frozen] == ["softmax of the model's output"]


def test_a_product_with_a_fixed_matrix_holds_its_channels() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.head = nn.Linear(4, 5)
            self.register_buffer("matrix", torch.randn(16, 8, 4))

        def forward(self, x: Tensor) -> Tensor:
            y = tokens(self.stem(x)).mean(1, keepdim=True)
            return self.head((y @ self.matrix.mean(0)).squeeze(1))

    case = make_case(Projected(), (3, 4, 4))
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10


@pytest.mark.parametrize(
    ("fold", "layout"),
    [
        (lambda y: y.reshape(-1, WIDTH), BatchLayout(dim=0, outer=1, inner=TOKENS)),
        (lambda y: y.transpose(0, 1).reshape(-1, WIDTH), BatchLayout(dim=0, outer=TOKENS, inner=1)),
        (lambda y: y.transpose(0, 1), BatchLayout(dim=1, outer=1, inner=1)),
    ],
    ids=["images first", "tokens first", "batch in the middle"],
)
def test_every_image_has_its_own_mask_however_the_batch_is_folded(
    fold: Callable[[Tensor], Tensor], layout: BatchLayout
) -> None:
    """`compare` gives the images of a batch different coalitions, so a wrong layout would show."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.up(fold(tokens(m.stem(x))))
        if layout.dim == 1:
            return m.head(y.transpose(0, 1)).mean(1)
        y = y.view(-1, TOKENS, 6) if layout.inner > 1 else y.view(TOKENS, -1, 6).transpose(0, 1)
        return m.head(y).mean(1)

    case = make_case(
        Network(forward, stem=nn.Conv2d(3, WIDTH, 1), up=nn.Linear(WIDTH, 6), head=nn.Linear(6, 5)),
        (3, 4, 4),
    )
    assert case.coupling.num_players == WIDTH + 6
    assert layout in [point.batch for point in case.coupling.mask_points]
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
        assert row.effect > 1e-6


def test_a_computed_bias_leaves_with_the_channels_that_it_is_added_to() -> None:
    class Zeroed(nn.Module):
        """The middle third of the bias is always zero, as in Swin V2."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 9)
            self.head = nn.Linear(9, 5)
            self.stem = nn.Conv2d(3, 12, 1)

        def forward(self, x: Tensor) -> Tensor:
            bias = self.linear.bias.clone()
            bias[3:6] = 0
            return self.head(functional.linear(tokens(self.stem(x)), self.linear.weight, bias)).mean(1)

    case = make_case(Zeroed(), (3, 4, 4))
    assert case.coupling.num_players == 12 + 9
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
