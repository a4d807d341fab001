"""Tables into dataclasses: what fits is taken whole, every fault is one sentence that names key and value."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any

import pytest
from annotated_types import Gt, Le, Predicate
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.storage.tables import Expected, TableError, from_table


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


Share = Annotated[float, Gt(0), Le(1), Expected("a share")]


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: Share
    is_new: bool = False


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    name: Annotated[str, Predicate(str.strip)] = "x"
    colour: Colour = Colour.RED
    some_words: tuple[str, ...] = ()
    table: dict[str, int] = field(default_factory=dict)
    inner: Inner | None = None
    either: Annotated[Any, Predicate(lambda v: v in (1, "one")), Expected("1 or 'one'")] = 1


def test_all_kinds_of_values() -> None:
    given_table = {
        "count": 3, "name": "n", "colour": "blue", "some_words": ["a", "b"], "table": {"k": 2},
        "inner": {"share": 1, "is_new": True}, "either": "one",
    }  # fmt: skip
    assert from_table(Outer, given_table) == Outer(
        count=3,
        name="n",
        colour=Colour.BLUE,
        some_words=("a", "b"),
        table={"k": 2},
        inner=Inner(share=1.0, is_new=True),
        either="one",
    )
    assert from_table(Outer, {"count": 1}) == Outer(count=1)
    assert from_table(Outer, {"count": 1, "some-words": ["a"]}, hyphens=True).some_words == ("a",)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"coun": 1}, "has the unknown key 'in.coun'; did you mean 'count'? accepted: count, name"),
        ({"zzz": 1}, "has the unknown key 'in.zzz'; accepted: count"),
        ({"count": 1.0}, "'in.count' = 1.0, but a whole number is expected"),
        ({"count": True}, "'in.count' = True, but a whole number is expected"),
        ({"count": "1"}, "'in.count' = '1', but a whole number is expected"),
        ({"name": 1}, "'in.name' = 1, but a text in quotes is expected"),
        ({"name": " "}, "'in.name' = ' ', but a text in quotes is expected"),
        ({"colour": "green"}, "'in.colour' = 'green', but 'red' or 'blue' is expected"),
        ({"some_words": "a"}, "'in.some_words' = 'a', but a list, each a text in quotes, is expected"),
        ({"some_words": ["a", 1]}, "'in.some_words.1' = 1, but a text in quotes is expected"),
        ({"table": [1]}, "'in.table' = [1], but a table is expected"),
        ({"table": {"k": "x"}}, "'in.table.k' = 'x', but a whole number is expected"),
        ({"inner": 1}, "'in.inner' = 1, but a table is expected"),
        ({"inner": {}}, "lacks the key 'in.inner.share'; add it"),
        (
            {"inner": {"shar": 1}},
            "has the unknown key 'in.inner.shar'; did you mean 'share'? accepted: share",
        ),
        ({"inner": {"share": 0}}, "'in.inner.share' = 0, but a share is expected"),
        ({"inner": {"share": float("nan")}}, "'in.inner.share' = nan, but a share is expected"),
        ({"inner": {"share": 1, "is_new": 1}}, "'in.inner.is_new' = 1, but true or false is expected"),
        ({"either": 2}, "'in.either' = 2, but 1 or 'one' is expected"),
        ({"name": datetime.date(2020, 1, 1)}, "'in.name' = datetime.date(2020, 1, 1), but a text in quotes"),
    ],
)
def test_what_does_not_fit_is_told(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TableError, match=re.escape(sentence)):
        from_table(Outer, {"count": 1} | change, inside="in.")


def test_a_missing_key_is_told() -> None:
    with pytest.raises(TableError, match="lacks the key 'count'; add it"):
        from_table(Outer, {"name": "x"})
    with pytest.raises(TableError, match="unknown key 'some_words'; did you mean 'some-words'"):
        from_table(Outer, {"count": 1, "some_words": []}, hyphens=True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["count", "name", "colour", "some_words", "table", "inner", "either"]) | st.text()


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_table_is_taken_or_told_in_one_short_sentence(table: dict[str, Any]) -> None:
    told = ""
    try:
        assert from_table(Outer, table).count == table["count"]
    except TableError as error:
        told = str(error)
    assert len(told) < 2000
    assert "count" in table or told
