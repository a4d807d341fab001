"""Curves of a ranking, which runs with the same one share through the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.artifacts.quality import RankingCurves
from edgeprune.caching.keys import Key, Stage
from edgeprune.commands.run.fingerprints import images_sha256
from edgeprune.commands.run.shared.keys import decided_by, reading, sha256_of, shared_store
from edgeprune.commands.run.state import Planned, Prepared, Run
from edgeprune.storage.documents import read_json
from edgeprune.storage.files import atomic_write_text

_NAME = "curves.json"


def cached_curves(
    run: Run, prepared: Prepared, planned: Planned, make: Callable[[], RankingCurves]
) -> RankingCurves:
    """The curves of the ranking of a plan: from the cache of the run, or computed now."""
    store = shared_store(run, prepared)
    if store is None:
        return make()

    def write(folder: Path, made: RankingCurves) -> None:
        atomic_write_text(folder / _NAME, json.dumps(to_jsonable(made)))

    def read(folder: Path) -> RankingCurves:
        with reading(_NAME):
            return from_jsonable(RankingCurves, read_json(folder / _NAME))

    parts = {
        **decided_by(run, prepared),
        "held-out images": images_sha256(prepared.calibration.held_out),
        "ranking": sha256_of(to_jsonable(planned.ranking)),
        "cut": repr(planned.plan.ratio_asked),
        "dropped blocks": f"{[block.add for block in planned.variant.dropped]}",
        "seed": f"{run.options.seed}",
    }
    return store.get(Key(stage=Stage.CURVES, decided_by=parts), make, write, read)
