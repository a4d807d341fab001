"""Groups of convolutions across branches, shuffles and adds: exact in 1, 2 and 3 dimensions."""

from __future__ import annotations

import more_networks as more
import numpy as np
import pytest
from networks import Case, compare, toy

from edgeprune.artifacts.coupling import NO_PLAYER
from edgeprune.pruning.surgery import prune

ALL = pytest.mark.parametrize("factory", more.UNEVEN, ids=lambda f: f.__name__)


def players(case: Case, parameter: str, dim: int = 0) -> list[int]:
    return case.coupling.parameter_players[(parameter, dim)].tolist()


@ALL
def test_number_of_players_and_groups(factory):
    coupling = toy(factory).coupling
    assert (coupling.num_players, len(coupling.groups)) == more.UNEVEN[factory]
    assert coupling.unruled_ops == ()


@ALL
def test_masked_equals_pruned_and_macs_are_those_counted(factory):
    more.check_pruning(toy(factory))


@ALL
@pytest.mark.parametrize("seed", range(3))
def test_random_subsets_of_players(factory, seed):
    case = toy(factory)
    rng = np.random.default_rng(seed)
    order = rng.permutation(case.coupling.num_players).tolist()
    removed: tuple[int, ...] = ()
    for player in order:
        wider = tuple(sorted((*removed, player)))
        if more.spares(case, wider) and rng.random() < 0.7:
            removed = wider
    (row,) = compare(case, [removed])
    assert removed
    assert row.deviation < 1e-10
    assert row.effect > 1e-6


def test_a_place_leaves_in_every_group_whichever_branch_it_comes_from():
    case = toy(more.groups_across_branches)
    left, right = players(case, "left.0.weight"), players(case, "right.0.weight")
    assert (left + right)[:4] * 3 == left + right
    assert players(case, "grouped.weight", 1) == (left + right)[:4]
    pruned = prune(case.captured, case.coupling, (left[0],))
    widths = [pruned.get_parameter(f"{name}.0.weight").shape[0] for name in ("left", "right")]
    assert widths == [3, 6]


def test_the_image_holds_its_places_in_every_group():
    case = toy(more.groups_with_the_image)
    left = players(case, "left.0.weight")
    assert left == [0, NO_PLAYER, NO_PLAYER, NO_PLAYER, 0]
    held = next(f for f in case.coupling.frozen if f.layer == "left.0")
    assert (held.channels, held.op, held.reason) == (3, "conv2d", "coupled with channels that stay")


def test_depthwise_filters_of_the_image_stay():
    case = toy(more.branches_into_depthwise)
    each = players(case, "each.weight")
    assert each[8:14] == [NO_PLAYER] * 6
    assert each[:8] == [p for p in players(case, "left.0.weight") for _ in range(2)]
    pruned = prune(case.captured, case.coupling, (each[0], each[-1]))
    assert pruned.get_parameter("each.weight").shape[0] == 16
    assert next(n.args[6] for n in pruned.graph.nodes if "conv2d" in n.name and len(n.args) > 6) == 8
