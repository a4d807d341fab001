"""What is noted while a candidate is built goes with the candidate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch.fx import Graph, GraphModule

from edgeprune.artifacts.pruning import RecoveryReport
from edgeprune.commands.run.state import Pruned, Run
from edgeprune.commands.run.training import build
from edgeprune.options.runs import CompressOptions


def test_a_candidate_has_the_notes_of_its_making(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = Pruned(
        bare=GraphModule({}, Graph()),
        recovered=GraphModule({}, Graph()),
        recovery=RecoveryReport(steps=(), images=3, deciding_images=2, duration_s=0.1),
        parity=(),
    )

    def noting(run: Run, *_: object) -> Pruned:
        run.note("recovery had nothing to gain")
        run.notes.append("and more")
        return made

    monkeypatch.setattr(build, "prune_and_recover", noting)
    run, none = Run(options=CompressOptions(model="net.pt", calibration="images")), object()
    run.note("of the run")
    candidate = build.build_candidate(run, none, none)  # type: ignore[arg-type]
    assert candidate == replace(made, notes=("recovery had nothing to gain", "and more"))
    assert run.notes == ["of the run"]
    assert build.build(run, none, none) is made  # type: ignore[arg-type]
    assert run.notes == ["of the run", "recovery had nothing to gain", "and more"]
