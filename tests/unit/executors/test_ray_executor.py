"""Units on a cluster of Ray of two nodes on this machine; skipped where Ray is not installed."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import executor_units as work
import networks
import pytest
import torch
from executor_units import unit
from small_rankings import SlowGame, ranked, same_ranking, small_context

from edgeprune.errors import UsageError
from edgeprune.executors.local import LocalExecutor
from edgeprune.executors.ray_cluster import RayExecutor
from edgeprune.executors.resources import Room
from edgeprune.executors.units import FailureKind
from edgeprune.games.spread_game import SpreadGame, spread


def test_without_ray_a_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"install it with pip install 'edgeprune\[ray\]', or take"):
        RayExecutor().run([unit(work.drawn, payload={})])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each; the driver is connected to the first."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'edgeprune[ray]'")
    from ray.cluster_utils import Cluster

    paths = os.pathsep.join([str(Path(work.__file__).parent), *sys.path])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = paths  # nodes on this machine find what the tests do
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.second = made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def test_results_are_those_of_this_machine(cluster: Any, tmp_path: Path) -> None:
    draws = [unit(work.drawn, f"{n}", seed=n, payload={}) for n in range(4)]
    others = [
        unit(work.shared_sum, "sum", payload=1),
        unit(work.refused, "refused"),
        unit(work.faulty, "faulty"),
        unit(work.killed, "once", payload={"file": str(tmp_path / "once"), "times": 1}),
        unit(work.killed, "always", payload={"file": str(tmp_path / "always"), "times": 9}),
    ]
    here = LocalExecutor(Room(most_units=1, cores=1, memory_bytes=None)).run(draws)
    found = RayExecutor().run([*draws, *others], shared=(10, 20))
    assert [o.result for o in found[:4]] == [o.result for o in here]
    by_name = {o.unit.name: o for o in found}
    assert by_name["sum"].result == 31
    assert [by_name[n].failure.exit_status for n in ("refused", "faulty")] == [12, 70]  # type: ignore[union-attr]
    assert (by_name["once"].result, by_name["once"].attempts) == ("done", 2)
    failure = by_name["always"].failure
    assert failure is not None
    assert (failure.kind, by_name["always"].attempts) == (FailureKind.KILLED, 2)
    assert failure.sentence.startswith("its process or its node is gone")


def test_a_session_is_for_many_calls(cluster: Any) -> None:
    with RayExecutor(max_parallel=2).session((1, 2)) as session:
        assert session.most_units == 2
        for number in range(3):
            found = session.run([unit(work.shared_sum, f"{number}-{n}", payload=n) for n in range(3)])
            assert [outcome.result for outcome in found] == [3, 4, 5]


def test_a_ranking_on_a_cluster_is_that_of_one_process(cluster: Any) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        context = small_context(networks.residual_add)
        with spread(context.recovery_game, RayExecutor()) as game:
            assert same_ranking(ranked(context, game), ranked(context, context.recovery_game))
    finally:
        torch.set_num_threads(before)


@pytest.mark.wide
def test_a_ranking_of_which_a_node_is_lost_half_way_is_the_same(cluster: Any, tmp_path: Path) -> None:
    third = cluster.add_node(num_cpus=1)
    context = small_context(networks.residual_add)
    batches: list[int] = []

    def lose() -> None:
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 8 and time.monotonic() < until:
            time.sleep(0.02)
        batches.append(len(list(tmp_path.iterdir())))
        cluster.remove_node(third, allow_graceful=False)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    thread = threading.Thread(target=lose)
    try:
        with RayExecutor().session(SlowGame(context.recovery_game, tmp_path)) as session:
            thread.start()
            found = ranked(context, SpreadGame(context.recovery_game, session, 1))
        thread.join()
        assert same_ranking(found, ranked(context, context.recovery_game))
    finally:
        torch.set_num_threads(before)
    assert batches[0] < len(list(tmp_path.iterdir()))


@pytest.mark.wide
def test_a_node_that_is_lost_half_way_costs_an_attempt(cluster: Any) -> None:
    """Behind the other test: the node does not come back."""
    draws = [unit(work.drawn, f"{n}", seed=n, payload={"pause_s": 3.0}) for n in range(3)]

    def lose() -> None:
        time.sleep(1.5)
        cluster.remove_node(cluster.second, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    found = RayExecutor().run(draws)
    thread.join()
    quick = [unit(work.drawn, f"{n}", seed=n, payload={}) for n in range(3)]
    here = LocalExecutor(Room(most_units=1, cores=1, memory_bytes=None)).run(quick)
    assert [o.result for o in found] == [o.result for o in here]
    assert sorted(o.attempts for o in found) == [1, 1, 2]
