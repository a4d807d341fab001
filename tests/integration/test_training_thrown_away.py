"""Training that is thrown away leaves what a run without training delivers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import edgeprune

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"


def compressed(folder: Path, **more: Any) -> edgeprune.RunReport:
    return edgeprune.compress(
        DIGITS / "digits_net.safetensors",
        arch=f"{DIGITS / 'model.py'}:digits_net",
        calibration=ROOT / "calibration" / "digits.npz",
        target="rpi4",
        ratio=0.3,
        max_images=120,
        rounds=False,
        threads=1,
        pictures=False,
        effort=edgeprune.Effort.QUICK,
        output=folder,
        **more,
    )


def test_recovery_has_all_images_again_where_training_is_thrown_away(tmp_path: Path) -> None:
    plain = compressed(tmp_path / "plain")
    trained = compressed(tmp_path / "trained", finetune=edgeprune.Finetune(steps=1))
    assert trained.recovery.distillation is not None
    assert trained.recovery.distillation.kept_step == 0
    assert trained.recovery.images == plain.recovery.images
    assert any("recovery ran again on all 90 images" in note for note in trained.notes)
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("plain", "trained"))
    assert first.keys() == second.keys()
    assert all(bool((first[key] == second[key]).all()) for key in first)
    assert "fine-tuned" in [figure.stage for figure in trained.accuracy]
    assert trained.accuracy[-1].value == pytest.approx(plain.accuracy[-1].value)
