"""How far apart are two answers that can be drawn over an image."""

from __future__ import annotations

import numpy as np

from edgeprune.evaluation.boxes import intersection_over_union
from edgeprune.evaluation.overlays import Overlay

_SAME_BOX = 0.5


def difference(one: Overlay, other: Overlay) -> float:
    """Boxes that only one of them has, or the share of pixels with another class; 0 where both are alike."""
    if one.map is not None and other.map is not None:
        return float((one.map != other.map).mean())
    if one.boxes is None or other.boxes is None or one.classes is None or other.classes is None:
        return 0.0
    free, matched = np.ones(len(one.boxes), dtype=bool), 0
    shares = intersection_over_union(other.boxes, one.boxes) if len(one.boxes) and len(other.boxes) else None
    for place in range(len(other.boxes)):
        if shares is None:
            break
        offered = np.where(free & (one.classes == other.classes[place]), shares[place], 0.0)
        if offered.max() >= _SAME_BOX:
            free[offered.argmax()] = False
            matched += 1
    return float(len(one.boxes) + len(other.boxes) - 2 * matched)
