"""Coalition values on file: the same run after a stop, torn ends, other games and damage."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from shapley_games import Recorded, drawn

from edgeprune.errors import OutputError, UsageError
from edgeprune.shapley.estimators.permutation import permutation
from edgeprune.shapley.estimators.racing import race
from edgeprune.shapley.game import CountedGame, all_coalitions
from edgeprune.shapley.journal import JournaledGame


class Stopping(Recorded):
    """A game that is interrupted when asked for more than ``most`` coalitions."""

    most = 20

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        if len(self.asked) + len(coalitions) > self.most:
            raise KeyboardInterrupt
        return super().values(coalitions)


def chosen(game):
    """A run whose course depends on what it found and on what its limit still allows."""
    counted = CountedGame(game, max_evaluations=150, coalitions_at_once=4)
    start = permutation(counted, max_evaluations=40, rng=np.random.default_rng(0))
    return race(
        counted, start, remove=2, max_evaluations=100, rng=np.random.default_rng(1)
    ), counted.evaluations


def written(path, players=6, images=3, blocks=(10, 20, 30)):
    """A file of three records, and the table that is in it."""
    game = drawn(players, images=images)
    with JournaledGame(game, path, fingerprint="one") as kept:
        start = 0
        for end in blocks:
            kept.values(all_coalitions(players)[start:end])
            start = end
    return game.table


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path):
    whole, evaluations = chosen(drawn(6, images=2))
    table = drawn(6, images=2).table
    with JournaledGame(Stopping(table), tmp_path / "v", fingerprint="one") as kept:
        with pytest.raises(KeyboardInterrupt):
            chosen(kept)
        before = kept.asked
        assert 0 < before <= 20
    game = Recorded(table)
    with JournaledGame(game, tmp_path / "v", fingerprint="one") as kept:
        assert kept.known == before
        again, counted_again = chosen(kept)
        assert kept.asked == len(game.asked) == evaluations - before
    assert counted_again == evaluations
    np.testing.assert_array_equal(again.values, whole.values)
    assert (again.removed, again.evaluations, again.choice) == (
        whole.removed,
        whole.evaluations,
        whole.choice,
    )


def test_values_come_back_to_the_bit_and_in_the_order_asked(tmp_path):
    table = written(tmp_path / "v")
    order = np.random.default_rng(2).integers(0, 64, 100)
    game = drawn(6, images=3)
    with JournaledGame(game, tmp_path / "v", fingerprint="one") as kept:
        np.testing.assert_array_equal(kept.values(all_coalitions(6)[order]), table[order])
        assert sorted(game.asked) == sorted({*order.tolist()} - {*range(30)})
        assert kept.values(np.zeros((0, 6), dtype=bool)).shape == (0, 3)


@pytest.mark.parametrize("cut", range(1, 300, 23))
def test_a_torn_end_costs_the_last_record_and_is_told(tmp_path, cut, caplog):
    table = written(tmp_path / "v")
    content = (tmp_path / "v").read_bytes()
    (tmp_path / "v").write_bytes(content[:-cut])
    # The last record: count and its check, 10 coalitions of a byte and three values of 8, and the check.
    last = 8 + 10 * (1 + 24) + 4
    kept_records = 20 if cut <= last else 10
    with (
        caplog.at_level(logging.WARNING),
        JournaledGame(Recorded(table), tmp_path / "v", fingerprint="one") as kept,
    ):
        assert kept.known == kept_records
        assert kept.lost_bytes == (last - cut if cut <= last else 2 * last - cut)
        assert ("bytes are dropped" in caplog.text) == (kept.lost_bytes > 0)
        np.testing.assert_array_equal(kept.values(all_coalitions(6)), table)
    with JournaledGame(drawn(6, images=3), tmp_path / "v", fingerprint="one") as kept:
        assert (kept.known, kept.lost_bytes) == (64, 0)


@pytest.mark.parametrize("tail", [b"\0" * 50, None])
def test_an_end_that_the_system_never_wrote_is_dropped(tmp_path, tail):
    """Zeros where the last record should be, or its last bytes wrong."""
    written(tmp_path / "v")
    content = (tmp_path / "v").read_bytes()
    (tmp_path / "v").write_bytes(content + tail if tail else content[:-20] + b"\0" * 20)
    with JournaledGame(drawn(6, images=3), tmp_path / "v", fingerprint="one") as kept:
        assert kept.known == (30 if tail else 20)
        assert kept.lost_bytes > 0


@pytest.mark.parametrize("place", [300, -500, -300])
def test_damage_before_the_end_is_refused(tmp_path, place):
    written(tmp_path / "v")
    content = bytearray((tmp_path / "v").read_bytes())
    content[place] ^= 0xFF
    (tmp_path / "v").write_bytes(bytes(content))
    with pytest.raises(UsageError, match=r"is damaged at byte .*, before its end: delete it"):
        JournaledGame(drawn(6, images=3), tmp_path / "v", fingerprint="one")
    assert (tmp_path / "v").read_bytes() == bytes(content)


@pytest.mark.parametrize(
    ("players", "images", "fingerprint"), [(7, 3, "one"), (6, 2, "one"), (6, 3, "a much longer two")]
)
def test_another_game_is_refused_and_its_file_left_alone(tmp_path, players, images, fingerprint):
    written(tmp_path / "v")
    content = (tmp_path / "v").read_bytes()
    with pytest.raises(UsageError, match=r"another game \(6 players, 3 images, fingerprint 'one'\)"):
        JournaledGame(drawn(players, images=images), tmp_path / "v", fingerprint=fingerprint)
    assert (tmp_path / "v").read_bytes() == content


def test_other_files_and_a_damaged_beginning_are_refused(tmp_path):
    (tmp_path / "notes").write_text("something else altogether, and long enough to be no beginning of one")
    with pytest.raises(UsageError, match="is no file of coalition values"):
        JournaledGame(drawn(3), tmp_path / "notes", fingerprint="one")
    written(tmp_path / "v")
    content = bytearray((tmp_path / "v").read_bytes())
    content[45] ^= 0xFF
    (tmp_path / "v").write_bytes(bytes(content))
    with pytest.raises(UsageError, match="damaged at its beginning"):
        JournaledGame(drawn(6, images=3), tmp_path / "v", fingerprint="one")


def test_a_file_cut_within_its_beginning_starts_anew(tmp_path):
    written(tmp_path / "v")
    (tmp_path / "v").write_bytes((tmp_path / "v").read_bytes()[:40])
    with JournaledGame(drawn(6, images=3), tmp_path / "v", fingerprint="one") as kept:
        assert (kept.known, kept.lost_bytes) == (0, 40)


def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(OutputError, match="coalition values cannot be kept in"):
        JournaledGame(drawn(3), tmp_path, fingerprint="one")


def test_values_that_are_no_numbers_are_not_written(tmp_path):
    table = np.zeros(8)
    table[5] = np.nan
    with JournaledGame(Recorded(table), tmp_path / "v", fingerprint="one") as kept:
        with pytest.raises(ValueError, match="not finite"):
            kept.values(all_coalitions(3))
        assert kept.known == 0


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    from edgeprune.shapley import journal

    table = written(tmp_path / "v")
    content = (tmp_path / "v").read_bytes()
    whole = journal.write_all

    def fail(file, data):
        whole(file, data[:17])
        raise OSError(28, "No space left on device")

    with JournaledGame(Recorded(table), tmp_path / "v", fingerprint="one") as kept:
        monkeypatch.setattr(journal, "write_all", fail)
        with pytest.raises(OSError, match="No space left"):
            kept.values(all_coalitions(6))
        assert (tmp_path / "v").read_bytes() == content
        monkeypatch.setattr(journal, "write_all", whole)
        np.testing.assert_array_equal(kept.values(all_coalitions(6)), table)
