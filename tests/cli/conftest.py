"""A user's project and a compressed network, made once for all tests of the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from small_project import compressed_digits, leftovers, make_project, run, run_forked

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and images; tests leave it as it is."""
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def edgeprune(project: Path, tmp_path: Path) -> Run:
    """Runs a command in the project and checks that no temporary file of edgeprune stays.

    A process that is forked from one with the heavy libraries saves their import of two seconds.
    """

    def in_project(
        *arguments: str, cwd: Path = project, fork: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = (run_forked if fork else run)(*arguments, cwd=cwd, scratch=tmp_path / "scratch")
        assert leftovers(tmp_path / "scratch") == []
        return done

    return in_project


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Output folder of the digits example and what the command said (with --json)."""
    return compressed_digits(tmp_path_factory.getbasetemp())
