"""A cache: what is taken, what is made anew, and what several processes at once do to it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cache_child
import pytest

from edgeprune.caching import keys
from edgeprune.caching.keys import Key, Stage, surroundings
from edgeprune.caching.maintenance import prune, read_cache
from edgeprune.caching.store import ENTRY_NAME, Origin, Store
from edgeprune.errors import OutputError


class Counted:
    """A cache of texts that counts how often one is made."""

    def __init__(self, folder: Path) -> None:
        self.store, self.made = Store(folder), 0

    def get(self, text: str = "value", **decided_by: str) -> str:
        def make() -> str:
            self.made += 1
            return text

        return self.store.get(
            Key(stage=Stage.RANKING, decided_by=decided_by or {"seed": "0"}),
            make,
            lambda place, made: (place / "value").write_text(made),  # type: ignore[arg-type, return-value]
            lambda place: (place / "value").read_text(),
        )


def entry(folder: Path) -> Path:
    (found,) = folder.rglob(ENTRY_NAME)
    return found.parent


def test_a_result_is_made_once_and_found_by_another_store(tmp_path: Path) -> None:
    first, second = Counted(tmp_path), Counted(tmp_path)
    assert [first.get(), first.get(), second.get("another")] == ["value"] * 3
    assert (first.made, second.made) == (1, 0)
    assert [use.origin for use in first.store.uses] == [Origin.COMPUTED, Origin.TAKEN]
    assert second.store.uses[0].duration_s == first.store.uses[0].duration_s
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_any_other_part_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Counted(tmp_path)
    assert cache.get("a", seed="0", cut="0.25") == "a"
    assert cache.get("b", seed="1", cut="0.25") == "b"
    assert cache.get("c", seed="0", cut="0.5") == "c"
    assert cache.get("d", seed="0", cut="0.25", more="1") == "d"
    for part in surroundings():
        monkeypatch.setattr(keys, "surroundings", lambda part=part: {**surroundings(), part: "other"})
        assert cache.get(part, seed="0", cut="0.25") == part
    assert cache.made == 4 + len(surroundings())


def test_times_of_results_within_a_result_are_not_counted_twice(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def get(name: str, make: Any) -> str:
        return store.get(
            Key(stage=Stage.RANKING, decided_by={"name": name}),
            make,
            lambda place, made: (place / "value").write_text(made),  # type: ignore[arg-type, return-value]
            lambda place: (place / "value").read_text(),
        )

    def inner() -> str:
        time.sleep(0.2)
        return "inner"

    get("outer", lambda: get("inner", inner) + " and outer")
    (first, second) = store.uses
    assert first.duration_s >= 0.2
    assert second.duration_s < 0.1
    assert get("outer", inner) == "inner and outer"
    assert store.uses[-1].duration_s >= 0.2


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"~")


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: change(place / "value"),
        lambda place: (place / "value").unlink(),
        lambda place: (place / ENTRY_NAME).unlink(),
        lambda place: (place / ENTRY_NAME).write_text("{"),
        lambda place: (place / ENTRY_NAME).write_text((place / ENTRY_NAME).read_text().replace("0", "1")),
    ],
)
def test_what_is_damaged_is_made_anew_and_said(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Counted(tmp_path)
    cache.get()
    damage(entry(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert (cache.get(), cache.get()) == ("value", "value")
    assert cache.made == 2
    assert caplog.text.count("is damaged, so it is made anew") == 1
    assert [use.damaged for use in cache.store.uses] == [False, True, False]
    assert not read_cache(tmp_path).damaged


def child(folder: Path, pause_s: float) -> subprocess.Popen[str]:
    asked = [sys.executable, cache_child.__file__, str(folder / "cache"), str(folder / "made"), str(pause_s)]
    root = Path(cache_child.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, env=environment)


def test_several_processes_make_it_once(tmp_path: Path) -> None:
    children = [child(tmp_path, 0.3) for _ in range(4)]
    assert {each.communicate(timeout=60)[0] for each in children} == {"the result\n"}
    assert (tmp_path / "made").read_text() == "x"


def test_a_process_that_is_killed_keeps_nobody_waiting(tmp_path: Path) -> None:
    first = child(tmp_path, 60)
    until = time.monotonic() + 60
    while not (tmp_path / "made").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    second = child(tmp_path, 0)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=60)[0] == "the result\n"
    assert (tmp_path / "made").read_text() == "xx"


def test_what_cannot_be_kept_is_given_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Counted(tmp_path)

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeprune.caching.store.write_record", full)
    with caplog.at_level(logging.WARNING):
        assert cache.get() == "value"
    assert "cannot be written, so what was computed is not kept there" in caplog.text
    assert not list(tmp_path.rglob("value"))


def test_a_folder_that_cannot_be_made_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"the cache .* cannot be made .*; name another folder"):
        Store(tmp_path / "file" / "cache").check()
    Store(tmp_path / "deep" / "cache").check()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def aged(folder: Path) -> dict[str, Path]:
    """Four entries of 100 bytes and more, used one, two, three and four hours ago, by name."""
    cache, found = Counted(folder), {}
    for hours in range(1, 5):
        before = {path.parent for path in folder.rglob(ENTRY_NAME)}
        cache.get("v" * 100, seed=f"{hours}")
        (place,) = {path.parent for path in folder.rglob(ENTRY_NAME)} - before
        os.utime(place / ENTRY_NAME, (time.time() - 3600 * hours,) * 2)
        found[f"{hours}"] = place
    return found


def test_pruning_goes_by_age_by_size_and_by_damage(tmp_path: Path) -> None:
    places = aged(tmp_path)
    assert [e.decided_by["seed"] for e in read_cache(tmp_path).entries] == ["1", "2", "3", "4"]
    size = read_cache(tmp_path).entries[0].size_bytes
    assert not prune(tmp_path).removed
    change(places["1"] / "value")
    assert [e.digest for e in prune(tmp_path).removed] == [places["1"].name]
    assert [e.decided_by["seed"] for e in prune(tmp_path, 3.5 * 3600).removed] == ["4"]
    assert [e.decided_by["seed"] for e in prune(tmp_path, None, int(1.5 * size)).removed] == ["3"]
    left = prune(tmp_path, None, 0).left
    assert (left.entries, left.size_bytes) == ((), 0)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
