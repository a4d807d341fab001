"""Compress a detector without labels, judged by its own boxes: python examples/detector.py [FOLDER]"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from small_networks import images_with_boxes, sure_detector

import edgeprune


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "boxes.npz", images=images_with_boxes(64))
    report = edgeprune.compress(
        sure_detector(),
        calibration=folder / "boxes.npz",
        task=edgeprune.Task.DETECTION,
        target="rpi4",
        ratio=0.2,
        effort=edgeprune.Effort.QUICK,
        threads=1,
        output=folder / "compressed",
        overwrite=True,
    )
    print(report.usability.headline)
    for figure in report.accuracy:
        print(f"{report.accuracy_kind.value}, {figure.stage}: {figure.value:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-out/detector"))
