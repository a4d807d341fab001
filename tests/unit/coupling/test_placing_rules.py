"""Ops that join tensors, pick places by number, or make constants: masked equals pruned."""

from __future__ import annotations

from collections.abc import Callable

import networks as nets
import pytest
import torch
from networks import Network, make_case
from torch import Tensor, nn
from torch.nn import functional

Forward = Callable[[Network, Tensor], Tensor]


def network(forward: Forward, *, entering: int = 8, **extra: nn.Module | nn.Parameter) -> nn.Module:
    """Two convolutions ``a`` and ``b`` of 8 channels, the op, a convolution that takes its result, a head."""
    layers: dict[str, nn.Module | nn.Parameter] = {
        "a": nn.Conv2d(3, 8, 3, padding=1),
        "b": nn.Conv2d(3, 8, 3, padding=1),
        "c": nn.Conv2d(entering, 6, 3, padding=1),
        "head": nn.Linear(6, 4),
    }
    return Network(
        lambda m, x: m.head(functional.relu(m.c(forward(m, x))).mean((2, 3))), **{**layers, **extra}
    )


class Numbers(nn.Module):
    """Stored numbers to pick by."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.register_buffer("n", numbers)


def overwritten(m: Network, x: Tensor) -> Tensor:
    y = m.a(x).clone()
    y[:, 2:6] = m.b(x)[:, :4]
    return y


def zeroed(m: Network, x: Tensor) -> Tensor:
    y = m.a(x).clone()
    y[:, 2:6].zero_()
    return y


def every_second_overwritten(m: Network, x: Tensor) -> Tensor:
    y = m.a(x).clone()
    y[:, ::2] = m.b(x)[:, :4]
    return y


def filled_up(m: Network, x: Tensor) -> Tensor:
    y = m.a(x)
    return torch.cat([y[:, :4], torch.zeros(y.shape[0], 4, 8, 8)], 1) + m.b(x)


def folded_patches(m: Network, x: Tensor) -> Tensor:
    patches = functional.unfold(m.a(x), 3, padding=1) * m.q(m.b(x)).flatten(2)
    return functional.fold(patches, (8, 8), 3, padding=1)


def looked_up(m: Network, x: Tensor) -> Tensor:
    tokens = m.a(x).flatten(2).transpose(1, 2) + m.table(m.numbers.n)
    return tokens.transpose(1, 2).reshape(-1, 8, 8, 8)


ORDER = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "stack, summed": (lambda: network(lambda m, x: torch.stack([m.a(x), m.b(x)], 1).sum(1)), 14),
    "stack last": (lambda: network(lambda m, x: torch.stack([m.a(x), m.b(x)], -1).amax(-1)), 14),
    "glu": (lambda: network(lambda m, x: functional.glu(torch.cat([m.a(x), m.b(x)], 1), 1)), 14),
    "slice written": (lambda: network(overwritten), 14),
    "slice zeroed": (lambda: network(zeroed), 14),
    "slice written with a step": (lambda: network(every_second_overwritten), 6),
    "constant channels": (lambda: network(filled_up), 14),
    "reordered by numbers": (
        lambda: network(
            lambda m, x: m.a(x)[:, m.order.n] + m.b(x).index_select(1, m.order.n), order=Numbers(ORDER)
        ),
        14,
    ),
    "some picked by numbers": (
        lambda: network(lambda m, x: m.a(x)[:, m.order.n], entering=4, order=Numbers(ORDER[:4])),
        10,
    ),
    "repeated": (lambda: network(lambda m, x: m.a(x).repeat(1, 2, 1, 1), entering=16), 14),
    "repeated one by one": (lambda: network(lambda m, x: m.a(x).repeat_interleave(2, 1), entering=16), 14),
    "patches": (
        lambda: network(
            lambda m, x: functional.unfold(m.a(x), 3, padding=1).reshape(-1, 72, 8, 8), entering=72
        ),
        14,
    ),
    "patches put together": (lambda: network(folded_patches, q=nn.Conv2d(8, 72, 1)), 22),
    "windows": (lambda: network(lambda m, x: m.a(x).unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))), 14),
    "embedding": (
        lambda: network(looked_up, table=nn.Embedding(64, 8), numbers=Numbers(torch.arange(64))),
        14,
    ),
    "rows of a table": (
        lambda: network(
            lambda m, x: m.a(x) + m.t[m.order.n].view(8, 8, 8).permute(2, 0, 1),
            t=nn.Parameter(torch.randn(5, 8)),
            order=Numbers(torch.arange(64) % 5),
        ),
        14,
    ),
    "slice of a parameter": (
        lambda: network(lambda m, x: m.a(x) * m.t[:, 2:10], t=nn.Parameter(torch.randn(1, 12, 1, 1))),
        14,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_masked_equals_pruned(name):
    build, players = CASES[name]
    torch.manual_seed(0)
    case = make_case(build())
    assert case.coupling.num_players == players
    assert case.coupling.unruled_ops == ()
    rows = nets.compare(case, case.removals())
    assert len(rows) > 1
    for row in rows:
        assert row.deviation < 1e-10
    assert max(row.effect for row in rows) > 1e-6


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda m, x: m.a(x)[:, m.b(x)[0, :, 0, 0].argsort()], "picked by numbers that are computed"),
        (every_second_overwritten, "written over with a step"),
        (lambda m, x: m.a(x).unfold(1, 2, 1).amax(-1), "windows are cut along this dimension"),
    ],
)
def test_channels_that_cannot_leave_say_why(forward, reason):
    case = make_case(network(forward, entering=7 if "windows" in reason else 8))
    held = {row.layer: row.reason for row in case.coupling.frozen}
    assert held["a"] == reason
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
