"""Rankings in mixed precision: which channels go that do not go in single precision.

The network's passes are made under ``torch.autocast`` of the processor, which rounds what matrix products and
convolutions read as a GPU's does; sums, covariances and eliminations stay as they are. No times: a processor
says nothing of those of a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Jobs, research_data
from imagenet_data import FITTING, no_images, read_images
from imagenet_networks import lacking, trained
from resnet20 import resnet20
from safetensors.torch import load_file
from scale_gpu import agreement
from torch import Tensor, nn

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.capture.capture import capture
from edgeprune.commands.run.scoring import context_of_network, original_outputs
from edgeprune.coupling.coupling import couple
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.ranking import options_for, rank
from edgeprune.selection import select
from edgeprune.targets import load_target

Row = dict[str, Any]

RATIO, TARGET = 0.25, "rpi4"
_CIFAR = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


@dataclass(frozen=True)
class Form:
    """A precision of the passes and a seed of the draws."""

    name: str
    dtype: torch.dtype | None
    seed: int = 0


FORMS = (
    Form("single precision", None),
    Form("single precision, another seed", None, 1),
    Form("float16", torch.float16),
    Form("bfloat16", torch.bfloat16),
)
NETWORKS = {"ResNet-20": 500, "EfficientNet-Lite0": 150}
"""Images to rank on."""


def lacks() -> str | None:
    """Why nothing can be measured here."""
    return no_images() or lacking(0)


def jobs(_folder: Path, _seeds: int, _threads: int) -> Jobs:
    """Each network in each form."""
    return {
        f"{network} in {form.name}": lambda _work, n=network, f=form: _measured(n, f)
        for network in NETWORKS
        for form in FORMS
    }


class _Rounded(MaskedGame):
    """A game whose passes are made in mixed precision."""

    dtype: torch.dtype

    def _outputs(self, chosen: Tensor, masks: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", dtype=self.dtype):
            return [output.float() for output in super()._outputs(chosen, masks)]


def _network(name: str) -> tuple[nn.Module, Tensor]:
    count = NETWORKS[name]
    if name == "EfficientNet-Lite0":
        return trained(0), read_images(FITTING, 224, count)[0]
    network = resnet20().eval()
    network.load_state_dict(load_file(research_data() / "resnet20_cifar10.safetensors"))
    with np.load(research_data() / "cifar10_train_10k.npz") as train:
        pixels = torch.from_numpy(train["images"][:count]).float() / 255
    pixels = pixels.permute(0, 3, 1, 2) if pixels.shape[-1] == 3 else pixels
    return network, (pixels - _CIFAR[0, :, None, None]) / _CIFAR[1, :, None, None]


def _measured(name: str, form: Form) -> Row:
    network, images = _network(name)
    captured = capture(network, tuple(images.shape[1:]))
    coupling, batch = couple(captured), ImageBatch(images=images, labels=None)
    with torch.no_grad():
        reference = original_outputs(captured, batch)
        game = context_of_network(captured, coupling, batch, reference, ratio=RATIO).recovery_game
    if form.dtype is not None:
        game.__class__ = _Rounded
        game.dtype = form.dtype
    ranking = rank(
        game, coupling.groups, rng=np.random.default_rng([form.seed, 1]), options=options_for(coupling, RATIO)
    )
    removed = select(
        ranking.removal_costs, coupling,
        ratio=RATIO, width_quantum=load_target(TARGET).width_quantum, adapt_quantum=True,
    ).removed  # fmt: skip
    return {
        "network": name,
        "form": form.name,
        "images": len(images),
        "removed": list(removed),
        "values": ranking.values.tolist(),
        "errors": ranking.standard_errors.tolist(),
    }


def render(rows: list[Row]) -> str:
    """How far rankings agree."""
    images = ", ".join(dict.fromkeys(f"{row['images']} of {row['network']}" for row in rows))
    return (
        f"A cut of {RATIO:.0%} of the MACs, widths for {TARGET}; images: {images}. Passes under\n"
        "`torch.autocast` of the processor, which rounds what matrix products and convolutions read as a\n"
        "GPU's does; all else stays in single and double precision.\n"
        + agreement(rows, lambda row: str(row["form"]))
    )
