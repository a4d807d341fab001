"""Valid files of every format, made once for all workers of a run of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_seeds import make_seeds


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that tests leave as it is."""
    base = tmp_path_factory.getbasetemp()
    return make_seeds((base.parent if "popen-" in base.name else base) / "fuzz-seeds")
