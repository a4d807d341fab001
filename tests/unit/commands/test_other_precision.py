"""8 bits are tried in the default search unless a precision was asked for, 32 bits among them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgeprune.artifacts.quantization import Precision
from edgeprune.commands.run.state import Run
from edgeprune.commands.search.default_search import DefaultSearch
from edgeprune.options.runs import CompressOptions
from edgeprune.targets import load_target


@pytest.mark.parametrize(
    ("asked", "stored", "other"),
    [
        (None, Precision.FP32, Precision.AUTO),
        (Precision.FP32, Precision.FP32, None),
        (Precision.FP16, Precision.FP16, None),
        (Precision.INT8, Precision.INT8, None),
    ],
)
def test_only_an_open_precision_tries_another(
    asked: Precision | None, stored: Precision, other: Precision | None
) -> None:
    options = CompressOptions(model="net.pt", calibration="images", precision=asked)
    search: Any = DefaultSearch.__new__(DefaultSearch)
    search._run = Run(options=options)
    search._prepared = SimpleNamespace(target=load_target("rpi4"), captured=SimpleNamespace(joins=()))
    assert options.stored_in is stored
    assert search._other_precision() is other
    assert search._run.notes == []
