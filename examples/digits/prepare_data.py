"""Make the three digits files from scikit-learn's copy of the data set (needs scikit-learn).

Writes ../../calibration/digits.npz (400 images), digits_train.npz (1,000) and digits_test.npz (397):
``images`` (n, 8, 8) uint8, the values 0..16 scaled to 0..255, and ``labels`` (n,) uint8. The split is a
seeded permutation, so it is the same on every machine.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from edgeprune.storage.files import atomic_write_bytes

HERE = Path(__file__).resolve().parent
SEED = 20
TRAIN, CALIBRATION = 1000, 400


def main() -> None:
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    order = np.random.default_rng(SEED).permutation(len(images))
    parts = {
        HERE / "digits_train.npz": order[:TRAIN],
        HERE.parents[1] / "calibration" / "digits.npz": order[TRAIN : TRAIN + CALIBRATION],
        HERE / "digits_test.npz": order[TRAIN + CALIBRATION :],
    }
    for path, chosen in parts.items():
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=images[chosen], labels=labels[chosen])
        atomic_write_bytes(path, buffer.getvalue())
        values = images[chosen] / 255
        print(f"{path.name}: {len(chosen)} images, mean {values.mean():.4f}, std {values.std():.4f}")


if __name__ == "__main__":
    main()
