"""Accepted values of project files and cards, as annotations (``storage/tables.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from annotated_types import MinLen, Predicate

from edgeprune import limits
from edgeprune.storage.tables import Expected


def as_list(value: object) -> list[Any]:
    """The value as a list; a single value becomes a list of one."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def per_channel(value: Any) -> tuple[float, ...] | None:
    """Tuple from one number for all channels or a list of one per channel."""
    return None if value is None else tuple(float(item) for item in as_list(value))


def _of(numbers: limits.ChannelNumbers) -> Callable[[object], bool]:
    return lambda value: numbers.hold(as_list(value))


Text = Annotated[str, MinLen(1), Expected("a text in quotes")]
ImageSize = Annotated[
    Any,
    Predicate(lambda value: limits.IMAGE_SIZES.read(value) is not None),
    Expected(limits.IMAGE_SIZES.accepted),
]
PadValue = Annotated[int, Predicate(limits.PAD_VALUES.holds), Expected(limits.PAD_VALUES.accepted)]
Means = Annotated[
    Any, Predicate(_of(limits.MEANS)), Expected(f"a list of finite numbers ({limits.MEANS.accepted})")
]
Deviations = Annotated[
    Any,
    Predicate(_of(limits.DEVIATIONS)),
    Expected(f"a list of finite numbers ({limits.DEVIATIONS.accepted})"),
]
Seed = Annotated[int, Predicate(limits.SEED.holds), Expected(limits.SEED.accepted)]
Threads = Annotated[int, Predicate(limits.THREADS.holds), Expected(limits.THREADS.accepted)]
