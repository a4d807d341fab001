"""Train DigitsNet on digits_train.npz, test it on digits_test.npz and write digits_net.safetensors.

    python examples/digits/train.py

Seeded and single-purpose; takes 6 s on two idle cores. The calibration images
(calibration/digits.npz) are not touched.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from model import digits_net
from torch import Tensor, nn

from edgeprune.options.cards import load_card
from edgeprune.storage.files import atomic_write_bytes

HERE = Path(__file__).resolve().parent
BATCH = 50


def read(name: str) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 8, 8) normalised as the card ``digits`` says, and labels (n,)."""
    card = load_card("digits")
    assert card.mean is not None
    assert card.std is not None
    with np.load(HERE / name) as data:
        images = torch.from_numpy(data["images"]).float().div(255).unsqueeze(1)
        labels = torch.from_numpy(data["labels"].astype(np.int64))
    return (images - card.mean[0]) / card.std[0], labels


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each batch moved by up to one pixel; the border is background."""
    background = images.min()
    padded = nn.functional.pad(images, (1, 1, 1, 1), value=float(background))
    y, x = torch.randint(0, 3, (2,), generator=generator).tolist()
    return padded[:, :, y : y + 8, x : x + 8]


def train(epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = read("digits_train.npz")
    model = digits_net().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order.split(BATCH):
            loss = nn.functional.cross_entropy(model(shifted(images[chosen], generator)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def correct(model: nn.Module, name: str) -> tuple[int, int]:
    """Right answers and number of images of a file."""
    images, labels = read(name)
    return int((model(images).argmax(1) == labels).sum()), len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the digits example.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE / "digits_net.safetensors")
    options = parser.parse_args()
    torch.set_num_threads(2)
    start = time.perf_counter()
    model = train(options.epochs, options.seed)
    duration_s = time.perf_counter() - start
    for name in ("digits_train.npz", "digits_test.npz"):
        right, count = correct(model, name)
        print(f"{name}: {right} of {count} right, {100 * right / count:.2f}%")
    atomic_write_bytes(options.output, safetensors.torch.save(model.state_dict()))
    print(f"{options.output.name}: {options.output.stat().st_size} bytes, trained in {duration_s:.0f} s")


if __name__ == "__main__":
    main()
