"""Fingerprint of calibration data: their pixels, labels and preprocessing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.truth import ImageTruth


def image_digest(pixels: Tensor) -> bytes:
    """SHA-256 of one image's type, shape and values."""
    digest = hashlib.sha256(f"{pixels.dtype} {tuple(pixels.shape)} ".encode())
    digest.update(pixels.contiguous().numpy().tobytes())
    return digest.digest()


def fingerprint(
    digests: Sequence[bytes],
    labels: Sequence[int] | None,
    preprocessing: Preprocessing,
    truths: Sequence[ImageTruth] | None = None,
) -> str:
    """SHA-256, in hexadecimal, of the images in their order, their labels and their preprocessing.

    Of options that came later only those that are not at their default count, so that what was stored before
    stays valid.
    """
    settings: dict[str, Any] = {
        "resize": preprocessing.resize,
        "crop": preprocessing.crop,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "channel_order": preprocessing.channel_order.value,
    }
    plain, later = Preprocessing(), ("letterbox", "pad", "exif", "ground")
    for name in later:
        value = getattr(preprocessing, name)
        if value != getattr(plain, name):
            settings[name] = getattr(value, "value", value)
    text = json.dumps({"labels": labels, "preprocessing": settings}, sort_keys=True)
    shown = b"".join(map(_truth_digest, truths or ()))
    return hashlib.sha256(text.encode() + b"".join(digests) + shown).hexdigest()


def _truth_digest(truth: ImageTruth) -> bytes:
    tensors = [image_digest(value) for value in (truth.map, truth.values) if value is not None]
    return hashlib.sha256(repr(truth.boxes).encode() + b"".join(tensors)).digest()
