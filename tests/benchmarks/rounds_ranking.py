"""The ranking that ``compress`` makes, in rounds where the cut is deep, of a captured network."""

from __future__ import annotations

from torch import nn

from edgeprune.artifacts.calibration import CalibrationSet, ImageBatch, Preprocessing
from edgeprune.artifacts.choices import HOST
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel, LoadedModel, ModelFormat
from edgeprune.artifacts.pruning import Ranking
from edgeprune.commands.run.iterative_pruning import RoundsRanker
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.options.runs import CompressOptions
from edgeprune.targets import load_target


def ranked_in_rounds(
    module: nn.Module,
    captured: CapturedModel,
    coupling: CouplingGraph,
    images: ImageBatch,
    *,
    ratio: float,
    seed: int,
) -> Ranking:
    """Rank for a cut of ``ratio`` of the MACs on ``images``, all of which are fitted to."""
    prepared = Prepared(
        loaded=LoadedModel(module=module, format=ModelFormat.MODULE, source="benchmark"),
        calibration=CalibrationSet(
            fitting=images, held_out=images, preprocessing=Preprocessing(), source="benchmark",
            fingerprint_sha256="",
        ),
        captured=captured,
        coupling=coupling,
        target=load_target(HOST),  # rankings do not ask for it
    )  # fmt: skip
    run = Run(options=CompressOptions(model=module, calibration=None, seed=seed))
    return RoundsRanker(run, prepared).at(ratio)
