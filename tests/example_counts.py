"""How many examples hypothesis tries in long tests: a share of them where wide tests are left out."""

from __future__ import annotations

from hypothesis import settings

ALL, FEW = "edgeprune", "edgeprune-few"
"""Names of the profiles of ``make test-all`` (and of tests run by hand), and of ``make test``."""
FEWER = 4


def examples(count: int) -> int:
    """``count``, or a quarter of it under the profile of few; to be asked while a module is imported."""
    few = settings.get_current_profile_name() == FEW
    return -(-count // FEWER) if few else count
