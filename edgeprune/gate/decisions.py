"""Decisions from intervals, and intervals of differences; pure functions."""

from __future__ import annotations

import math

from edgeprune.gate.outcomes import LIMIT_KINDS, Check, Decision, Interval


def decide(found: Interval, limit: float, *, at_most: bool) -> Decision:
    """Passed if the whole interval is within the limit, failed if all of it is beyond, else inconclusive."""
    if not all(map(math.isfinite, (found.value, limit))):
        return Decision.INCONCLUSIVE
    inside, outside = (found.high <= limit, found.low > limit) if at_most else (
        found.low >= limit, found.high < limit,
    )  # fmt: skip
    if inside:
        return Decision.PASSED
    return Decision.FAILED if outside else Decision.INCONCLUSIVE


def judged(name: str, measured: Interval, accepted: float, source: str) -> Check:
    """The check of the limit ``name`` by the interval of what was found, and where that comes from.

    Raises:
        KeyError: there is no such limit.
    """
    kind = LIMIT_KINDS[name]
    return Check(
        key=name,
        metric=kind.metric,
        unit=kind.unit,
        most=kind.most,
        found=measured,
        limit=accepted,
        decision=decide(measured, accepted, at_most=kind.most),
        basis=source,
    )


def difference(after: Interval, before: Interval) -> Interval:
    """``after - before``: distances to the ends add in quadrature (Zou and Donner 2008), as if independent.

    Where both come from the same images they mostly rise and fall together, and this is wider than need be.
    """
    value = after.value - before.value
    return Interval.of(
        value,
        value - math.hypot(after.value - after.low, before.high - before.value),
        value + math.hypot(after.high - after.value, before.value - before.low),
    )


def quotient(after: Interval, before: Interval) -> Interval:
    """``after / before`` of positive intervals: :func:`difference` of their logarithms.

    Raises:
        ValueError: an end is not positive.
    """
    ends = (*_ends(after), *_ends(before))
    if not all(end > 0 for end in ends):
        raise ValueError("a quotient needs positive intervals")
    logs = difference(_mapped(after), _mapped(before))
    return Interval(value=math.exp(logs.value), low=math.exp(logs.low), high=math.exp(logs.high))


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.low, interval.value, interval.high


def _mapped(interval: Interval) -> Interval:
    low, value, high = map(math.log, _ends(interval))
    return Interval.of(value, low, high)
