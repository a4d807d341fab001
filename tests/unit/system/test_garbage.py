"""The collector rests while it is asked to, and is left as it was."""

from __future__ import annotations

import gc

import pytest

from edgeprune.system.garbage import collection_paused


@collection_paused()
def failing() -> None:
    assert not gc.isenabled()
    raise ValueError("inside")


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_left_as_it_was(on: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with pytest.raises(ValueError, match="inside"):
            failing()
        assert gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()
