"""The tests of GPUs on simulated ones, in a process of their own.

PyTorch counts devices once in a process, with the first gradient, and other tests should find none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_gpu import ASKED_BY

HERE = Path(__file__).parent
FILES = ("test_accelerator.py", "test_small_gpus.py")


@pytest.mark.parametrize("expression", ["not wide", pytest.param("wide", marks=pytest.mark.wide)])
@pytest.mark.timeout(1200)
def test_what_gpus_demand_is_met(expression: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-m", expression,
         "-k", "on_a_gpu or less_memory", *(str(HERE / name) for name in FILES)],
        env={**os.environ, ASKED_BY: "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
