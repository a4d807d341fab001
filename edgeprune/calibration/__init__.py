"""Read calibration images from a folder, an ``.npz`` file or a Dataset, and hold a part out; read boxes."""

from __future__ import annotations

from edgeprune.calibration.annotations.boxes import to_input
from edgeprune.calibration.annotations.coco import read_coco
from edgeprune.calibration.annotations.yolo import read_yolo
from edgeprune.calibration.build import load_calibration
from edgeprune.calibration.sources.folders import IMAGE_EXTENSIONS

__all__ = ["IMAGE_EXTENSIONS", "load_calibration", "read_coco", "read_yolo", "to_input"]
