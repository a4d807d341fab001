"""How much memory calibration images may take."""

from __future__ import annotations

from edgeprune.errors import CalibrationError

MEMORY_LIMIT_BYTES = 8 << 30
"""Preprocessed images are held as float32; above this a run would swap rather than finish."""


def check_memory(needed_bytes: int, *, len_text: str) -> None:
    """Refuse images that would take more than the limit.

    Raises:
        CalibrationError: names the estimate, the limit and the option that helps.
    """
    if needed_bytes > MEMORY_LIMIT_BYTES:
        raise CalibrationError(
            f"{len_text} would take {needed_bytes / 2**30:.1f} GiB of memory, and at most "
            f"{MEMORY_LIMIT_BYTES / 2**30:.0f} GiB are accepted; use fewer images with --max-images (a few "
            "hundred are enough)"
        )
