"""Workers rank on processors: a GPU that is there is refused beside them, one that is not is no matter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeprune.artifacts.choices import ComputeDevice
from edgeprune.commands.run import checks
from edgeprune.errors import UsageError
from edgeprune.options.runs import CompressOptions


def test_a_gpu_that_is_there_is_refused_with_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CompressOptions(
        torch.nn.Conv2d(1, 2, 3), calibration=tmp_path, workers=2, compute_device=ComputeDevice.AUTO
    )
    checks.check_options(options)
    monkeypatch.setattr(checks, "find_device", lambda _asked: torch.device("cuda", 0))
    with pytest.raises(UsageError, match=r"--device auto was given with workers.*accepted is --device cpu"):
        checks.check_options(options)
