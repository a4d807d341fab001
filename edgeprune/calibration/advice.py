"""Warnings about a set of calibration images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

FEW_IMAGES = 32
_UNBALANCED_RATIO = 10


def advice(digests: Sequence[bytes], labels: Sequence[int] | None, constant: Sequence[str]) -> list[str]:
    """Remarks on the number of images, their classes, copies, and images of a single value.

    ``constant`` are the names of the images whose pixels all have one value.
    """
    remarks = []
    if len(digests) < FEW_IMAGES:
        remarks.append(
            f"only {len(digests)} calibration images: every figure is rough; a few hundred are advisable"
        )
    remarks += _copies(digests, labels)
    if constant:
        remarks.append(f"{len(constant)} images have a single value everywhere, such as {constant[0]}")
    if labels is not None:
        remarks += _balance(labels)
    return remarks


def _copies(digests: Sequence[bytes], labels: Sequence[int] | None) -> list[str]:
    copies = len(digests) - len(set(digests))
    if not copies:
        return []
    remarks = [f"{copies} of the {len(digests)} images are exact copies of others; they tell nothing new"]
    if labels is not None and len(set(zip(digests, labels, strict=True))) > len(set(digests)):
        remarks.append("some copies of an image have different labels; check the labels")
    return remarks


def _balance(labels: Sequence[int]) -> list[str]:
    counts = Counter(labels)
    if len(counts) == 1:
        return [
            f"all images are of a single class (label {labels[0]}): accuracy says little; if the folder is "
            "no class, name the folder that holds the images directly"
        ]
    (most, high), (least, low) = counts.most_common()[0], counts.most_common()[-1]
    if high >= _UNBALANCED_RATIO * low:
        return [f"the classes are strongly unbalanced: {high} images of label {most}, {low} of label {least}"]
    return []
