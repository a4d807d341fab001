"""Several limits at once, with costs that are no products of widths."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_selection import chain_graph

from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.pruning import PruningPlan
from edgeprune.errors import NothingToPruneError
from edgeprune.selection import (
    CostModel,
    Limit,
    Product,
    RooflineCost,
    TableCost,
    least_costs,
    macs_model,
    select,
    within_limits,
)
from edgeprune.selection import steps as selection_steps


def cost(model: CostModel, coupling: CouplingGraph, kept: tuple[int, ...]) -> float:
    """Of a chain with these hidden widths."""
    widths = (3, *kept, 4)
    pairs = itertools.pairwise(widths)
    return model.fixed + sum(
        layer.at(out, into) for layer, (into, out) in zip(model.layers, pairs, strict=True)
    )


def kept(plan: PruningPlan) -> tuple[int, ...]:
    return tuple(row.kept for row in plan.groups)


def best_by_trying(
    values: np.ndarray, coupling: CouplingGraph, limits: list[Limit], *, quantum: int
) -> float | None:
    """Least value lost over all plans whose widths are whole, or multiples of the quantum."""
    sizes = [len(g.players) for g in coupling.groups]
    losses = [np.concatenate([[0.0], np.cumsum(np.sort(values[list(g.players)]))]) for g in coupling.groups]
    choices = [
        [w for w in range(2, size + 1) if w == size or (w % quantum == 0 and w >= quantum)] for size in sizes
    ]
    found = [
        sum(loss[size - w] for loss, size, w in zip(losses, sizes, widths, strict=True))
        for widths in itertools.product(*choices)
        if all(cost(limit.model, coupling, widths) <= limit.most for limit in limits)
    ]
    return min(found, default=None)


def milliseconds(layers: int, step: int) -> CostModel:
    roofline = RooflineCost(
        macs_per_weight=50.0, weight_bytes=36.0, input_bytes=400.0, output_bytes=400.0,
        macs_per_ms=4000.0, bytes_per_ms=9000.0, step=step, overhead_ms=0.05,
    )  # fmt: skip
    return CostModel(name="latency", layers=(roofline,) * layers, fixed=0.3)


def size(layers: int) -> CostModel:
    return CostModel(name="size", layers=(Product(per_weight=4.0, per_output=4.0),) * layers, fixed=100.0)


@given(
    seed=st.integers(0, 10_000),
    shares=st.tuples(st.floats(0.4, 1.1), st.floats(0.4, 1.1), st.floats(0.4, 1.1)),
    quantum=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=40, deadline=None)
def test_small_instances_are_solved_exactly(seed, shares, quantum):
    coupling = chain_graph((7, 9, 6), (5, 1, 3, 8))
    values = np.random.default_rng(seed).uniform(0.1, 1.0, 22)
    models = [macs_model(coupling), milliseconds(4, 4), size(4)]
    whole = (7, 9, 6)
    limits = [
        Limit(model=m, most=share * cost(m, coupling, whole)) for m, share in zip(models, shares, strict=True)
    ]
    best = best_by_trying(values, coupling, limits, quantum=quantum)
    if best is None:
        with pytest.raises(NothingToPruneError):
            within_limits(values, coupling, limits=limits, width_quantum=quantum)
        return
    plan = within_limits(values, coupling, limits=limits, width_quantum=quantum)
    assert all(cost(limit.model, coupling, kept(plan)) <= limit.most for limit in limits)
    assert values[list(plan.removed)].sum() == pytest.approx(best, abs=1e-9)


def test_steps_and_exchanges_come_close_to_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty instances with two limits and a staircase: mean excess of the value lost below 2%."""
    monkeypatch.setattr(selection_steps, "MAX_PLANS", 0)
    excess = []
    for seed in range(40):
        coupling = chain_graph((12, 16, 8), (5, 1, 3, 8))
        values = np.random.default_rng(seed).uniform(0.1, 1.0, 36)
        limits = [
            Limit(model=m, most=0.6 * cost(m, coupling, (12, 16, 8))) for m in (milliseconds(4, 4), size(4))
        ]
        plan = within_limits(values, coupling, limits=limits)
        best = best_by_trying(values, coupling, limits, quantum=1)
        assert best is not None
        assert all(cost(limit.model, coupling, kept(plan)) <= limit.most for limit in limits)
        excess.append(values[list(plan.removed)].sum() / best - 1)
    assert min(excess) > -1e-9
    assert np.mean(excess) < 0.02


def test_nothing_goes_where_every_limit_holds_already():
    coupling = chain_graph((16, 24, 8))
    limits = [Limit(model=macs_model(coupling), most=coupling.total_macs())]
    plan = within_limits(np.ones(48), coupling, limits=limits)
    assert plan.removed == ()
    assert plan.macs_after == plan.macs_before


def test_a_staircase_pays_for_whole_steps_only():
    """A step of 8: widths of 16 and 24 cost the same as 9 to 16 and 17 to 24, so plans stop at multiples."""
    coupling = chain_graph((32, 32))
    model = CostModel(
        name="latency",
        layers=tuple(
            TableCost(out_widths=(8, 32), in_widths=(8, 32), costs=((1.0, 4.0), (4.0, 16.0)), step=8)
            for _ in range(3)
        ),
    )
    values = np.random.default_rng(2).uniform(0.1, 1.0, 64)
    plan = within_limits(
        values, coupling, limits=[Limit(model=model, most=0.6 * cost(model, coupling, (32, 32)))]
    )
    assert all(width % 8 == 0 for width in kept(plan))
    assert plan.removed


def test_a_limit_beyond_reach_says_how_far_it_goes():
    coupling = chain_graph((8, 8))
    limits = [
        Limit(model=macs_model(coupling), most=0.9 * coupling.total_macs()),
        Limit(model=size(3), most=101.0),
    ]
    with pytest.raises(NothingToPruneError, match=r"of the size was asked for, but at most 0\.\d+ can go"):
        within_limits(np.ones(16), coupling, limits=limits)


@given(
    out=st.integers(1, 80),
    into=st.integers(1, 80),
    step=st.sampled_from([1, 8, 16]),
)
def test_a_table_of_a_bilinear_cost_gives_that_cost_at_the_next_step(out, into, step):
    def true(o: float, i: float) -> float:
        return 3.0 + 2.0 * o + 0.5 * i + 0.25 * o * i

    widths = (8, 16, 64)
    table = TableCost(
        out_widths=widths,
        in_widths=(4, 64),
        costs=tuple(tuple(true(o, i) for i in (4, 64)) for o in widths),
        step=step,
    )
    rounded = [math.ceil(w / step) * step for w in (out, into)]
    assert table.at(out, into) == pytest.approx(true(*rounded))


def test_a_table_of_one_width_is_constant_along_it():
    table = TableCost(out_widths=(10,), in_widths=(4, 8), costs=((1.0, 2.0),))
    assert table.at(10, 6) == table.at(3, 6) == 1.5


def test_the_ratio_is_a_limit_on_macs():
    coupling = chain_graph((16, 24, 8), (9, 4, 4, 1))
    values = np.random.default_rng(0).uniform(0.1, 1.0, 48)
    limit = Limit(model=macs_model(coupling), most=0.6 * coupling.total_macs())
    assert (
        within_limits(values, coupling, limits=[limit]).removed == select(values, coupling, ratio=0.4).removed
    )


def test_the_narrowest_network_costs_what_no_limit_can_go_below():
    coupling = chain_graph((16, 24, 8), (9, 4, 4, 1))
    (least,) = least_costs(coupling, [macs_model(coupling)], width_quantum=4)
    limit = Limit(model=macs_model(coupling), most=least)
    plan = within_limits(np.ones(48), coupling, limits=[limit], width_quantum=4)
    assert plan.macs_after == least
    with pytest.raises(NothingToPruneError):
        within_limits(
            np.ones(48), coupling, limits=[Limit(model=limit.model, most=least - 1)], width_quantum=4
        )
