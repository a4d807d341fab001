"""Shared types of arrays and callbacks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.int64]

Advance = Callable[[int], None]
"""Called with the number of units of a long job that were just finished."""
