"""Recovered networks, which runs that remove the same channels share through the cache."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from torch.fx import GraphModule

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.artifacts.pruning import RecoveryReport
from edgeprune.caching.keys import Key, Stage
from edgeprune.commands.run.kept_stages import with_weights, write_weights
from edgeprune.commands.run.shared.keys import decided_by, reading, shared_store
from edgeprune.commands.run.state import Prepared, Run, Variant
from edgeprune.storage.documents import read_json
from edgeprune.storage.files import atomic_write_text

_log = logging.getLogger("edgeprune.commands")
_WEIGHTS, _REPORT = "weights.safetensors", "recovery.json"

Recovered = tuple[GraphModule, RecoveryReport]


def cached_recovery(
    run: Run,
    prepared: Prepared,
    variant: Variant,
    bare: GraphModule,
    removed: tuple[int, ...],
    make: Callable[[], Recovered],
    *,
    trains: bool,
) -> Recovered:
    """The network ``bare`` recovered, and the report: from the cache of the run, or made now.

    ``trains``: training follows, so that the images that judge it are left out.
    """
    store = shared_store(run, prepared)
    if store is None:
        return make()

    def write(folder: Path, made: Recovered) -> None:
        network, report = made
        write_weights(network, folder / _WEIGHTS)
        atomic_write_text(folder / _REPORT, json.dumps(to_jsonable(report)))

    def read(folder: Path) -> Recovered:
        with reading(f"{_WEIGHTS}, {_REPORT}"):
            report = from_jsonable(RecoveryReport, read_json(folder / _REPORT))
            network = with_weights(bare, folder / _WEIGHTS)
        _log.info("the recovered network is in the cache")
        return network, report

    parts = {
        **decided_by(run, prepared),
        "removed": f"{removed}",
        "dropped blocks": f"{[block.add for block in variant.dropped]}",
        "seed": f"{run.options.seed}",
        "effort": run.options.effort.value,
        "training follows": f"{trains}",
    }
    return store.get(Key(stage=Stage.RECOVERY, decided_by=parts), make, write, read)
