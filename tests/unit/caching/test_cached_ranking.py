"""A ranking is another entry of the cache where anything that decides it is another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgeprune.artifacts.choices import AttentionUnit, Effort
from edgeprune.artifacts.pruning import Ranking
from edgeprune.caching.store import ENTRY_NAME, Origin, Store
from edgeprune.commands.run import stages
from edgeprune.commands.run.shared.cached_ranking import cached_ranking
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.options.runs import CompressOptions
from edgeprune.quantization.formats import integer_format
from edgeprune.storage.records import read_record, write_record
from edgeprune.targets import load_target


@pytest.fixture(scope="module")
def base() -> tuple[CompressOptions, Prepared]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    images = TensorDataset(torch.rand(16, 1, 8, 8), torch.arange(16) % 3)
    options = CompressOptions(network.eval(), calibration=images, threads=1)
    return options, stages.prepare(Run(options))


def ranking_of(players: int, seed: int) -> Ranking:
    drawn = np.random.default_rng(seed).normal(size=(3, players))
    drawn[2, 0] = np.nan
    return Ranking(
        criterion="hybrid", values=drawn[0], removal_costs=drawn[1], standard_errors=drawn[2], evaluations=3,
        images=12, duration_s=0.5, choice="as drawn",
    )  # fmt: skip


class Asked:
    def __init__(self, folder: Path) -> None:
        self.store, self.made = Store(folder), 0

    def __call__(
        self, options: CompressOptions, prepared: Prepared, ratio: float = 0.25
    ) -> tuple[Ranking, Run]:
        run = Run(options, cache=self.store)

        def make() -> Ranking:
            self.made += 1
            run.note("something was not as asked")
            return ranking_of(prepared.coupling.num_players, self.made)

        return cached_ranking(run, prepared, ratio, make), run


def test_a_ranking_from_the_cache_is_the_same_in_every_bit_and_says_the_same(
    base: tuple[CompressOptions, Prepared], tmp_path: Path
) -> None:
    first, second = Asked(tmp_path), Asked(tmp_path)
    (made, run), (taken, later) = first(*base), second(*base)
    assert second.made == 0
    for name in ("values", "removal_costs", "standard_errors"):
        assert getattr(made, name).tobytes() == getattr(taken, name).tobytes()
    assert replace(made, values=taken.values, removal_costs=taken.removal_costs,
                   standard_errors=taken.standard_errors) == taken  # fmt: skip
    assert run.notes == later.notes == ["something was not as asked"]


@pytest.mark.parametrize("notes", ["abc", [1, None], None, {"a": "b"}], ids=str)
def test_notes_that_are_no_texts_are_not_taken(
    notes: Any, base: tuple[CompressOptions, Prepared], tmp_path: Path
) -> None:
    Asked(tmp_path)(*base)
    (path,) = tmp_path.glob("ranking/*/*/ranking.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "notes": notes}))
    entry = path.with_name(ENTRY_NAME)
    write_record(entry, read_record(entry), files=(path,))
    again = Asked(tmp_path)
    _, run = again(*base)
    assert again.made == 1
    assert run.notes == ["something was not as asked"]


def other_images(prepared: Prepared) -> Prepared:
    fitting = prepared.calibration.fitting
    pixels = fitting.images.clone()
    pixels[0, 0, 0, 0] += 1e-6
    return replace(
        prepared, calibration=replace(prepared.calibration, fitting=replace(fitting, images=pixels))
    )


def other_labels(prepared: Prepared) -> Prepared:
    fitting = prepared.calibration.fitting
    assert fitting.labels is not None
    changed = replace(fitting, labels=fitting.labels.flip(0))
    return replace(prepared, calibration=replace(prepared.calibration, fitting=changed))


def other_task(prepared: Prepared) -> Prepared:
    changed = replace(prepared.calibration.fitting, class_scores=False)
    return replace(prepared, calibration=replace(prepared.calibration, fitting=changed))


def other_groups(prepared: Prepared) -> Prepared:
    groups = prepared.coupling.groups
    return replace(prepared, coupling=replace(prepared.coupling, groups=groups[::-1]))


def in_8_bits(prepared: Prepared) -> Prepared:
    return replace(prepared, stored_as=integer_format(load_target("rpi4")))


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1}, {"effort": Effort.QUICK}, {"rounds": False}, {"criterion": "l1"}, {"threads": 2},
        {"attention_unit": AttentionUnit.HEADS}, {"prune_normalized": True},
    ],
    ids=str,
)  # fmt: skip
def test_any_option_that_decides_it_is_another_key(
    changed: dict[str, Any], base: tuple[CompressOptions, Prepared], tmp_path: Path
) -> None:
    asked = Asked(tmp_path)
    asked(*base)
    asked(replace(base[0], **changed), base[1])
    assert asked.made == 2


@pytest.mark.parametrize("change", [other_images, other_labels, other_task, other_groups, in_8_bits])
def test_any_other_input_is_another_key(
    change: Callable[[Prepared], Prepared], base: tuple[CompressOptions, Prepared], tmp_path: Path
) -> None:
    asked = Asked(tmp_path)
    asked(*base)
    asked(base[0], change(base[1]))
    asked(*base, ratio=0.3)
    assert asked.made == 3


def test_other_weights_are_another_key(base: tuple[CompressOptions, Prepared], tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked(*base)
    weight = next(t for t in base[1].captured.graph_module.state_dict().values() if t.ndim == 4)
    before = weight.clone()
    weight.view(-1)[0] += 1e-6
    asked(base[0], replace(base[1]))
    weight.copy_(before)
    asked(*base)
    assert asked.made == 2


@pytest.mark.parametrize(
    "changed", [{"target": "rpi4"}, {"ratio": 0.4}, {"batch_size": 2}, {"width_quantum": 8}], ids=str
)
def test_what_does_not_decide_it_is_the_same_key(
    changed: dict[str, Any], base: tuple[CompressOptions, Prepared], tmp_path: Path
) -> None:
    asked = Asked(tmp_path)
    asked(*base)
    asked(replace(base[0], **changed), base[1])
    assert asked.made == 1
    assert asked.store.uses[1].origin is Origin.TAKEN


def test_what_the_clock_decides_is_not_shared(base: tuple[CompressOptions, Prepared], tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    for _ in range(2):
        asked(replace(base[0], max_time_s=60.0), base[1])
    assert (asked.made, asked.store.uses) == (2, [])
