"""Estimates that are stopped go on from their file and end just as they would have."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import networks as nets
import numpy as np
import pytest
import torch

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import CoupledGroup
from edgeprune.artifacts.pruning import Aggregate, Ranking
from edgeprune.errors import UsageError
from edgeprune.fx import tensor_leaves
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.ranking import RankingOptions, rank
from edgeprune.pruning.masking import mask_module
from edgeprune.shapley.checkpoint import (
    Checkpoint,
    FileCheckpoint,
    NoCheckpoint,
    State,
    generator_state,
    set_generator,
)
from edgeprune.shapley.estimate import Estimate
from edgeprune.shapley.estimators.multilinear import multilinear


class Gradients:
    """A quadratic game of 5 players and 12 images that a visitor may interrupt."""

    num_players = 5
    num_images = 12
    shared_coalition = False

    def __init__(self, calls: float = float("inf")) -> None:
        self.left = calls
        rng = np.random.default_rng(8)
        self._worth = rng.normal(size=(12, 5))
        self._pairs = rng.normal(size=(5, 5))

    def marginals(self, memberships: np.ndarray, images: np.ndarray) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self._worth[images] + memberships @ (self._pairs + self._pairs.T)

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        raise AssertionError("no values are asked for")


def estimate(
    game: Gradients, checkpoint: FileCheckpoint | None, *, advance: Advance = lambda _units: None
) -> Estimate:
    return multilinear(
        game,
        passes=4,
        q_low=0.2,
        aggregate=Aggregate.RMS,
        batch=5,
        rng=np.random.default_rng(3),
        checkpoint=checkpoint,
        advance=advance,
    )


class EveryStep(FileCheckpoint):
    """Keeps every offer."""

    def offer(self, state: Callable[[], State]) -> None:
        self.keep(state)


def at_every_step(path: Path) -> FileCheckpoint:
    return EveryStep(path, fingerprint="a game")


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 7, 11])
def test_an_interrupted_estimate_ends_as_if_nothing_had_happened(tmp_path: Path, calls: int) -> None:
    straight = estimate(Gradients(), None)
    path = tmp_path / "values.npz"
    with pytest.raises(KeyboardInterrupt):
        estimate(Gradients(calls), at_every_step(path))
    announced: list[int] = []
    rest = Gradients(12 - calls)
    found = estimate(rest, at_every_step(path), advance=announced.append)
    np.testing.assert_array_equal(found.values, straight.values)
    np.testing.assert_array_equal(found.standard_errors, straight.standard_errors)
    assert found.evaluations == straight.evaluations == 12
    assert sum(announced) == 12
    assert rest.left == 0


def test_a_finished_estimate_asks_nothing_again(tmp_path: Path) -> None:
    path = tmp_path / "values.npz"
    straight = estimate(Gradients(), at_every_step(path))
    again = estimate(Gradients(0), at_every_step(path))
    np.testing.assert_array_equal(again.values, straight.values)


def test_the_random_numbers_go_on(tmp_path: Path) -> None:
    """What follows the estimate draws the same numbers, whether it was stopped or not."""
    straight, resumed = np.random.default_rng(3), np.random.default_rng(3)
    path = tmp_path / "values.npz"
    options = {"passes": 2, "q_low": 0.5, "aggregate": Aggregate.MEAN, "batch": 4}
    multilinear(Gradients(), rng=straight, checkpoint=at_every_step(path), **options)
    multilinear(Gradients(0), rng=resumed, checkpoint=at_every_step(path), **options)
    assert straight.integers(1 << 60) == resumed.integers(1 << 60)
    other = np.random.default_rng(99)
    set_generator(other, generator_state(straight))
    assert other.integers(1 << 60) == straight.integers(1 << 60)


class StopsAfter(EveryStep):
    """Interrupts after so many offers; with none left it never does."""

    def __init__(self, path: Path, offers: int) -> None:
        super().__init__(path, fingerprint="a ranking")
        self._offers = offers

    def offer(self, state: Callable[[], State]) -> None:
        super().offer(state)
        self._offers -= 1
        if self._offers == 0:
            raise KeyboardInterrupt


def reconstructing_game() -> tuple[MaskedGame, tuple[CoupledGroup, ...]]:
    case = nets.make_case(nets.chain())
    case.captured.graph_module.float()
    _, pixels, labels = nets.digits_like()
    pixels = pixels.float()
    masked = mask_module(
        case.captured, case.coupling, channel_statistics(case.captured, case.coupling, pixels)
    )
    with torch.no_grad():
        reference = tensor_leaves(case.captured.graph_module(pixels))
    batch = ImageBatch(images=pixels, labels=labels)
    return MaskedGame(masked, case.coupling.num_players, batch, reference), case.coupling.groups


@pytest.mark.parametrize(("name", "offers"), [("values", 2), ("costs", 1), ("costs", 3)])
def test_a_ranking_goes_on_with_its_values_and_its_costs(tmp_path: Path, name: str, offers: int) -> None:
    options = RankingOptions(samples=48, cost_samples=40, batch=8)
    game, groups = reconstructing_game()

    def ranked(checkpoints: Callable[[str], Checkpoint]) -> Ranking:
        rng = np.random.default_rng(5)
        return rank(game, groups, rng=rng, options=options, checkpoints=checkpoints)

    straight = ranked(lambda _name: NoCheckpoint())
    assert len(np.unique(straight.removal_costs)) == len(straight.removal_costs)
    with pytest.raises(KeyboardInterrupt):
        ranked(lambda which: StopsAfter(tmp_path / f"{which}.npz", offers if which == name else 0))
    resumed = ranked(lambda which: StopsAfter(tmp_path / f"{which}.npz", 0))
    np.testing.assert_array_equal(resumed.values, straight.values)
    np.testing.assert_array_equal(resumed.removal_costs, straight.removal_costs)
    np.testing.assert_array_equal(resumed.standard_errors, straight.standard_errors)
    assert resumed.evaluations == straight.evaluations


def test_other_settings_and_damage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "values.npz"
    estimate(Gradients(), at_every_step(path))
    with pytest.raises(UsageError, match="begun with other settings"):
        FileCheckpoint(path, fingerprint="another game")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="is damaged"):
        at_every_step(path)


def test_every_byte_that_is_changed_in_an_array_is_noticed_even_where_the_archive_is_whole(
    tmp_path: Path,
) -> None:
    path = tmp_path / "values.npz"
    rng = np.random.default_rng(0)
    state = {
        "scalar": np.array(3.5),
        "none": np.zeros((0, 4)),
        "flags": np.array([True, False]),
        "across": np.asfortranarray(rng.normal(size=(3, 4))),
        "every second": np.arange(10)[::2],
        "words": np.array([1, 2], dtype="<i2"),
    }
    FileCheckpoint(path, fingerprint="g").keep(lambda: state)
    found = FileCheckpoint(path, fingerprint="g").restored()
    assert found is not None
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    with np.load(path) as archive:
        written = dict(archive)
    for name, array in state.items():
        for place in range(min(array.nbytes, 12)):
            data = bytearray(array.tobytes())
            data[place] ^= 1
            changed = np.frombuffer(bytes(data), dtype=array.dtype).reshape(array.shape)
            np.savez(path, **{**written, name: changed})
            with pytest.raises(UsageError, match="is damaged"):
                FileCheckpoint(path, fingerprint="g")


def test_a_large_state_is_written_without_a_copy_of_it(tmp_path: Path) -> None:
    state = {"large": np.zeros(8 << 20)}
    FileCheckpoint(tmp_path / "warm.npz", fingerprint="").keep(lambda: {"a": np.zeros(1)})
    tracemalloc.start()
    try:
        FileCheckpoint(tmp_path / "large.npz", fingerprint="").keep(lambda: state)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20  # NumPy writes pieces of 16 MiB
    finally:
        tracemalloc.stop()
    first = (tmp_path / "large.npz").read_bytes()
    FileCheckpoint(tmp_path / "again.npz", fingerprint="").keep(lambda: state)
    assert (tmp_path / "again.npz").read_bytes() == first


def test_saves_wait_for_their_interval(tmp_path: Path) -> None:
    path = tmp_path / "values.npz"
    checkpoint = FileCheckpoint(path, fingerprint="", interval_s=1000.0)
    checkpoint.offer(lambda: {"a": np.zeros(1)})
    assert not path.exists()
    checkpoint.keep(lambda: {"a": np.ones(2)})
    found = FileCheckpoint(path, fingerprint="").restored()
    assert found is not None
    np.testing.assert_array_equal(found["a"], np.ones(2))
