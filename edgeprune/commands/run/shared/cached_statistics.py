"""What is observed of the original on the fitting images, which runs share through the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from edgeprune.accelerator import where_exact
from edgeprune.caching.keys import Key, Stage
from edgeprune.commands.run.shared.keys import decided_by, reading, shared_store
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.games.channel_statistics import ChannelStatistics
from edgeprune.storage.documents import read_json
from edgeprune.storage.files import atomic_write_bytes, atomic_write_text

_TENSORS, _PLACES = "statistics.safetensors", "places.json"


@dataclass(frozen=True)
class Observed:
    """The original's ``outputs``, and mean and covariance of its channels by (node, dimension)."""

    outputs: list[Tensor]
    statistics: ChannelStatistics


def cached_statistics(run: Run, prepared: Prepared, make: Callable[[], Observed]) -> Observed:
    """What was observed of the original network: from the cache of the run, or now."""
    store = shared_store(run, prepared)
    if store is None:
        return make()
    device = prepared.device

    def write(folder: Path, made: Observed) -> None:
        tensors = {f"output-{number}": output for number, output in enumerate(made.outputs)}
        for number, (mean, covariance) in enumerate(made.statistics.values()):
            tensors |= {f"mean-{number}": mean, f"covariance-{number}": covariance}
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        atomic_write_bytes(folder / _TENSORS, safetensors.torch.save(held))
        told = {"outputs": [list(o.shape) for o in made.outputs], "places": list(made.statistics)}
        atomic_write_text(folder / _PLACES, json.dumps(told))

    def read(folder: Path) -> Observed:
        with reading(_TENSORS):
            told = read_json(folder / _PLACES)
            places = [(str(node), int(dim)) for node, dim in told["places"]]
            held = safetensors.torch.load_file(folder / _TENSORS)
            outputs = [held[f"output-{number}"] for number in range(len(told["outputs"]))]
            if len(held) != len(outputs) + 2 * len(places) or not outputs:
                raise ValueError(f"{len(held)} tensors for {len(outputs)} outputs and {len(places)} places")
            if [list(output.shape) for output in outputs] != told["outputs"]:
                raise ValueError("outputs of other shapes")
            statistics = {
                place: (
                    held[f"mean-{number}"].to(device),
                    held[f"covariance-{number}"].to(where_exact(device)),
                )
                for number, place in enumerate(places)
            }
            for mean, covariance in statistics.values():
                if mean.dim() != 1 or covariance.shape != (len(mean), len(mean)):
                    raise ValueError(
                        f"a mean of {tuple(mean.shape)} and a covariance of {tuple(covariance.shape)}"
                    )
        return Observed(outputs, statistics)

    return store.get(Key(stage=Stage.STATISTICS, decided_by=decided_by(run, prepared)), make, write, read)
