"""Selection on small coupling graphs, where every plan can be tried out."""

from __future__ import annotations

import dataclasses
import itertools

import networks as nets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.artifacts.coupling import NO_PLAYER, CoupledGroup, CouplingGraph, WeightedLayer
from edgeprune.artifacts.pruning import PruningPlan
from edgeprune.errors import NothingToPruneError
from edgeprune.selection import MIN_CHANNELS, select


def chain_graph(widths: tuple[int, ...], positions: tuple[int, ...] | None = None) -> CouplingGraph:
    """Layers one after another: an image of 3 channels, hidden ones of these widths, 4 classes."""
    positions = positions or (1,) * (len(widths) + 1)
    starts = np.cumsum([0, *widths])
    dims = [np.full(3, NO_PLAYER)]
    dims += [np.arange(a, b) for a, b in itertools.pairwise(starts)]
    dims += [np.full(4, NO_PLAYER)]
    layers = tuple(
        WeightedLayer(
            name=f"layer{i}", node=f"n{i}", op="linear", weight=f"layer{i}.weight",
            macs_per_weight=positions[i], out_players=dims[i + 1], in_players=dims[i],
        )
        for i in range(len(widths) + 1)
    )  # fmt: skip
    groups = tuple(
        CoupledGroup(
            name=f"layer{i}",
            players=tuple(dims[i + 1].tolist()),
            layers=(f"layer{i}",),
            consumers=(f"layer{i + 1}",),
        )
        for i in range(len(widths))
    )
    return CouplingGraph(
        num_players=int(starts[-1]), groups=groups, mask_points=(), layers=layers, frozen=(),
        parameter_players={}, node_players={}, unruled_ops=(),
    )  # fmt: skip


GRAPH = chain_graph((16, 24, 8), (9, 4, 4, 1))
VALUES = np.random.default_rng(0).uniform(0.1, 1.0, GRAPH.num_players)


def check(plan: PruningPlan, coupling: CouplingGraph, values: np.ndarray) -> None:
    """A plan agrees with itself, and each group loses its least valuable players."""
    gone = coupling.removed_mask(plan.removed)
    assert list(plan.removed) == sorted(set(plan.removed))
    assert plan.macs_before == coupling.total_macs()
    assert plan.macs_after == coupling.total_macs(gone)
    assert plan.macs_removed_share >= plan.ratio_asked - 1e-12
    for row, group in zip(plan.groups, coupling.groups, strict=True):
        players = np.array(group.players)
        assert (row.group, row.players) == (group.name, len(players))
        assert row.kept == int((~gone[players]).sum())
        if 0 < row.kept < row.players:
            assert values[players[gone[players]]].max() <= values[players[~gone[players]]].min()


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.25, 0.5, 0.75, 0.9])
def test_the_ratio_is_reached_and_not_overshot_by_more_than_a_step(ratio):
    plan = select(VALUES, GRAPH, ratio=ratio)
    check(plan, GRAPH, VALUES)
    # The last step took one channel: its saving is less than that of the dearest single channel at first.
    dearest = max(
        GRAPH.total_macs() - GRAPH.total_macs(GRAPH.removed_mask((g.players[0],))) for g in GRAPH.groups
    )
    assert plan.macs_after > plan.macs_before * (1 - ratio) - dearest


@pytest.mark.parametrize("quantum", [2, 4, 8])
def test_widths_are_multiples_of_the_quantum(quantum):
    plan = select(VALUES, GRAPH, ratio=0.4, width_quantum=quantum)
    check(plan, GRAPH, VALUES)
    assert all(row.kept % quantum == 0 for row in plan.groups)
    assert plan.width_quantum == quantum
    assert plan.notes == ()


def test_a_width_that_is_no_multiple_becomes_one_with_its_first_step():
    coupling = chain_graph((10, 13))
    values = np.ones(23)
    plan = select(values, coupling, ratio=0.05, width_quantum=4)
    assert {row.kept for row in plan.groups if row.kept != row.players} <= {8, 12}
    plan = select(values, coupling, ratio=0.5, width_quantum=4)
    assert all(row.kept % 4 == 0 or row.kept == row.players for row in plan.groups)
    assert any(row.kept < row.players for row in plan.groups)


@pytest.mark.parametrize("least", [1, 2, 5])
def test_every_group_keeps_the_least_number_of_channels(least):
    values = VALUES.copy()
    values[16:40] = 0.0
    plan = select(values, GRAPH, ratio=0.8, min_channels=least)
    check(plan, GRAPH, values)
    assert all(row.kept >= least for row in plan.groups)
    assert plan.groups[1].kept == least


def test_the_default_keeps_two_and_leaves_tiny_groups_whole():
    coupling = chain_graph((2, 30, 1))
    plan = select(np.ones(33), coupling, ratio=0.5)
    assert MIN_CHANNELS == 2
    assert [row.kept for row in plan.groups][::2] == [2, 1]


@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.6])
@pytest.mark.parametrize("seed", range(8))
def test_close_to_the_best_of_all_plans_on_tiny_networks(ratio, seed):
    """Never better than brute force, and within half a channel's value of it."""
    coupling = chain_graph((5, 4, 4), (3, 2, 1, 1))
    values = np.random.default_rng(seed).uniform(0.1, 1.0, 13)
    plan = select(values, coupling, ratio=ratio, min_channels=1)
    check(plan, coupling, values)
    budget = coupling.total_macs() * (1 - ratio)
    orders = [sorted(g.players, key=lambda p: values[p]) for g in coupling.groups]
    best = np.inf
    for counts in itertools.product(*(range(len(o)) for o in orders)):
        removed = [p for order, count in zip(orders, counts, strict=True) for p in order[:count]]
        if coupling.total_macs(coupling.removed_mask(removed)) <= budget:
            best = min(best, values[removed].sum())
    lost = values[list(plan.removed)].sum()
    assert best - 1e-12 <= lost <= best + 0.5 * values.max()


def test_the_cheapest_channel_for_its_macs_goes_first():
    """Same value everywhere: the channel whose removal saves most goes."""
    coupling = chain_graph((8, 8), (100, 1, 1))
    plan = select(np.ones(16), coupling, ratio=0.05)
    assert [row.kept for row in plan.groups] == [7, 8]


def test_values_decide_between_equal_savings():
    values = np.ones(16)
    values[[11, 14]] = 0.1
    plan = select(
        values,
        chain_graph(
            (
                8,
                8,
            ),
            (1, 1, 1),
        ),
        ratio=0.2,
    )
    assert {11, 14} <= set(plan.removed)


def test_a_ratio_out_of_reach_says_how_far_it_goes():
    with pytest.raises(NothingToPruneError, match=r"a ratio of 0\.99 .* at most 0\.(\d+) can go") as caught:
        select(VALUES, GRAPH, ratio=0.99)
    reachable = float(str(caught.value).split("at most ")[1].split()[0])
    keep = [(0, 1), (16, 17), (40, 41)]
    removed = [p for p in range(48) if all(p not in pair for pair in keep)]
    expected = 1 - GRAPH.total_macs(GRAPH.removed_mask(removed)) / GRAPH.total_macs()
    assert reachable == pytest.approx(expected, abs=1e-3)
    check(select(VALUES, GRAPH, ratio=expected - 1e-9), GRAPH, VALUES)


def test_a_quantum_that_fits_no_group_is_out_of_reach_too():
    with pytest.raises(NothingToPruneError, match=r"at most 0\.000 can go .* steps of 32"):
        select(VALUES, GRAPH, ratio=0.1, width_quantum=32)


def test_a_network_without_players_is_one_sentence():
    with pytest.raises(NothingToPruneError, match="no channel of the model can be removed"):
        select(np.zeros(0), chain_graph(()), ratio=0.1)


def test_adapting_lowers_the_quantum_where_it_would_be_coarse_and_says_so():
    plan = select(VALUES, GRAPH, ratio=0.4, width_quantum=8, adapt_quantum=True)
    check(plan, GRAPH, VALUES)
    # 16 = 4 steps of 4, 24 = 6 steps of 4, 8 = 4 steps of 2.
    assert all(row.kept % q == 0 for row, q in zip(plan.groups, (4, 4, 2), strict=True))
    assert len(plan.notes) == 1
    assert "3 of 3 groups are too narrow for widths in steps of 8" in plan.notes[0]
    wide = chain_graph((64, 64))
    assert select(np.ones(128), wide, ratio=0.4, width_quantum=8, adapt_quantum=True).notes == ()


def test_same_input_same_plan_and_ties_are_broken_the_same_way():
    values = np.ones(48)
    first, again = select(values, GRAPH, ratio=0.37), select(values.copy(), GRAPH, ratio=0.37)
    assert first == again
    assert first.removed[0] == 0


def test_negative_values_go_first():
    values = VALUES.copy()
    values[[3, 20, 45]] = -1.0
    assert {3, 20, 45} <= set(select(values, GRAPH, ratio=0.3).removed)


@pytest.mark.parametrize("factory", nets.PLAYERS, ids=lambda f: f.__name__)
def test_costs_agree_with_the_coupling_of_real_graphs(factory):
    """Coupled, grouped, flattened and shared layers: the plan's own count is that of the graph."""
    coupling = nets.toy(factory).coupling
    values = np.random.default_rng(1).uniform(0.5, 1.0, coupling.num_players)
    check(select(values, coupling, ratio=0.2), coupling, values)


@given(
    st.lists(st.integers(2, 12), min_size=1, max_size=4).map(tuple),
    st.floats(0.05, 0.95),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_every_plan_keeps_its_promises_or_says_why_not(widths, ratio, quantum, adapt, seed):
    coupling = chain_graph(widths)
    values = np.random.default_rng(seed).uniform(0.0, 1.0, coupling.num_players)
    try:
        plan = select(values, coupling, ratio=ratio, width_quantum=quantum, adapt_quantum=adapt)
    except NothingToPruneError as error:
        reachable = float(str(error).split("at most ")[1].split()[0])
        assert reachable <= ratio + 1e-3
        return
    check(plan, coupling, values)
    for row in plan.groups:
        assert row.kept >= min(MIN_CHANNELS, row.players)
        if not adapt:
            assert row.kept == row.players or row.kept % quantum == 0


@pytest.mark.parametrize("seed", range(6))
def test_never_loses_more_than_taking_the_least_value_per_mac_step_by_step(seed):
    """Against that rule written out slowly, prices anew after every channel; exchanges only improve it."""
    coupling = chain_graph((7, 9, 6), (5, 1, 3, 8))
    values = np.random.default_rng(seed).uniform(0.1, 1.0, 22)
    orders = [sorted(g.players, key=lambda p: values[p]) for g in coupling.groups]
    removed: list[int] = []

    def macs(gone: list[int]) -> int:
        return coupling.total_macs(coupling.removed_mask(gone))

    while macs(removed) > 0.5 * macs([]):
        left = [[p for p in order if p not in removed] for order in orders]
        candidates = [players[0] for players in left if len(players) > MIN_CHANNELS]
        removed.append(min(candidates, key=lambda p: values[p] / (macs(removed) - macs([*removed, p]))))
    plan = select(values, coupling, ratio=0.5)
    assert values[list(plan.removed)].sum() <= values[removed].sum() + 1e-12


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("quantum", [1, 4])
def test_no_step_given_back_or_exchanged_would_be_better(quantum, seed):
    coupling = chain_graph((16, 24, 8), (9, 4, 4, 1))
    values = np.random.default_rng(seed).uniform(0.1, 1.0, 48)
    plan = select(values, coupling, ratio=0.3, width_quantum=quantum)
    budget = coupling.total_macs() * 0.7
    orders = [sorted(g.players, key=lambda p: values[p]) for g in coupling.groups]
    gone = [row.players - row.kept for row in plan.groups]

    def removed(counts: list[int]) -> list[int]:
        return [p for order, count in zip(orders, counts, strict=True) for p in order[:count]]

    lost = values[list(plan.removed)].sum()
    for back, ahead in itertools.product(range(3), range(3)):
        other = list(gone)
        other[back] -= quantum
        if ahead != back:
            other[ahead] += quantum
        kept = [len(order) - count for order, count in zip(orders, other, strict=True)]
        if other[back] < 0 or kept[ahead] < max(quantum, MIN_CHANNELS):
            continue
        fits = coupling.total_macs(coupling.removed_mask(removed(other))) <= budget
        assert not fits or values[removed(other)].sum() >= lost - 1e-9


def test_adapting_goes_down_to_single_channels():
    plan = select(np.ones(12), chain_graph((6, 6)), ratio=0.1, width_quantum=8, adapt_quantum=True)
    assert sorted(row.kept for row in plan.groups) == [5, 6]


def heads_graph(heads: int, width: int) -> CouplingGraph:
    """Attention heads as players: each takes ``width`` channels of a projection and of its consumer."""
    chain = chain_graph((heads,))
    players = np.repeat(np.arange(heads), width)
    first, second = chain.layers
    return dataclasses.replace(
        chain,
        layers=(
            dataclasses.replace(first, out_players=players),
            dataclasses.replace(second, in_players=players),
        ),
    )


@pytest.mark.parametrize(("width", "steps"), [(64, 1), (16, 1), (8, 2), (12, 4), (1, 16)])
def test_a_quantum_counts_the_channels_of_players_that_are_several_wide(width, steps):
    graph = heads_graph(48, width)
    plan = select(np.linspace(1, 2, 48), graph, ratio=0.3, width_quantum=16)
    (row,) = plan.groups
    assert row.kept * width % 16 == 0
    assert 0 <= 0.7 * 48 - row.kept < steps


def test_one_head_may_be_left_alone_as_it_is_wide_enough():
    plan = select(np.ones(4), heads_graph(4, 8), ratio=0.75)
    assert plan.groups[0].kept == 1
