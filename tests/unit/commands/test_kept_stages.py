"""What finished stages gave comes back from its files just as it was, and only for the same question."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path

import networks as nets
import numpy as np
import pytest
import torch
from torch.fx import GraphModule

from edgeprune.artifacts.latency import StageTime
from edgeprune.artifacts.pruning import Aggregate, MultilinearEstimate, Ranking, RankingMethod, RecoveryReport
from edgeprune.commands.run.kept_stages import kept_network, kept_ranking
from edgeprune.commands.run.state import Run
from edgeprune.errors import UsageError
from edgeprune.importance.journals import Journals
from edgeprune.options.runs import CompressOptions
from edgeprune.storage.records import read_record, write_record
from edgeprune.storage.sessions import Sessions

PLAYERS = 4
RANKING = Ranking(
    criterion="hybrid",
    values=np.array([1 / 3, 2e-300, 0.0, -5.0]),
    standard_errors=np.array([0.1, float("nan"), float("inf"), 2.0]),
    evaluations=7,
    images=30,
    choice="made up",
    loss="cross-entropy",
    estimate=MultilinearEstimate(
        group_methods={"a": RankingMethod.EXACT, "b": RankingMethod.MULTILINEAR},
        aggregate=Aggregate.RMS,
        q_low=0.7,
        q_high=1.0,
    ),
    removal_costs=np.array([1e300, 0.1, 0.2, 0.3]),
    duration_s=1.5,
    rounds=(0.2, 0.35),
)
REPORT = RecoveryReport(steps=(), images=30, deciding_images=2, duration_s=2.0, notes=("few images",))


def run() -> Run:
    return Run(options=CompressOptions(model="x", calibration=None))


def never() -> Ranking:
    raise AssertionError("it is on file")


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    return Journals(tmp_path / "a" / "out.journal", {"model": "1"})


@pytest.fixture(scope="module")
def bare() -> GraphModule:
    return nets.make_case(nets.chain()).captured.graph_module


def shifted(bare: GraphModule, by: float) -> GraphModule:
    import copy

    found = copy.deepcopy(bare)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(by)
    return found


def test_a_ranking_comes_back_to_the_bit_with_the_notes_on_it(journals: Journals) -> None:
    first, later = run(), run()
    first.note("of another stage")

    def make() -> Ranking:
        first.note("one round fewer")
        return RANKING

    assert kept_ranking(first, journals, 0.5, PLAYERS, make) is RANKING
    found = kept_ranking(later, journals, 0.5, PLAYERS, never)
    for field in dataclasses.fields(Ranking):
        one, two = getattr(found, field.name), getattr(RANKING, field.name)
        if isinstance(two, np.ndarray):
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)
        else:
            assert one == two
    assert later.notes == ["one round fewer"]
    assert journals.kept == "the ranking"
    with pytest.raises(AssertionError, match="on file"):
        kept_ranking(later, journals, 0.35, PLAYERS, never)


def test_a_network_comes_back_for_the_same_channels_only(journals: Journals, bare: GraphModule) -> None:
    made = []

    def kept(by: float, removed: tuple[int, ...]) -> GraphModule:
        def make() -> tuple[GraphModule, RecoveryReport]:
            made.append(by)
            return shifted(bare, by), REPORT

        module, report = kept_network(run(), journals, "recovered", bare, removed, RecoveryReport, make)
        assert report == REPORT
        return module

    kept(1.0, (1, 2))
    found = kept(2.0, (1, 2))
    assert made == [1.0]
    expected = shifted(bare, 1.0).state_dict()
    assert {k: v.tolist() for k, v in found.state_dict().items()} == {
        k: v.tolist() for k, v in expected.items()
    }
    assert found is not bare
    kept(3.0, (1, 3))
    kept(4.0, (1, 3))
    assert made == [1.0, 3.0]
    assert journals.kept == "the recovered network"


def test_damaged_files_are_told(journals: Journals, bare: GraphModule) -> None:
    def ask() -> None:
        kept_network(run(), journals, "recovered", bare, (1,), RecoveryReport, lambda: (bare, REPORT))

    ask()
    weights, record = (journals.folder / f"recovered.{kind}" for kind in ("safetensors", "json"))
    good = weights.read_bytes()
    for part in (b"", good[:40], good[:-8]):
        weights.write_bytes(part)
        with pytest.raises(UsageError, match=r"recovered\.safetensors' is damaged"):
            ask()
    weights.write_bytes(good)
    for text in ("", "[]", "{}", '{"removed": [1], "notes": [], "report": {"steps": 1}}'):
        record.write_text(text)
        with pytest.raises(UsageError, match=r"recovered\.json' is damaged"):
            ask()
    write_record(record, {"removed": [1], "notes": [], "report": {"steps": 1}}, files=(weights,))
    with pytest.raises(UsageError, match=r"recovered\.json' is damaged"):
        ask()
    write_record(journals.folder / "ranking-0.25.json", {"notes": [], "ranking": {"values": [1]}})
    with pytest.raises(UsageError, match=r"ranking-0\.25\.json' is damaged"):
        kept_ranking(run(), journals, 0.25, PLAYERS, never)


@pytest.mark.parametrize("name", ["values", "standard_errors", "removal_costs"])
@pytest.mark.parametrize("change", ["fewer", "more", "none"])
def test_a_ranking_of_another_number_of_channels_is_damaged(
    journals: Journals, name: str, change: str
) -> None:
    kept_ranking(run(), journals, 0.5, PLAYERS, lambda: RANKING)
    path = journals.folder / "ranking-0.5.json"
    record = read_record(path)
    figures = record["ranking"][name]
    record["ranking"][name] = {"fewer": figures[:-1], "more": [*figures, 1.0], "none": []}[change]
    write_record(path, record)
    with pytest.raises(UsageError, match=r"ranking-0\.5\.json' is damaged"):
        kept_ranking(run(), journals, 0.5, PLAYERS, never)


def test_every_byte_that_is_changed_in_a_record_or_its_weights_is_noticed(
    journals: Journals, bare: GraphModule
) -> None:
    def ask() -> None:
        kept_network(run(), journals, "recovered", bare, (1,), RecoveryReport, lambda: (bare, REPORT))

    def rank() -> None:
        kept_ranking(run(), journals, 0.5, PLAYERS, lambda: RANKING)

    ask()
    rank()
    rng = random.Random(0)
    for name, read in (("recovered.safetensors", ask), ("recovered.json", ask), ("ranking-0.5.json", rank)):
        path = journals.folder / name
        good = path.read_bytes()
        numbers = [place for place, byte in enumerate(good) if chr(byte) in "0123456789"]
        for place in rng.sample(numbers if path.suffix == ".json" else range(len(good)), 80):
            other = rng.choice([byte for byte in b"0123456789" if byte != good[place]])
            path.write_bytes(good[:place] + bytes([other]) + good[place + 1 :])
            with pytest.raises(UsageError, match=rf"{re.escape(name)}' is damaged"):
                read()
        path.write_bytes(good)
        read()


def test_without_a_journal_nothing_is_kept(bare: GraphModule, tmp_path: Path) -> None:
    assert kept_ranking(run(), None, 0.5, PLAYERS, lambda: RANKING) is RANKING
    assert kept_network(run(), None, "x", bare, (), RecoveryReport, lambda: (bare, REPORT)) == (bare, REPORT)


def test_a_journal_that_nothing_came_into_goes_with_the_folders_made_for_it(
    journals: Journals, tmp_path: Path
) -> None:
    journals.place("ranking-0.5.json", "the ranking")
    assert journals.folder.is_dir()
    journals.remove_if_empty()
    assert list(tmp_path.iterdir()) == []
    kept_ranking(run(), journals, 0.5, PLAYERS, lambda: RANKING)
    journals.remove_if_empty()
    assert (journals.folder / "ranking-0.5.json").exists()


def test_sessions_add_up_and_alone_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    folder = tmp_path / "out.journal"
    first = Sessions(folder)
    first.keep((StageTime(stage="load", duration_s=1.0),))
    assert not folder.exists(), "before there is a journal nothing is written"
    journals = Journals(folder, {"model": "1"})
    journals.place("ranking.json", "the ranking")
    first.keep((StageTime(stage="load", duration_s=1.0), StageTime(stage="rank", duration_s=5.0)))
    second = Sessions(folder)
    assert (first.number, second.number) == (1, 2)
    times = (StageTime(stage="load", duration_s=2.0),)
    expected = (StageTime(stage="load", duration_s=3.0), StageTime(stage="rank", duration_s=5.0))
    assert second.with_earlier(times) == expected
    second.keep(times)
    assert Sessions(folder).with_earlier(()) == expected
    third = Sessions(folder)
    third.keep(times)
    third.forget()
    assert (Sessions(folder).number, Sessions(folder).with_earlier(())) == (3, expected)
    journals.remove_if_empty()
    assert not folder.exists()


def test_changed_times_of_sessions_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "out.journal"
    folder.mkdir()
    Sessions(folder).keep((StageTime(stage="load", duration_s=1.0),))
    path = folder / "sessions.json"
    path.write_text(path.read_text().replace("1.0", "9.0"))
    with pytest.raises(UsageError, match=r"sessions\.json' is damaged"):
        Sessions(folder)


def test_a_stage_that_is_interrupted_counts(tmp_path: Path) -> None:
    run = Run(options=CompressOptions(model="x", calibration=None))
    folder = tmp_path / "out.journal"
    folder.mkdir()
    run.sessions = Sessions(folder)
    with pytest.raises(KeyboardInterrupt), run.stage("rank"):
        raise KeyboardInterrupt
    assert [t.stage for t in run.times_of_all_sessions] == ["rank"]
    assert [t.stage for t in Sessions(folder).earlier] == ["rank"]
