from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.options.keywords import keywords_text, parse_keywords


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("width=0.5,num_classes=10", {"width": 0.5, "num_classes": 10}),
        ("a=true, b=False ,c=relu", {"a": True, "b": False, "c": "relu"}),
        ("a='10',b=\"true\"", {"a": "10", "b": "true"}),
        ("a=-3,b=+4,c=1e-3,d=2.0", {"a": -3, "b": 4, "c": 1e-3, "d": 2.0}),
        ("path=a=b", {"path": "a=b"}),
        ("big=12345678901234567", {"big": 12345678901234567}),
    ],
)
def test_values_are_what_they_look_like(text: str, keywords: dict[str, Any]) -> None:
    given = parse_keywords(text)
    assert given == keywords
    assert [type(value) for value in given.values()] == [type(value) for value in keywords.values()]
    assert parse_keywords(given) == given


@pytest.mark.parametrize(
    "text", ["", "width", "=3", "a=", "a=1,", "a=1,,b=2", "a b=1", "1a=2", "a=1,a=2", "a.b=1"]
)
def test_what_is_no_keyword_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="accepted is NAME=VALUE") as info:
        parse_keywords(text)
    assert "\n" not in str(info.value)


NAMES = st.from_regex(r"[a-z_]\w{0,8}", fullmatch=True).filter(str.isidentifier)
NUMBERS = st.integers(-(10**15), 10**15) | st.booleans() | st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


@given(st.dictionaries(NAMES, NUMBERS, min_size=1))
def test_the_text_of_keywords_gives_them_again(keywords: dict[str, Any]) -> None:
    assert parse_keywords(keywords_text(keywords)) == keywords
