"""The metric that the documentation shows is one: it follows the labels, and has points to lose."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.evaluation.registry import measure_for
from edgeprune.options.subjects import TaskOptions

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to.md"


def example() -> str:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (code,) = (block for block in blocks if "(outputs, images, labels)" in block)
    return str(code)


def test_it_compares_with_the_labels(tmp_path: Path) -> None:
    (tmp_path / "metric.py").write_text(example(), encoding="utf-8")
    labels = torch.arange(40) % 2
    held_out = ImageBatch(images=torch.zeros(40, 1, 4, 4), labels=labels)
    right = np.eye(2, dtype=np.float32)[labels.numpy()]
    options = TaskOptions(metric=f"{tmp_path / 'metric.py'}:trust")
    for original in (4 * right, np.clip(right, 0.1, 0.9)):
        measure = measure_for(options, [original], held_out)
        assert measure.counts_points
        values = [measure.figure([outputs]).value for outputs in (original, original / 2, original[:, ::-1])]
        assert values == sorted(values, reverse=True)
        assert values[0] > 0.5 > values[2]
