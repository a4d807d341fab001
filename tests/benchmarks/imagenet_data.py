"""ImageNet images of the research data: 500 to fit with, 250 that only judge; and how networks are judged."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import research_data
from imagenet_networks import MEAN, STD
from PIL import Image
from torch import Tensor

Row = dict[str, Any]

FITTING, TEST = "imagenet_calibration_500.zip", "imagenet_test_250.zip"
_BATCH = 25


def no_images() -> str | None:
    """Why there are no images, ``None`` where there are."""
    folder = research_data()
    missing = [name for name in (FITTING, TEST) if not (folder / name).is_file()]
    return f"{' and '.join(missing)} missing in {folder}" if missing else None


def read_images(name: str, size: int, limit: int | None) -> tuple[Tensor, Tensor]:
    """Preprocessed crops (n, 3, size, size) from the centre and class indices (n,), at most ``limit``."""
    crops, labels = [], []
    with zipfile.ZipFile(research_data() / name) as archive:
        for entry in sorted(archive.namelist())[:limit]:
            with Image.open(io.BytesIO(archive.read(entry))) as image:
                width, height = image.size
                left, top = (width - size) // 2, (height - size) // 2
                crop = image.convert("RGB").crop((left, top, left + size, top + size))
            crops.append(torch.from_numpy(np.array(crop)).permute(2, 0, 1))
            labels.append(int(entry.split("_")[0]))
    found = torch.empty(len(crops), 3, size, size)
    for place, pixels in enumerate(crops):
        found[place] = (pixels.float() / 255 - MEAN) / STD
    return found, torch.tensor(labels)


def write_folder(folder: Path, limit: int | None) -> None:
    """The images to fit with as files of one flat folder: no labels."""
    folder.mkdir()
    with zipfile.ZipFile(research_data() / FITTING) as archive:
        archive.extractall(folder, members=sorted(archive.namelist())[:limit])


@torch.no_grad()
def answers(network: Any, images: Tensor) -> Tensor:
    """Class scores (n, 1000)."""
    return torch.cat([network(part) for part in torch.split(images, _BATCH)])


def judged(outputs: Tensor, original: Tensor, labels: Tensor) -> Row:
    """Top-1, share of the images on which the original says the same, and divergence from its answers.

    ``hits`` has a character for each image, 1 where it is told rightly.
    """
    own, first = outputs.log_softmax(1), original.log_softmax(1)
    hits = outputs.argmax(1) == labels
    return {
        "top1": float(hits.float().mean()),
        "agreement": float((outputs.argmax(1) == original.argmax(1)).float().mean()),
        "divergence": float((first.exp() * (first - own)).sum(1).mean()),
        "hits": "".join("1" if hit else "0" for hit in hits.tolist()),
        "test_images": len(labels),
    }
