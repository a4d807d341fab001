"""Settings that every test shares: one torch thread, deterministic hypothesis without deadlines."""

from __future__ import annotations

import gc
import importlib
import os
from pathlib import Path

import pytest
import torch
from example_counts import ALL, FEW
from hypothesis import HealthCheck, settings

for name in (ALL, FEW):
    settings.register_profile(
        name,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
settings.load_profile(ALL)

importlib.import_module("edgeprune.api")
gc.collect()
gc.freeze()  # or every pass of the collector would visit the libraries' half a million objects


def pytest_configure(config: pytest.Config) -> None:
    """Where wide tests are left out (``-m "not wide"``), fewer examples are tried, too."""
    if config.option.markexpr == "not wide":
        settings.load_profile(FEW)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def research_data() -> Path:
    """Folder of the research data; the test is skipped where it is missing."""
    checkout = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("EDGEPRUNE_RESEARCH_DATA", checkout.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the research data: set EDGEPRUNE_RESEARCH_DATA to their folder")
    return folder
