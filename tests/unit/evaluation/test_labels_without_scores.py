"""Labels that cannot be used are told, since accuracy is what their owner expects."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.evaluation.base import Reference
from edgeprune.evaluation.by_outputs import OutputMeasure
from edgeprune.evaluation.labels import Labels

SCORES = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
CLASSES = Labels(classes=np.arange(12) % 3)


@pytest.mark.parametrize(
    ("outputs", "shapes"),
    [([SCORES, SCORES], "several outputs"), ([SCORES[:, :, None]], "an output of 3 dimensions")],
)
def test_labels_of_a_model_without_class_scores_are_told(outputs, shapes):
    measure = OutputMeasure(Reference(outputs, CLASSES))
    assert measure.kind is AccuracyKind.RELATIVE_ERROR
    (note,) = measure.notes
    assert note.startswith(f"labels were not used: the model has {shapes}")
    assert OutputMeasure(Reference(outputs)).notes == ()


def test_class_scores_with_labels_are_judged_by_them():
    measure = OutputMeasure(Reference([SCORES], CLASSES))
    assert (measure.kind, measure.notes) == (AccuracyKind.TOP1, ())
