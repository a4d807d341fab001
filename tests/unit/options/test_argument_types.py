"""Arguments of the Python API of other types than its signatures say: one sentence each, before any work."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeprune
from edgeprune.errors import EdgepruneError, ModelLoadError, UsageError
from edgeprune.options.argument_types import check_types, plain_number

FUNCTIONS = ("compress", "rank", "quantize", "verify", "profile", "inspect", "check", "bundle")
ODD = (object(), 1.5, -1, True, None, "text", b"bytes", [object()], (None,), {"a": 1}, {1}, 1j, np.zeros(2))


def first_arguments(function: Any) -> dict[str, Any]:
    """What has no default: paths that do not exist."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: "no-such-file" for p in parameters if p.default is p.empty}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_odd_values_end_in_a_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    function = getattr(edgeprune, name)
    needed = first_arguments(function)
    for option in inspect.signature(function).parameters:
        for value in ODD:
            with pytest.raises(EdgepruneError) as raised:
                function(**{**needed, option: value})
            assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        ("compress", {"input_shape": 5}, "input_shape=5; accepted is a tuple of whole numbers or None"),
        ("rank", {"recover_at": 0.2}, "recover_at=0.2; accepted is a tuple of numbers"),
        ("quantize", {"precision": "int8"}, "Precision.FP16, Precision.INT8 or Precision.AUTO"),
        ("quantize", {"kept_float": None}, "kept_float=None; accepted is a tuple of texts"),
        ("quantize", {"max_drop_points": "1"}, "accepted is a number or None"),
        ("compress", {"finetune": 3}, "accepted is an object of the class Finetune or None"),
        ("compress", {"constants": 4}, "accepted is a dictionary or a list of texts or None"),
    ],
)
def test_the_sentence_says_what_is_accepted(function: str, options: dict[str, Any], said: str) -> None:
    called = getattr(edgeprune, function)
    with pytest.raises(UsageError) as raised:
        called(**{**first_arguments(called), **options})
    assert f"{function}() was given" in str(raised.value)
    assert said in str(raised.value)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    """They get as far as the model, which is missing."""
    with pytest.raises(ModelLoadError):
        edgeprune.compress(
            tmp_path / "none.pt2",
            calibration="none",
            output=tmp_path / "out",
            seed=np.int64(3),
            threads=np.int32(1),
            ratio=np.float32(0.25),
            overwrite=np.bool_(True),
        )
    assert (plain_number(np.int8(3)), type(plain_number(np.int8(3)))) == (3, int)
    array = np.zeros(3)
    assert plain_number(array) is array


def test_lists_pass_for_tuples_and_whole_numbers_for_numbers() -> None:
    hints = {"shape": tuple[int, ...] | None, "share": float, "path": str | Path}
    check_types("f", dict, hints, {"shape": [3, 4], "share": 1, "path": Path("a")})
    for wrong in ({"shape": [3, True]}, {"share": "1"}, {"path": b"a"}, {"share": True}):
        with pytest.raises(UsageError):
            check_types("f", dict, hints, wrong)
