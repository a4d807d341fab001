"""Read calibration images from a folder, an ``.npz`` file or a Dataset, and hold a part out to evaluate."""

from __future__ import annotations

from edgeprune.calibration.build import load_calibration
from edgeprune.calibration.folders import IMAGE_EXTENSIONS

__all__ = ["IMAGE_EXTENSIONS", "load_calibration"]
