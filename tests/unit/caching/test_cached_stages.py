"""Statistics, recovered networks and curves come from the cache as they were made, where they fit."""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgeprune.artifacts.choices import Effort, Finetune
from edgeprune.artifacts.quality import RankingCurves
from edgeprune.caching.keys import Stage
from edgeprune.caching.store import ENTRY_NAME, Origin, Store
from edgeprune.commands.report.ranking_curves import ranking_curves
from edgeprune.commands.run import iterative_pruning, stages
from edgeprune.commands.run.iterative_pruning import RoundsRanker
from edgeprune.commands.run.scoring import scoring_context
from edgeprune.commands.run.shared.keys import shared_store
from edgeprune.commands.run.state import Planned, Prepared, Pruned, Run
from edgeprune.executors.local import LocalExecutor
from edgeprune.options.runs import CompressOptions
from edgeprune.quantization.formats import integer_format
from edgeprune.storage.records import read_record, write_record
from edgeprune.targets import load_target

Base = tuple[CompressOptions, Prepared, Planned]


@pytest.fixture(scope="module")
def base() -> Base:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip
    images = TensorDataset(torch.rand(60, 1, 9, 9), torch.arange(60) % 3)
    options = CompressOptions(network.eval(), calibration=images, threads=1, ratio=0.3, target="rpi4")
    run = Run(options)
    prepared = stages.prepare(run)
    return options, prepared, stages.plan(run, prepared)


def recovered(options: CompressOptions, prepared: Prepared, planned: Planned, store: Store | None) -> Pruned:
    return stages.prune_and_recover(Run(options, cache=store), prepared, planned)


def origins(store: Store, stage: Stage) -> list[Origin]:
    return [use.origin for use in store.uses if use.stage is stage]


def state(pruned: Pruned) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in pruned.recovered.state_dict().items()}


def test_a_recovered_network_is_shared_by_targets_that_remove_the_same(base: Base, tmp_path: Path) -> None:
    options, prepared, planned = base
    store, without = Store(tmp_path), recovered(*base, None)
    found = [
        recovered(replace(options, target=target), prepared, planned, store) for target in ("rpi4", "rpi5")
    ]
    assert origins(store, Stage.RECOVERY) == [Origin.COMPUTED, Origin.TAKEN]
    for each in found:
        assert state(each) == state(without)
        assert replace(each.recovery, duration_s=0.0) == replace(without.recovery, duration_s=0.0)
        assert each.parity == without.parity


def other_plan(planned: Planned) -> Planned:
    return replace(planned, plan=replace(planned.plan, removed=planned.plan.removed[:-1]))


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"effort": Effort.QUICK}, {"threads": 2}, {"finetune": Finetune(steps=2)}],
    ids=str,
)
def test_recovery_is_made_anew_where_an_option_decides_it(
    changed: dict[str, Any], base: Base, tmp_path: Path
) -> None:
    options, prepared, planned = base
    store = Store(tmp_path)
    recovered(*base, store)
    recovered(replace(options, **changed), prepared, planned, store)
    assert origins(store, Stage.RECOVERY) == [Origin.COMPUTED] * 2


def test_recovery_is_made_anew_for_other_channels_and_another_form(base: Base, tmp_path: Path) -> None:
    options, prepared, planned = base
    store = Store(tmp_path)
    recovered(*base, store)
    recovered(options, prepared, other_plan(planned), store)
    recovered(options, replace(prepared, stored_as=integer_format(load_target("rpi4"))), planned, store)
    assert origins(store, Stage.RECOVERY) == [Origin.COMPUTED] * 3


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def of_another(path: Path) -> None:
    path.write_bytes(b"{}")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [cut_off, of_another, Path.unlink, pipe])
def test_every_damaged_file_of_every_stage_is_made_anew(
    harm: Callable[[Path], None], base: Base, tmp_path: Path
) -> None:
    """Of each stage, each file in turn; the result is the same."""
    whole = tmp_path / "whole"
    made = _all_stages(base, Store(whole))
    files = sorted(path.relative_to(whole) for path in whole.glob("*/*/*/*"))
    assert Counter(path.parts[0] for path in files) == {"statistics": 3, "recovery": 3, "curves": 2}
    for number, name in enumerate(files):
        folder = tmp_path / f"{number}"
        shutil.copytree(whole, folder)
        harm(folder / name)
        store = Store(folder)
        found = _all_stages(base, store)
        assert [use.stage.value for use in store.uses if use.damaged] == [name.parts[0]]
        assert found == made


def sealed(folder: Path, **changed: Any) -> None:
    """The record of an entry with the hashes of its files as they are now."""
    path = folder / ENTRY_NAME
    files = tuple(sorted(each for each in folder.iterdir() if each != path))
    write_record(path, {**read_record(path), **changed}, files=files)


def other_content(path: Path) -> Iterator[bytes]:
    """What a file might hold by the fault of a program, which hashes do not tell."""
    if path.suffix == ".json":
        whole = json.loads(path.read_text())
        yield from (b"null", b"[]", b"{}", b'"text"', b"[[1, 2]]", b"[[null, 1]]")
        for key, value in whole.items() if isinstance(whole, dict) else ():
            if value is not None:
                yield json.dumps({**whole, key: {"of": "another kind"}}).encode()
        return
    tensors = safetensors.torch.load_file(path)
    for name, tensor in tensors.items():
        if tensor.dim():
            yield safetensors.torch.save({**tensors, name: tensor[:1].clone()})
        yield safetensors.torch.save({k: v for k, v in tensors.items() if k != name})


@pytest.mark.parametrize("stage", [Stage.STATISTICS, Stage.RECOVERY, Stage.CURVES])
def test_content_that_does_not_fit_is_made_anew_though_its_hashes_are_right(
    stage: Stage, base: Base, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    made = _all_stages(base, Store(whole))
    (entry,) = (whole / stage.value).glob("*/*")
    for number, path in enumerate(sorted(set(entry.iterdir()) - {entry / ENTRY_NAME})):
        for count, content in enumerate(other_content(path)):
            folder = tmp_path / f"{number}-{count}"
            shutil.copytree(whole, folder)
            place = folder / path.relative_to(whole)
            place.write_bytes(content)
            sealed(place.parent)
            store = Store(folder)
            assert _all_stages(base, store) == made
            assert [use.stage for use in store.uses if use.damaged] == [stage], content[:200]


@pytest.mark.parametrize("took_s", ["abc", None, -1.0, True, "NaN", [], 10**400], ids=lambda v: str(v)[:9])
def test_a_record_that_says_no_time_is_damaged(took_s: Any, base: Base, tmp_path: Path) -> None:
    made = _all_stages(base, Store(tmp_path))
    (entry,) = (tmp_path / "curves").glob("*/*")
    sealed(entry, duration_s=took_s)
    store = Store(tmp_path)
    assert _all_stages(base, store) == made
    assert [use.stage for use in store.uses if use.damaged] == [Stage.CURVES]


def _all_stages(base: Base, store: Store) -> tuple[Any, ...]:
    options, prepared, planned = base
    run = Run(options, cache=store)
    context = scoring_context(run, prepared, ratio=0.3)
    coalitions = np.random.default_rng(0).random((3, prepared.coupling.num_players)) < 0.6
    curves = ranking_curves(run, prepared, planned)
    pruned = stages.prune_and_recover(run, prepared, planned)
    return context.recovery_game.values(coalitions).tobytes(), curves, state(pruned)


def test_statistics_from_the_cache_give_the_same_game(base: Base, tmp_path: Path) -> None:
    options, prepared, _ = base
    coalitions = np.random.default_rng(0).random((6, prepared.coupling.num_players)) < 0.6
    store, found = Store(tmp_path), []
    for cache in (None, store, store):
        game = scoring_context(Run(options, cache=cache), prepared, ratio=0.3).recovery_game
        found.append(game.values(coalitions).tobytes())
    assert found == [found[0]] * 3
    assert origins(store, Stage.STATISTICS) == [Origin.COMPUTED, Origin.TAKEN]
    in_8_bits = replace(prepared, stored_as=integer_format(load_target("rpi4")))
    scoring_context(Run(options, cache=store), in_8_bits, ratio=0.3)
    assert origins(store, Stage.STATISTICS)[-1] is Origin.COMPUTED


def test_curves_from_the_cache_are_the_same_and_only_of_the_same_ranking(base: Base, tmp_path: Path) -> None:
    options, prepared, planned = base
    store = Store(tmp_path)

    def curves(given: Planned, cache: Store | None) -> RankingCurves | None:
        return ranking_curves(Run(options, cache=cache), prepared, given)

    assert curves(planned, None) == curves(planned, store) == curves(planned, store)
    ranking = planned.ranking
    other = replace(planned, ranking=replace(ranking, removal_costs=ranking.removal_costs[::-1]))
    curves(other, store)
    assert origins(store, Stage.CURVES) == [Origin.COMPUTED, Origin.TAKEN, Origin.COMPUTED]


class Limited(nn.Module):
    """Has a constant that is not finite, as masks of attention have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3))
        return self.head(torch.where(seen > -1e5, seen, torch.tensor(float("-inf"))))


def test_a_constant_that_is_not_finite_is_no_damage(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = TensorDataset(torch.rand(40, 1, 9, 9), torch.arange(40) % 3)
    options = CompressOptions(Limited().eval(), calibration=images, threads=1, ratio=0.3)
    run = Run(options)
    prepared = stages.prepare(run)
    planned, store = stages.plan(run, prepared), Store(tmp_path)
    made, taken = (recovered(options, prepared, planned, store) for _ in range(2))
    assert origins(store, Stage.RECOVERY) == [Origin.COMPUTED, Origin.TAKEN]
    assert state(made) == state(taken)


@pytest.fixture
def own_operator() -> Iterator[Any]:
    library = torch.library.Library("edgeprune_of_a_user", "FRAGMENT")
    library.define("act(Tensor x) -> Tensor")
    library.impl("act", torch.relu, "CompositeExplicitAutograd")
    yield torch.ops.edgeprune_of_a_user.act
    library._destroy()


def test_nothing_is_shared_where_an_operator_is_of_the_user(
    own_operator: Any, base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody hashes its code."""
    options, prepared, _ = base
    whole = copy.deepcopy(prepared.captured.graph_module)
    relu = next(n for n in whole.graph.nodes if n.op == "call_function" and "relu" in str(n.target))
    relu.target = own_operator.default
    foreign = replace(prepared, captured=replace(prepared.captured, graph_module=whole))
    store = Store(tmp_path)
    with caplog.at_level(logging.INFO, logger="edgeprune.commands"):
        assert shared_store(Run(options, cache=store), foreign) is None
    assert shared_store(Run(options, cache=store), prepared) is store
    assert "operators of edgeprune_of_a_user" in caplog.text


@pytest.mark.parametrize(
    "asked",
    [
        (0.35,),
        *(
            pytest.param(each, marks=pytest.mark.wide)
            for each in ((0.2, 0.35), (0.35, 0.2), (0.2, 0.35, 0.5), (0.5,))
        ),
    ],
)
@pytest.mark.parametrize(
    "before",
    [(0.35, 0.2), *(pytest.param(each, marks=pytest.mark.wide) for each in ((), (0.2,), (0.5,)))],
)
def test_notes_of_rankings_in_rounds_are_the_same_from_the_cache(
    before: tuple[float, ...],
    asked: tuple[float, ...],
    base: Base,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each once, whichever level was made before, alone or for another."""
    real = iterative_pruning.ranked_by

    def noted(criterion: Any, context: Any, **settings: Any) -> Any:
        return replace(real(criterion, context, **settings), notes=(f"at {context.ratio:.3f}",))

    monkeypatch.setattr(iterative_pruning, "ranked_by", noted)
    options = replace(base[0], criterion="apoz", ratio=None)
    prepared, wanted = base[1], notes_at(options, base[1], asked, None)
    assert wanted
    assert len(set(wanted)) == len(wanted)
    store = Store(tmp_path)
    if before:
        notes_at(options, prepared, before, store)
    for _first_and_again in range(2):
        assert sorted(notes_at(options, prepared, asked, store)) == sorted(wanted)


def notes_at(
    options: CompressOptions, prepared: Prepared, asked: tuple[float, ...], store: Store | None
) -> list[str]:
    run = Run(options, cache=store)
    ranker = RoundsRanker(run, prepared)
    for ratio in asked:
        ranker.at(ratio)
    return run.notes


def test_the_note_on_workers_is_of_the_run_and_not_of_the_cache(base: Base, tmp_path: Path) -> None:
    options, prepared, _ = base
    options = replace(options, criterion="l1")
    with_workers = Run(options, cache=Store(tmp_path), executor=LocalExecutor(1))
    RoundsRanker(with_workers, prepared).at(0.25)
    assert any("was computed in one process" in note for note in with_workers.notes)
    assert not notes_at(options, prepared, (0.25,), Store(tmp_path))
