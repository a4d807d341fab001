"""Ranking and recovery on a GPU beside the processor: time, and whether the same channels go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Jobs, NotMeasuredError
from imagenet_data import FITTING, answers, judged, no_images, read_images
from imagenet_networks import lacking, trained
from torch import Tensor, nn

from edgeprune.accelerator import find_device, in_words, moved, repeatable
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import ComputeDevice
from edgeprune.capture.capture import capture
from edgeprune.commands.run.scoring import context_of_network, original_outputs
from edgeprune.coupling.coupling import couple
from edgeprune.importance.ranking import options_for, rank
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.recovery.splitting import split_images
from edgeprune.selection import select
from edgeprune.system.host import machine_description
from edgeprune.targets import load_target

Row = dict[str, Any]

SIZE, RATIO, TARGET = 224, 0.25, "rpi4"
IMAGES = {"EfficientNet-Lite0": 500, "ResNet-50, random weights": 1000}
RUNS = (
    ("EfficientNet-Lite0", ComputeDevice.CUDA, 0),
    ("EfficientNet-Lite0", ComputeDevice.CUDA, 1),
    ("ResNet-50, random weights", ComputeDevice.CUDA, 0),
    ("EfficientNet-Lite0", ComputeDevice.CPU, 0),
    ("ResNet-50, random weights", ComputeDevice.CPU, 0),
)
"""The second seed shows how far two rankings differ by the draw alone."""
_ROUNDING = 1e-6
"""Of the largest value: below, a value is what single precision leaves of zero."""


def lacks() -> str | None:
    """Why nothing can be measured here."""
    return no_images() or lacking(0)


def jobs(_folder: Path, _seeds: int, threads: int) -> Jobs:
    """Each network on each device."""
    return {
        f"{network} on {device.value}, seed {seed}": lambda _work, n=network, d=device, s=seed: _measured(
            n, d, s, threads
        )
        for network, device, seed in RUNS
    }


def _network(name: str) -> nn.Module:
    if name == "EfficientNet-Lite0":
        return trained(0)
    from torchvision.models import resnet50

    torch.manual_seed(0)
    return resnet50(weights=None).eval()


def _images(count: int) -> Tensor:
    """Images to fit with, mirrored ones behind them."""
    found, _ = read_images(FITTING, SIZE, None)
    return torch.cat([found, found.flip(-1)])[:count]


@torch.no_grad()
def _measured(name: str, asked: ComputeDevice, seed: int, threads: int) -> Row:
    if asked is ComputeDevice.CUDA and not torch.cuda.is_available():
        raise NotMeasuredError("there is no GPU")
    captured = capture(_network(name), (3, SIZE, SIZE))
    coupling, images = couple(captured), _images(IMAGES[name])
    batch, device = ImageBatch(images=images, labels=None), find_device(asked)
    quantum, settings = load_target(TARGET).width_quantum, options_for(coupling, RATIO)
    row: Row = {"network": name, "device": asked.value, "seed": seed, "images": len(images)}
    row["where"] = in_words(device) if device.type == "cuda" else f"processor, {threads} threads"
    row["machine"] = f"{machine_description()}, torch {torch.__version__}"
    with repeatable(asked):
        with _timed(row, "statistics_s", device):
            running = replace(captured, graph_module=moved(captured.graph_module, device))
            reference = original_outputs(running, batch)
            context = context_of_network(captured, coupling, batch, reference, ratio=RATIO, device=device)
        with _timed(row, "ranking_s", device):
            ranking = rank(
                context.recovery_game, coupling.groups, rng=np.random.default_rng([seed, 1]), options=settings
            )
        row["image_passes"] = ranking.evaluations * settings.batch
        removed = select(
            ranking.removal_costs, coupling, ratio=RATIO, width_quantum=quantum, adapt_quantum=True
        ).removed
        row["removed"] = list(removed)
        row["values"] = ranking.values.tolist()
        row["errors"] = ranking.standard_errors.tolist()
        bare, split = prune(captured, coupling, removed), split_images(images, _generator(seed))
        with _timed(row, "recovery_s", device):
            recovered, _ = reconstruct(
                captured.graph_module,
                bare,
                coupling,
                removed,
                split,
                generator=_generator(seed),
                device=device,
            )
    if name == "EfficientNet-Lite0":
        test, labels = read_images("imagenet_test_250.zip", SIZE, None)
        row |= judged(answers(recovered, test), answers(captured.graph_module, test), labels)
    return row


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextmanager
def _timed(row: Row, name: str, device: torch.device) -> Iterator[None]:
    started = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize()
    row[name] = time.perf_counter() - started


def render(rows: list[Row]) -> str:
    """Times, and how far the rankings agree."""
    text = (
        f"Images of {SIZE} pixels, a cut of {RATIO:.0%} of the MACs, widths for {TARGET}. *statistics*: the\n"
        "original's outputs, means and covariances at every mask point. *ranking*: values by gradients and\n"
        "removal costs; its eliminations run on the processor. *images/s*: images that pass forward and\n"
        "backward, over the whole ranking. *recovery*: in closed form. Durations of single runs.\n\n"
        "| network | images | seed | where | statistics | ranking | images/s | recovery | top-1 "
        "| agreement | machine |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        quality = [f"{row[k]:.1%}" if k in row else "" for k in ("top1", "agreement")]
        text += (
            f"| {row['network']} | {row['images']} | {row['seed']} | {row['where']} "
            f"| {row['statistics_s']:.0f} s | {row['ranking_s']:.0f} s "
            f"| {row['image_passes'] / row['ranking_s']:.0f} | {row['recovery_s']:.0f} s "
            f"| {' | '.join(quality)} | {row['machine']} |\n"
        )
    return text + agreement(rows, lambda row: f"{row['device']}, seed {row['seed']}")


def agreement(rows: list[Row], told: Callable[[Row], str]) -> str:
    """Pairs of rankings of the same network; ``told`` says what one is."""
    text = (
        "\n## The same ranking\n\nChannels that only one of two rankings removes, the correlation of\n"
        "values, and the share of values that differ by more than two standard errors.\n\n"
        "| network | rankings | channels removed | removed by one alone | correlation | differ |\n"
        "|---|---|---|---|---|---|\n"
    )
    for number, one in enumerate(rows):
        for other in rows[number + 1 :]:
            if one["network"] != other["network"]:
                continue
            values = [np.array(r["values"]) for r in (one, other)]
            rounding = _ROUNDING * float(np.abs(values[0]).max())
            apart = np.abs(values[0] - values[1]) > 2 * np.nan_to_num(np.array(one["errors"])) + rounding
            alone = set(one["removed"]) ^ set(other["removed"])
            pair = " and ".join(map(told, (one, other)))
            text += (
                f"| {one['network']} | {pair} | {len(one['removed'])} | {len(alone)} "
                f"| {np.corrcoef(*values)[0, 1]:.6f} | {apart.mean():.2%} |\n"
            )
    return text
