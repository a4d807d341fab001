"""JSON of dataclasses: equal after a round trip, strict about what does not fit."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.artifacts.codec import from_jsonable, to_jsonable


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    flag: bool
    colour: Colour
    path: Path
    pair: tuple[int, str]
    inners: tuple[Inner, ...]
    table: dict[str, float]
    maybe: Inner | None


def outer(**changes: Any) -> Outer:
    values: dict[str, Any] = {
        "count": 3,
        "flag": True,
        "colour": Colour.BLUE,
        "path": Path("a/b"),
        "pair": (1, "x"),
        "inners": (Inner(share=0.5), Inner(share=1.0, name="n")),
        "table": {"k": 2.0},
        "maybe": None,
    }
    return Outer(**(values | changes))


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(to_jsonable(value), allow_nan=False))


@pytest.mark.parametrize("value", [outer(), outer(maybe=Inner(share=0.0)), outer(inners=(), table={})])
def test_round_trip(value: Outer) -> None:
    assert from_jsonable(Outer, through_json(value)) == value


@given(st.floats(allow_nan=False), st.none() | st.text())
def test_round_trip_of_any_figure_and_text(share: float, name: str | None) -> None:
    value = Inner(share=share, name=name)
    assert from_jsonable(Inner, through_json(value)) == value


def test_nan_survives() -> None:
    assert math.isnan(from_jsonable(Inner, through_json(Inner(share=math.nan))).share)


def test_numpy_values_become_plain_numbers() -> None:
    assert to_jsonable(np.array([[1, 2]])) == [[1, 2]]
    assert to_jsonable(np.array([np.nan, 1.0])) == ["NaN", 1.0]
    assert to_jsonable({"a": np.int64(3), "b": np.float64("inf")}) == {"a": 3, "b": "Infinity"}
    assert type(to_jsonable(np.float32(0.5))) is float


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="set has no JSON form"):
        to_jsonable({1, 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, r"unknown fields \['extra'\]"),
        ({"count": "3"}, "expected int, got '3'"),
        ({"count": True}, "expected int, got True"),
        ({"count": 3.5}, "expected int, got 3.5"),
        ({"flag": 1}, "expected bool, got 1"),
        ({"colour": "green"}, "got 'green'"),
        ({"pair": [1]}, "shorter"),
        ({"pair": 5}, "expected a list"),
        ({"inners": {"share": 1}}, "expected a list"),
        ({"inners": [3]}, "Inner: expected an object, got 3"),
        ({"table": [1]}, "expected an object"),
        ({"table": {"k": "x"}}, "expected float, got 'x'"),
        ({"maybe": {}}, r"missing fields \['share'\]"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_jsonable(Outer, through_json(outer()) | change)


def test_a_missing_field_is_refused_unless_it_has_a_default() -> None:
    assert from_jsonable(Inner, {"share": 1}) == Inner(share=1.0)
    with pytest.raises(ValueError, match="missing fields"):
        from_jsonable(Inner, {"name": "x"})
