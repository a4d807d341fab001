"""What can be drawn over images: boxes of a detector, class maps of a segmenter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import FloatArray


@dataclass(frozen=True)
class Overlay:
    """Boxes (k, 4) as shares x1 y1 x2 y2 of an image with their classes (k,), or a class map (h, w)."""

    boxes: FloatArray | None = None
    classes: NDArray[np.int64] | None = None
    map: NDArray[np.int64] | None = None

    @property
    def words(self) -> str:
        """``3 boxes``, or ``2 classes``."""
        if self.boxes is not None:
            return f"{len(self.boxes)} {'box' if len(self.boxes) == 1 else 'boxes'}"
        count = 0 if self.map is None else len(np.unique(self.map))
        return f"{count} {'class' if count == 1 else 'classes'}"
