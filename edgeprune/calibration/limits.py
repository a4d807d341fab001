"""Memory limits of calibration images."""

from __future__ import annotations

from edgeprune.errors import CalibrationError

MEMORY_LIMIT_BYTES = 8 << 30
"""Preprocessed images are held as float32; above this a run would swap rather than finish."""


_FREE_BYTES = 512 << 20
_RATIO = 200
"""Images in 8 bits that compress fifty times take 200 times their file as float32."""


def check_growth(float_bytes: int, file_bytes: int, *, len_text: str) -> None:
    """Reject images that need much more memory, as float32, than their file has bytes.

    Raises:
        CalibrationError: names both sizes and what is accepted.
    """
    accepted_bytes = _FREE_BYTES + _RATIO * file_bytes
    if float_bytes > accepted_bytes:
        raise CalibrationError(
            f"{len_text} has {file_bytes / 2**20:.1f} MiB and its images would take "
            f"{float_bytes / 2**30:.1f} GiB, and at most {accepted_bytes / 2**30:.1f} GiB are accepted for "
            "its size; save real images, uncompressed with numpy.savez if they hardly differ"
        )


def check_memory(needed_bytes: int, *, len_text: str) -> None:
    """Reject images that need more memory than the limit.

    Raises:
        CalibrationError: names the estimate, the limit and the option that helps.
    """
    if needed_bytes > MEMORY_LIMIT_BYTES:
        raise CalibrationError(
            f"{len_text} would take {needed_bytes / 2**30:.1f} GiB of memory, and at most "
            f"{MEMORY_LIMIT_BYTES / 2**30:.0f} GiB are accepted; use fewer images with --max-images (a few "
            "hundred are enough)"
        )
