"""Mixed precision: the chain's model and its exact optimum, what puts pieces back, and the pieces."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx_models import IMAGE, written
from torch import nn

from edgeprune import parity
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.quantization import IntegerReport, Precision
from edgeprune.commands.compress.quantization_stage import notes_of, write_quantized
from edgeprune.commands.quantize import mixed_precision
from edgeprune.commands.quantize.mixed_precision import write_mixed
from edgeprune.evaluation.by_outputs import OutputMeasure
from edgeprune.profiling.measurer import HostMeasurer, RunSettings
from edgeprune.profiling.runner import MeasuringRunner, runner_for
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.mixed_precision import (
    ChainCosts,
    FidelityGame,
    chain_costs,
    fastest,
    hold,
    improve,
    sensitivities,
)
from edgeprune.quantization.preparation import load_float
from edgeprune.quantization.segments import segments
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.targets import TargetProfile, load_target

SHARES = st.floats(-0.3, 0.3)


def board_of_unknown_8_bits() -> TargetProfile:
    board = load_target("rpi4")
    assert board.roofline is not None
    return replace(board, roofline=replace(board.roofline, int8=None))


def settings_for(target: str) -> IntegerSettings:
    return IntegerSettings(form=integer_format(load_target(target)))


@dataclass(frozen=True, kw_only=True)
class Timed(HostMeasurer):
    """Ratios that a test makes up."""

    ratio_of: Callable[[Path, Path], float]

    def quick_ratio(self, onnx_a: Path, onnx_b: Path) -> float:
        return self.ratio_of(onnx_a, onnx_b)


def timed(ratio_of: Callable[[Path, Path], float]) -> MeasuringRunner:
    measurer = Timed(settings=RunSettings(threads=1), ratio_of=ratio_of)
    return MeasuringRunner(target=load_target("host"), measurer=measurer)


@st.composite
def chains(draw: st.DrawFn) -> ChainCosts:
    count = draw(st.integers(1, 7))
    own = draw(st.lists(SHARES, min_size=count, max_size=count))
    borders = draw(st.lists(st.floats(0, 0.2), min_size=count + 1, max_size=count + 1))
    return ChainCosts(own=np.array(own), borders=np.array(borders))


@given(chains())
def test_the_fastest_mixture_is_that_of_brute_force(costs: ChainCosts) -> None:
    found = fastest(costs)
    every = itertools.product((False, True), repeat=len(costs.own))
    assert costs.time(found) == pytest.approx(min(map(costs.time, every)))


@given(chains(), st.data())
def test_the_fastest_mixture_within_another_is_that_of_brute_force(
    costs: ChainCosts, data: st.DataObject
) -> None:
    count = len(costs.own)
    within = tuple(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    found = fastest(costs, within)
    allowed = [m for m in itertools.product((False, True), repeat=count) if np.all(np.array(m) <= within)]
    assert found in allowed
    assert costs.time(found) == pytest.approx(min(map(costs.time, allowed)))


@given(chains(), st.floats(0.001, 0.01))
def test_a_chain_is_known_again_from_its_pieces_alone_and_together(costs: ChainCosts, each: float) -> None:
    count = len(costs.own)
    values = np.arange(1, count + 2) * 100
    truth = ChainCosts(own=costs.own, borders=each * values / 100)
    alone = [truth.time(tuple(i == p for i in range(count))) for p in range(count)]
    found = chain_costs(alone, truth.time((True,) * count), values.tolist())
    if count > 1:
        np.testing.assert_allclose(found.borders, truth.borders, atol=1e-9)
        np.testing.assert_allclose(found.own, truth.own, atol=1e-9)


@given(chains())
def test_nothing_slower_than_32_bits_is_chosen(costs: ChainCosts) -> None:
    chosen = improve(costs, {}, costs.time)
    assert costs.time(chosen) <= 1.0
    if any(chosen):
        assert costs.time(chosen) <= 0.99


def test_a_mixture_that_is_slower_than_its_model_said_gives_way_to_a_measured_one() -> None:
    costs = ChainCosts(own=np.array([-0.2, -0.1]), borders=np.zeros(3))
    truth = {(True, True): 1.2, (True, False): 0.9, (False, True): 1.1, (False, False): 1.0}
    assert improve(costs, {}, truth.__getitem__) == (True, False)


@pytest.mark.parametrize("count", [4, 9])
def test_the_most_harmful_pieces_go_back_first(count: int) -> None:
    harm = np.linspace(0.1, 1.0, count)
    game = FidelityGame(count, lambda m: -float(harm[list(m)].sum()))
    found = sensitivities(game)
    np.testing.assert_allclose(found, harm, atol=1e-9)
    whole, alike, limit = (True,) * count, np.full(count, 0.1), float(harm[:2].sum())

    def lost(mixture: tuple[bool, ...]) -> float:
        return float(harm[list(mixture)].sum())

    assert hold(whole, lost, limit, found, alike) == (True, True) + (False,) * (count - 2)
    assert hold(whole, lambda _: 1.0, 2.0, found, alike) == whole


def test_a_piece_that_gains_much_for_its_harm_stays() -> None:
    """The last piece harms most and is nearly all that 8 bits gain; those before gain little or lose."""
    harm, gain = np.array([1.0, 2.0, 1.5, 4.0]), np.array([0.05, -0.02, 0.02, 0.3])

    def lost(mixture: tuple[bool, ...]) -> float:
        return float(harm[list(mixture)].sum())

    assert hold((True,) * 4, lost, 5.0, harm, gain) == (True, False, False, True)
    assert hold((True,) * 4, lost, 0.0, harm, gain) == (False,) * 4


def test_pieces_cover_the_network_once_and_end_where_one_tensor_passes(tmp_path: Path) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(6))
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x))
            for one, two in zip(self.blocks[::2], self.blocks[1::2], strict=True):
                x = torch.relu(x + two(torch.relu(one(x))))
            return self.head(x.mean((2, 3)))

    model = load_float(written(Residual(), tmp_path / "residual.onnx"))
    found = segments(model)
    assert [len(piece.weighted) for piece in found] == [1, 2, 2, 2, 1]
    names = [node.name for node in model.proto.graph.node]
    assert [name for piece in found for name in piece.nodes] == names
    assert found[1].end_values == 8 * 8 * 8
    joined = segments(model, most=3)
    assert len(joined) == 3
    assert [name for piece in joined for name in piece.nodes] == names


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageBatch]:
    torch.manual_seed(0)
    images = torch.randn(32, *IMAGE, generator=torch.Generator().manual_seed(0))
    # Wide enough for 8 bits to make the file smaller.
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)]
    path = written(nn.Sequential(*layers), tmp_path_factory.mktemp("chain") / "chain.onnx")
    return path, ImageBatch(images=images, labels=None)


@pytest.mark.parametrize("faster", [True, False])
def test_what_is_measured_decides(chain: tuple[Path, ImageBatch], tmp_path: Path, faster: bool) -> None:
    def ratio(_source: Path, path: Path) -> float:
        return 1.0 + (-0.1 if faster else 0.1) * path.stem.count("8")

    path, images = chain
    report = write_mixed(path, tmp_path / "q.onnx", images, settings_for("host"), runner=timed(ratio))
    assert {piece.integer for piece in report.pieces} == {faster}
    assert all(piece.alone == pytest.approx(0.9 if faster else 1.1) for piece in report.pieces)
    assert report.integer is not None
    assert (report.integer.nodes == {}) is not faster
    assert len(report.integer.stored) == (0 if faster else 3)
    assert (tmp_path / "q.onnx").stat().st_size < 0.5 * path.stat().st_size
    before, after = (parity.run_onnx(p, images.images, threads=1)[0] for p in (path, tmp_path / "q.onnx"))
    error = np.square(before - after).sum() / np.square(before).sum()
    assert 0 < error < (1e-3 if faster else 1e-4)


@pytest.mark.parametrize(("side_by_side", "pieces"), [(0.98, 1), (1.02, None)])
def test_a_mixture_that_is_not_faster_than_all_in_8_bits_side_by_side_is_not_taken(
    chain: tuple[Path, ImageBatch],
    tmp_path: Path,
    side_by_side: float,
    pieces: int | None,
) -> None:
    """Figures of short measurements may favour a mixture; all in 8 bits is smaller."""
    path, images = chain

    def ratio(first: Path, second: Path) -> float:
        if first != path:
            assert "-" not in first.stem
            return side_by_side
        return 0.7 if second.stem.count("8") == 1 else 0.8

    report = write_mixed(path, tmp_path / "q.onnx", images, settings_for("host"), runner=timed(ratio))
    expected = len(report.pieces) if pieces is None else pieces
    assert sum(piece.integer for piece in report.pieces) == expected


def test_a_target_elsewhere_is_all_in_8_bits_but_what_the_drop_forbids(
    chain: tuple[Path, ImageBatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images = chain
    done = tmp_path / "q.onnx"
    runner = runner_for(board_of_unknown_8_bits(), threads=1)
    free = write_mixed(path, done, images, settings_for("rpi4"), runner=runner)
    assert all(piece.integer and piece.alone is None for piece in free.pieces)
    before, after = (parity.run_onnx(p, images.images, threads=1)[0] for p in (path, done))
    assert np.square(before - after).sum() < 0.01 * np.square(before).sum()
    monkeypatch.setattr(mixed_precision.Mixing, "lost", lambda _self, mixture: 5.0 * sum(mixture))
    held = write_mixed(path, done, images, settings_for("rpi4"), runner=runner, max_drop_points=6.0)
    assert sum(piece.integer for piece in held.pieces) == 1
    assert held.harm is not None
    assert any("harms most for what it gains" in piece.why for piece in held.pieces)


def test_what_the_drop_leaves_is_measured_and_not_taken_where_it_is_slower_than_32_bits(
    chain: tuple[Path, ImageBatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in 8 bits is fast; with pieces back in 32 the changes of precision cost more than is gained."""
    path, images = chain

    def ratio(_first: Path, second: Path) -> float:
        return 0.7 if "-" not in second.stem else 1.1

    monkeypatch.setattr(mixed_precision.Mixing, "lost", lambda _self, mixture: 5.0 * sum(mixture))
    done = tmp_path / "q.onnx"
    report = write_mixed(path, done, images, settings_for("host"), runner=timed(ratio), max_drop_points=6.0)
    assert not any(piece.integer for piece in report.pieces)
    assert report.integer is not None
    assert len(report.integer.stored) == 3
    assert report.harm is not None
    assert report.harm.startswith("at most 6 points lost of ")
    assert done.stat().st_size < 0.5 * path.stat().st_size
    assert notes_of(report, timed(ratio))[0] == (
        "no piece in 8 bits was faster and held the drop, so all of it calculates in 32; weights are stored "
        "in 8"
    )


def test_weights_stay_where_they_alone_lose_too_much(
    chain: tuple[Path, ImageBatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images = chain
    monkeypatch.setattr(mixed_precision.Mixing, "lost", lambda _self, mixture: 7.0 + sum(mixture))
    done, runner = tmp_path / "q.onnx", timed(lambda _first, _second: 0.7)
    report = write_mixed(path, done, images, settings_for("host"), runner=runner, max_drop_points=6.0)
    assert report.integer is None
    assert done.read_bytes() == path.read_bytes()
    assert notes_of(report, runner) == (
        "nothing in 8 bits was smaller and held the drop, so the file stays as it is",
    )


@pytest.mark.parametrize(
    ("points", "asked", "pieces"),
    [(True, None, 0), (True, 9.0, 1), (True, 100.0, 3), (False, None, 3), (False, 9.0, 1)],
)
def test_without_a_limit_one_point_may_be_lost_where_there_are_points(
    chain: tuple[Path, ImageBatch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    points: bool,
    asked: float | None,
    pieces: int,
) -> None:
    """Maps without a task are held against the original by a relative error, which has no usual limit.

    Here stored weights alone lose 3 points, and each piece in 8 bits 5 more.
    """
    path, images = chain
    monkeypatch.setattr(OutputMeasure, "counts_points", property(lambda _self: points, lambda *_: None))
    monkeypatch.setattr(mixed_precision.Mixing, "lost", lambda _self, mixture: 3.0 + 5.0 * sum(mixture))
    runner = timed(lambda _first, second: 1.0 - 0.1 * second.stem.count("8"))
    done = tmp_path / "q.onnx"
    report = write_mixed(path, done, images, settings_for("host"), runner=runner, max_drop_points=asked)
    assert sum(piece.integer for piece in report.pieces) == pieces


def test_what_the_drop_leaves_is_taken_where_it_is_faster(
    chain: tuple[Path, ImageBatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images = chain

    def ratio(_first: Path, second: Path) -> float:
        return 1.0 - 0.1 * second.stem.count("8")

    monkeypatch.setattr(mixed_precision.Mixing, "lost", lambda _self, mixture: 5.0 * sum(mixture))
    done = tmp_path / "q.onnx"
    report = write_mixed(path, done, images, settings_for("host"), runner=timed(ratio), max_drop_points=6.0)
    assert sum(piece.integer for piece in report.pieces) == 1


def test_the_best_of_many_short_measurements_is_measured_again(
    chain: tuple[Path, ImageBatch], tmp_path: Path
) -> None:
    path, images = chain
    seen: list[str] = []

    def ratio(_first: Path, second: Path) -> float:
        seen.append(second.stem)
        return 0.97 if seen.count(second.stem) == 1 else 1.01

    report = write_mixed(path, tmp_path / "q.onnx", images, settings_for("host"), runner=timed(ratio))
    assert not any(piece.integer for piece in report.pieces)


def test_a_network_that_8_bits_make_larger_stays_as_it_is(tmp_path: Path) -> None:
    """What 8 bits save on 20 weights is less than what the scales and the changes of precision take."""
    torch.manual_seed(0)
    path = written(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)), tmp_path / "tiny.onnx")
    images = ImageBatch(images=torch.randn(8, *IMAGE), labels=None)
    done, runner = tmp_path / "q.onnx", runner_for(board_of_unknown_8_bits(), threads=1)
    settings = settings_for("rpi4")
    larger = write_quantized(path, done, images, settings, precision=Precision.INT8, runner=runner)
    assert isinstance(larger, IntegerReport)
    assert done.stat().st_size > path.stat().st_size
    report = write_mixed(path, done, images, settings, runner=runner)
    assert report.integer is None
    assert done.read_bytes() == path.read_bytes()
    assert notes_of(report, runner)[-1] == (
        "nothing in 8 bits was smaller and held the drop, so the file stays as it is"
    )
