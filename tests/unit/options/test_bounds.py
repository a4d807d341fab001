"""A range that an option states holds in Python as on the command line."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import pytest

import edgeprune
from edgeprune import limits
from edgeprune.errors import UsageError
from edgeprune.options.bounds import Bounds, check_bounds
from edgeprune.options.cli_option import CliOption, Panel

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "compress": ("m.pt2",),
    "rank": ("m.pt2",),
    "quantize": ("m.onnx",),
    "verify": ("m.onnx", "n.onnx"),
    "profile": ("m.onnx",),
    "check": ("out",),
    "compare": (("a.onnx", "b.onnx"),),
    "bundle": (["m.onnx"],),
}
REQUIRED: dict[str, dict[str, Any]] = {
    "compress": {"calibration": "c.npz", "output": "never-written"},
    "rank": {"calibration": "c.npz", "output": "never-written"},
    "quantize": {"calibration": "c.npz", "output": "q.onnx"},
    "verify": {"calibration": "c.npz"},
    "bundle": {"output": "b.tar.gz"},
}
VALUES = {
    "threads": (0, -1, 1_000_000, 1.5, "2", True),
    "seed": (-1, 2**70, 0.5, "0", None),
    "timeout_s": (0.0, -1.0, float("nan"), float("inf"), "1", None),
    "time_limit_s": (0.0, -1.0, float("nan"), "1"),
    "max_images": (0, -3, 2.5, "7"),
    "held_out": (0.0, 1.0, -0.1, float("nan"), "x", None),
    "batch_size": (0, -1, 1.5, "x"),
    "width_quantum": (0, -4, 2.5, "8"),
    "max_evaluations": (0, -1, 0.5, "9"),
    "tolerance": (-1.0, float("nan"), "x", None),
    "max_time_s": (0.0, -1.0, float("inf"), float("nan"), "4", [4], 10**400, True),
    "memory_limit_bytes": (0, "5", None, 1.5, True),
}


def cases() -> list[Any]:
    found = []
    for name in FUNCTIONS:
        options = getattr(edgeprune, name).__annotations__
        for option, values in VALUES.items():
            if option in options:
                found += [pytest.param(name, option, v, id=f"{name}-{option}={v!r}") for v in values]
    return found


@pytest.mark.parametrize(("name", "option", "value"), cases())
def test_values_out_of_range_are_refused_before_any_file_is_looked_for(
    name: str, option: str, value: Any
) -> None:
    with pytest.raises(UsageError, match="accepted is") as refused:
        getattr(edgeprune, name)(*FUNCTIONS[name], **REQUIRED.get(name, {}), **{option: value})
    assert option.replace("_", "-").removesuffix("-s") in str(refused.value).replace("_", "-")


class Odd:
    """Nothing that can be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("which", ["a huge number", "an odd object", "a text"])
def test_values_that_cannot_be_shown_are_refused_all_the_same(which: str) -> None:
    value, words = {
        "a huge number": (10**5000, "a value of type int"),
        "an odd object": (Odd(), "a value of type Odd"),
        "a text": ("4", "'4'"),
    }[which]
    with pytest.raises(UsageError, match=f"--threads {words} was given; accepted is a whole number"):
        edgeprune.profile("m.onnx", threads=value)


def test_any_field_with_a_limit_is_checked() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Invented:
        shown: Annotated[int, CliOption(help="", panel=Panel.RUN, limit=limits.WholeNumbers(least=1, most=9))]
        share: Annotated[float | None, Bounds(limits.HELD_OUT, "share")] = None
        other: int = 0

    check_bounds(Invented(shown=9, other=10**9))
    with pytest.raises(UsageError, match="--shown 10 was given; accepted is a whole number from 1 to 9"):
        check_bounds(Invented(shown=10))
    with pytest.raises(UsageError, match="share 2"):
        check_bounds(Invented(shown=1, share=2.0))
