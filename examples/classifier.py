"""Compress a classifier, and run the file that comes out: python examples/classifier.py [FOLDER]"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from small_networks import save_striped_images, striped_images, trained_classifier

import edgeprune


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = edgeprune.compress(
        trained_classifier(),
        calibration=save_striped_images(folder),
        target="rpi4",
        ratio=0.3,
        effort=edgeprune.Effort.QUICK,
        threads=1,
        output=folder / "compressed",
        overwrite=True,
    )
    print(report.usability.headline)
    print(f"{report.pruning.macs_removed_share:.0%} of the multiply-accumulates are gone")

    images, labels = striped_images(40)
    session = onnxruntime.InferenceSession(folder / "compressed" / "model.onnx")
    (scores,) = session.run(None, {"input": images[:, None].astype(np.float32) / 255})
    print(f"{(scores.argmax(1) == labels).sum()} of {len(labels)} images right, in onnxruntime")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-out/classifier"))
