"""More toy networks: normalisation of several kinds, transposed and unevenly grouped convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from networks import Case, Network, compare, conv_bn, counted_macs, distance, head
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.fx import tensor_leaves
from edgeprune.pruning.surgery import prune

Factory = Callable[[], nn.Module]


def check_pruning(case: Case) -> None:
    """Masked equals pruned, for every group, every player alone and all together; MACs are as counted."""
    alone = [(player,) for player in range(case.coupling.num_players)]
    removals = [*case.removals(groups_at_once=1), *(r for r in alone if spares(case, r))]
    assert removals
    for row in compare(case, removals):
        assert row.deviation < 1e-10, row
        assert row.effect > 1e-6, row
    for removed in ((), *removals):
        pruned = prune(case.captured, case.coupling, removed)
        gone = case.coupling.removed_mask(removed)
        assert case.coupling.total_macs(gone) == counted_macs(pruned, case.images)
        with torch.no_grad():
            two = tensor_leaves(pruned(case.images))
            three = tensor_leaves(pruned(torch.cat([case.images, case.images[:1]])))
        assert distance(two, [t[:2] for t in three]) < 1e-10


def spares(case: Case, removed: tuple[int, ...]) -> bool:
    """Whether every layer keeps a channel."""
    return all(set(layer.out_players.tolist()) - set(removed) for layer in case.coupling.layers)


def varied(layer: nn.Module) -> nn.Module:
    """The layer with random scale and shift, so that channels that change places are noticed."""
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    if getattr(layer, "bias", None) is not None:
        nn.init.uniform_(layer.bias, -0.5, 0.5)
    return layer


def group_norm(groups: int, channels: int) -> nn.Module:
    return varied(nn.GroupNorm(groups, channels))


def group_norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), group_norm(4, 8), nn.GELU(), nn.Conv2d(8, 6, 3), group_norm(3, 6), nn.GELU(),
        head(6),
    )  # fmt: skip


def group_norm_without_affine() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8, affine=False), nn.GELU(), conv_bn(8, 6), head(6)
    )


def group_norm_of_single_channels() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), group_norm(8, 8), nn.GELU(), conv_bn(8, 6), head(6))


def group_norm_across_branches() -> nn.Module:
    """Norm groups of three channels: 0-2 and 3-4 of the left branch, the second with one of the right."""
    return Network(
        lambda m, x: m.head(m.last(m.norm(torch.cat([m.left(x), m.right(x)], dim=1)))),
        left=conv_bn(3, 5), right=conv_bn(3, 7), norm=group_norm(4, 12), last=conv_bn(12, 6), head=head(6),
    )  # fmt: skip


def group_norms_that_meet() -> nn.Module:
    """Four norm groups on one side of an add and two on the other: pairs leave together."""
    return Network(
        lambda m, x: m.head(functional.gelu(m.norm(m.second(m.first(y := m.start(m.stem(x))))) + y)),
        stem=nn.Conv2d(3, 8, 3, padding=1), start=group_norm(4, 8), first=conv_bn(8, 6),
        second=nn.Conv2d(6, 8, 3, padding=1), norm=group_norm(2, 8), head=head(8),
    )  # fmt: skip


def group_norm_and_grouped_convolution() -> nn.Module:
    """Neighbours by the norm, opposite halves by the convolution: two players of four channels."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), group_norm(4, 8), nn.GELU(), nn.Conv2d(8, 6, 3, groups=2), nn.GELU(), head(6)
    )


def native_group_norm() -> nn.Module:
    def run(m: Network, x: Tensor) -> Tensor:
        y = m.stem(x)
        y = torch.ops.aten.native_group_norm(y, m.norm.weight, m.norm.bias, y.shape[0], 8, 36, 4, 1e-5)[0]
        return m.head(functional.gelu(y))

    return Network(run, stem=nn.Conv2d(3, 8, 3), norm=group_norm(4, 8), head=head(8))


def instance_norms() -> nn.Module:
    """With scale and shift or without, with running statistics or without."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.InstanceNorm2d(8),
        nn.GELU(),
        nn.Conv2d(8, 6, 3, padding=1),
        varied(nn.InstanceNorm2d(6, affine=True)),
        nn.GELU(),
        nn.Conv2d(6, 7, 3, padding=1),
        varied(nn.InstanceNorm2d(7, affine=True, track_running_stats=True)),
        nn.GELU(),
        nn.Conv2d(7, 5, 3, padding=1),
        nn.InstanceNorm2d(5, track_running_stats=True),
        nn.GELU(),
        head(5),
    )


def layer_norm_over_positions() -> nn.Module:
    """Every channel's map is normalised alone."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), varied(nn.LayerNorm([6, 6])), nn.GELU(), conv_bn(8, 6), head(6))


def normalised_rows() -> nn.Module:
    return Network(
        lambda m, x: m.head(m.last(functional.normalize(m.stem(x), dim=-1))),
        stem=conv_bn(3, 8), last=conv_bn(8, 6), head=head(6),
    )  # fmt: skip


def length_of_every_channel() -> nn.Module:
    return Network(
        lambda m, x: m.last(torch.linalg.vector_norm(m.stem(x), dim=(2, 3))),
        stem=conv_bn(3, 8), last=nn.Linear(8, 5),
    )  # fmt: skip


NORMS: dict[Factory, tuple[int, int]] = {
    group_norms: (4 + 3, 2),
    group_norm_without_affine: (2 + 6, 2),
    group_norm_of_single_channels: (8 + 6, 2),
    group_norm_across_branches: (4 + 6, 4),
    group_norms_that_meet: (2 + 6, 2),
    group_norm_and_grouped_convolution: (2 + 3, 2),
    native_group_norm: (4, 1),
    instance_norms: (8 + 6 + 7 + 5, 4),
    layer_norm_over_positions: (8 + 6, 2),
    normalised_rows: (8 + 6, 2),
    length_of_every_channel: (8, 1),
}
"""Networks with norms, and the number of players and of groups that a person counts by hand."""


def decoder() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8, stride=2),
        nn.ConvTranspose2d(8, 6, 2, 2),
        nn.GELU(),
        nn.ConvTranspose2d(6, 5, 3, 2, padding=1, output_padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.GELU(),
        nn.Conv2d(5, 2, 1),
    )


def decoder_with_skip() -> nn.Module:
    return Network(
        lambda m, x: m.last(m.joined(torch.cat([m.up(m.down(y := m.stem(x))), y], 1))),
        stem=conv_bn(3, 6), down=conv_bn(6, 8, stride=2), up=nn.ConvTranspose2d(8, 4, 2, 2),
        joined=conv_bn(10, 5), last=nn.ConvTranspose2d(5, 2, 1),
    )  # fmt: skip


def transposed_depthwise(multiplier: int = 1) -> nn.Module:
    out = 6 * multiplier
    return nn.Sequential(
        conv_bn(3, 6), nn.ConvTranspose2d(6, out, 2, 2, groups=6), nn.GELU(), nn.Conv2d(out, 4, 1), head(4)
    )


def transposed_depthwise_multiplier() -> nn.Module:
    return transposed_depthwise(2)


def transposed_grouped() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8), nn.ConvTranspose2d(8, 12, 2, 2, groups=2), nn.GELU(), nn.Conv2d(12, 5, 1), head(5)
    )


def transposed_across_branches() -> nn.Module:
    return Network(
        lambda m, x: m.head(functional.gelu(m.up(torch.cat([m.left(x), m.right(x)], dim=1)))),
        left=conv_bn(3, 5), right=conv_bn(3, 7), up=nn.ConvTranspose2d(12, 9, 2, 2, groups=3), head=head(9),
    )  # fmt: skip


def transposed_image() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(3, 8, 2, 2), nn.GELU(), conv_bn(8, 5), head(5))


def transposed_volumes() -> nn.Module:
    """Transposed convolutions of one and three dimensions: plain, depthwise, grouped."""
    return Network(
        lambda m, x: m.head(m.line(m.volume(x.unsqueeze(2)).mean(2).flatten(2)).mean(2)),
        volume=nn.Sequential(
            nn.ConvTranspose3d(3, 8, (1, 2, 2)), nn.GELU(),
            nn.ConvTranspose3d(8, 8, (2, 1, 1), groups=8), nn.GELU(),
            nn.ConvTranspose3d(8, 6, 1, groups=2), nn.GELU(),
        ),
        line=nn.Sequential(
            nn.ConvTranspose1d(6, 8, 3, stride=2), nn.GELU(),
            nn.ConvTranspose1d(8, 16, 2, groups=8), nn.GELU(),
            nn.ConvTranspose1d(16, 6, 2, groups=2), nn.GELU(),
        ),
        head=nn.Linear(6, 5),
    )  # fmt: skip


def transposed_by_its_general_op() -> nn.Module:
    def run(m: Network, x: Tensor) -> Tensor:
        y, up, wide = m.stem(x), m.up, m.wide
        y = torch.convolution(y, up.weight, up.bias, [2, 2], [0, 0], [1, 1], True, [0, 0], 1)
        y = torch.convolution(y, wide.weight, wide.bias, [2, 2], [0, 0], [1, 1], True, [0, 0], 4)
        return m.head(functional.gelu(y))

    return Network(
        run, stem=conv_bn(3, 6), up=nn.ConvTranspose2d(6, 4, 2), wide=nn.ConvTranspose2d(4, 8, 2, groups=4),
        head=head(8),
    )  # fmt: skip


TRANSPOSED: dict[Factory, tuple[int, int]] = {
    decoder: (8 + 6 + 5, 3),
    decoder_with_skip: (6 + 8 + 4 + 5, 4),
    transposed_depthwise: (6 + 4, 2),
    transposed_depthwise_multiplier: (6 + 4, 2),
    transposed_grouped: (4 + 6 + 5, 3),
    transposed_across_branches: (4 + 3, 3),
    transposed_image: (8 + 5, 2),
    transposed_volumes: (4 + 3 + 4 + 3, 4),
    transposed_by_its_general_op: (6 + 4, 2),
}
"""Networks with transposed convolutions, and the number of players and of groups counted by hand."""


def groups_across_branches() -> nn.Module:
    """Branches of 5 and 7 channels meet a convolution of three groups of 4."""
    return Network(
        lambda m, x: m.head(m.last(functional.gelu(m.grouped(torch.cat([m.left(x), m.right(x)], dim=1))))),
        left=conv_bn(3, 5), right=conv_bn(3, 7), grouped=nn.Conv2d(12, 9, 3, groups=3), last=conv_bn(9, 5),
        head=head(5),
    )  # fmt: skip


def groups_with_the_image() -> nn.Module:
    """Only place 3 of both groups is free of the image: channels 0 and 4 of the branch."""
    return Network(
        lambda m, x: m.head(functional.gelu(m.grouped(torch.cat([x, m.left(x)], dim=1)))),
        left=conv_bn(3, 5), grouped=nn.Conv2d(8, 6, 3, groups=2), head=head(6),
    )  # fmt: skip


def groups_after_a_shuffle() -> nn.Module:
    """A shuffle of three, then two groups: places are coupled across groups in both ways."""

    def run(m: Network, x: Tensor) -> Tensor:
        y = functional.channel_shuffle(functional.gelu(m.first(m.stem(x))), 3)
        return m.head(functional.gelu(m.second(y)))

    return Network(
        run, stem=conv_bn(3, 12), first=nn.Conv2d(12, 12, 3, groups=3), second=nn.Conv2d(12, 8, 3, groups=2),
        head=head(8),
    )  # fmt: skip


def groups_meet_in_an_add() -> nn.Module:
    """Convolutions of 2 and of 3 groups on either side of an add and after it."""
    return Network(
        lambda m, x: m.head(functional.gelu(m.last(functional.gelu(m.two(y := m.stem(x)) + m.three(y))))),
        stem=conv_bn(3, 12), two=nn.Conv2d(12, 12, 3, groups=2), three=nn.Conv2d(12, 12, 3, groups=3),
        last=nn.Conv2d(12, 8, 1, groups=4), head=head(8),
    )  # fmt: skip


def branches_into_depthwise() -> nn.Module:
    """Depthwise filters whose channels come from two branches, one of them the image."""
    return Network(
        lambda m, x: m.head(m.last(functional.gelu(m.each(torch.cat([m.left(x), x, m.right(x)], dim=1))))),
        left=conv_bn(3, 4), right=conv_bn(3, 3), each=nn.Conv2d(10, 20, 3, groups=10), last=conv_bn(20, 5),
        head=head(5),
    )  # fmt: skip


def lines_and_volumes() -> nn.Module:
    """Convolutions of one and three dimensions: plain, depthwise, grouped."""
    return Network(
        lambda m, x: m.head(m.line(m.volume(x.unsqueeze(2)).mean(2).flatten(2)).mean(2)),
        volume=nn.Sequential(
            nn.Conv3d(3, 8, (1, 3, 3)), nn.GELU(),
            nn.Conv3d(8, 16, (1, 2, 2), groups=8), nn.GELU(),
            nn.Conv3d(16, 6, 1, groups=2), nn.GELU(),
        ),
        line=nn.Sequential(
            nn.Conv1d(6, 8, 3), nn.GELU(),
            nn.Conv1d(8, 8, 2, groups=8), nn.GELU(),
            nn.Conv1d(8, 6, 2, groups=2), nn.GELU(),
        ),
        head=nn.Linear(6, 5),
    )  # fmt: skip


UNEVEN: dict[Factory, tuple[int, int]] = {
    groups_across_branches: (4 + 3 + 5, 4),
    groups_with_the_image: (1 + 3, 2),
    groups_after_a_shuffle: (4 + 2 + 4, 3),
    groups_meet_in_an_add: (2 + 1 + 2, 3),
    branches_into_depthwise: (4 + 3 + 5, 3),
    lines_and_volumes: (4 + 3 + 4 + 3, 4),
}
"""Networks with awkwardly grouped convolutions, and the number of players and of groups counted by hand."""
