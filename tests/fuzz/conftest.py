"""Valid files of every format, made once for all workers of a run of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_seeds import make_seeds
from small_project import of_all_workers


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that tests leave as it is."""
    return make_seeds(of_all_workers(tmp_path_factory.getbasetemp()) / "fuzz-seeds")
