"""Rankings that runs on the same network and images share through the cache."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from edgeprune.artifacts.choices import DEFAULT_CRITERION
from edgeprune.artifacts.pruning import Ranking
from edgeprune.caching.keys import Key, Stage
from edgeprune.commands.run.kept_stages import noted, ranking_of, record_of
from edgeprune.commands.run.shared.keys import decided_by, reading, shared_store
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.importance.registry import criterion, is_ours
from edgeprune.storage.documents import read_json
from edgeprune.storage.files import atomic_write_text

_log = logging.getLogger("edgeprune.commands")
_NAME = "ranking.json"
_NOTHING: Mapping[str, str] = MappingProxyType({})


def cached_ranking(
    run: Run,
    prepared: Prepared,
    ratio: float,
    make: Callable[[], Ranking],
    by: str | None = None,
    further: Mapping[str, str] = _NOTHING,
) -> Ranking:
    """The ranking for a cut of ``ratio`` of the MACs, and its notes: from the cache of the run, or made now.

    It is made without the cache where the run has none, where ``max_time_s`` cuts what is computed to the
    speed of the moment, and where the criterion is not of edgeprune, whose code nobody knows here.
    ``by`` is the criterion where the options of the run do not say it; ``further``: what else decides.
    """
    store, asked = shared_store(run, prepared), by or run.options.criterion or DEFAULT_CRITERION
    if store is None:
        return make()
    if run.options.max_time_s is not None or not is_ours(criterion(asked)):
        _log.info(
            "the ranking is not taken from the cache: --max-time or a criterion of one's own decides it"
        )
        return make()

    def write(folder: Path, made: tuple[Ranking, list[str]]) -> None:
        atomic_write_text(folder / _NAME, json.dumps(record_of(*made)))

    def read(folder: Path) -> tuple[Ranking, list[str]]:
        with reading(_NAME):
            record = read_json(folder / _NAME)
            found = ranking_of(record, prepared.coupling.num_players)
            notes = record["notes"]
            if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
                raise ValueError("notes that are no texts")
            run.notes.extend(notes)
        _log.info("the ranking for a cut of %.0f%% is in the cache", 100 * ratio)
        return found, []

    parts = {
        **decided_by(run, prepared),
        "criterion": asked,
        "cut": repr(ratio),
        "rounds": f"{run.options.rounds}",
        "effort": run.options.effort.value,
        "seed": f"{run.options.seed}",
        **further,
    }
    key = Key(stage=Stage.RANKING, decided_by=parts)
    ranking, _ = store.get(key, lambda: noted(run, make), write, read)
    return ranking
