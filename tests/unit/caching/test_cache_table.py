"""What ``edgeprune cache list`` says of a cache and of its entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.api.caching import prune_shared, read_shared
from edgeprune.caching.keys import Key, Stage
from edgeprune.caching.maintenance import read_cache
from edgeprune.caching.store import Store
from edgeprune.errors import UsageError
from edgeprune.reporting.sweep.cached import cache_table


@pytest.mark.parametrize(
    ("removed", "words"),
    [((), "without 0 channels"), ((7,), "without 1 channel"), ((1, 2, 30), "without 3 channels")],
)
def test_a_recovered_network_is_told_by_what_it_lacks(
    removed: tuple[int, ...], words: str, tmp_path: Path
) -> None:
    parts = {"network": "0123456789abcdef", "removed": f"{removed}", "effort": "quick"}
    key = Key(stage=Stage.RECOVERY, decided_by=parts)
    Store(tmp_path).get(key, lambda: 1, lambda folder, _made: (folder / "made").touch(), lambda _folder: 1)
    ((stage, *_, about, state),) = cache_table(read_cache(tmp_path)).rows
    assert (stage, about, state) == ("recovery", f"network 0123456789ab, {words}, effort quick", "whole")


def test_a_folder_that_is_not_there_is_said_to_be_none(tmp_path: Path) -> None:
    assert "no such folder" not in cache_table(read_cache(tmp_path)).title
    table = cache_table(read_cache(tmp_path / "mistyped"))
    assert table.title.endswith("(there is no such folder yet)")
    assert table.rows == ()
    assert not (tmp_path / "mistyped").exists()


def test_a_file_is_no_cache(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.touch()
    for call in (read_shared, prune_shared):
        with pytest.raises(UsageError, match=r"is a file; name the folder of a cache"):
            call(path)
