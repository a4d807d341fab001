"""Settings that every test shares: one torch thread, deterministic hypothesis without deadlines."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable
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


Golden = Callable[[Path, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are written by the tests that read them."""
    parser.addoption(
        "--overwrite-golden", action="store_true", help="write golden files and generated pages anew"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Holds a text against a golden file, or writes the file anew with ``--overwrite-golden``."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--overwrite-golden"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), (
            f"if it is meant: pytest --overwrite-golden ({path.name})"
        )

    return check


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
