"""What follows a pruning in the coupling benchmark: replay on the user's class, and ONNX."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coupling_child import SEED, Progress, prepare, reason_of
from coupling_models import BenchModel
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeprune import apply_surgery
from edgeprune.capture.export import export_program
from edgeprune.errors import SurgeryError
from edgeprune.exporting import export_onnx, save_program, save_surgery
from edgeprune.fx import tensor_leaves

CHECK_IMAGES = 2
TOLERANCE = 1e-5
"""Largest difference of a replayed class from the graph in float32, relative to the largest output."""


def after_pruning(
    model: BenchModel, pruned: nn.Module, recipe: dict[str, Any], progress: Progress, *, with_onnx: bool
) -> None:
    """Export, replay and run in onnxruntime; each failure is a fact of its own and stops nothing."""
    images = torch.rand((CHECK_IMAGES, *model.input_shape))
    with torch.no_grad():
        expected = tuple(tensor_leaves(pruned(images)))
    program = None
    try:
        with progress.stage("export"):
            program = export_program(pruned, images)
    except Exception as error:
        progress.tell(onnx_error=reason_of(error))
    with progress.stage("replay"):
        found = replay(model, pruned, recipe, program, (images, expected))
    progress.tell(**found)
    if with_onnx and program is not None:
        try:
            with progress.stage("onnx"):
                deviation = onnx_deviation(program, images, expected)
            progress.tell(onnx_deviation=deviation)
        except Exception as error:
            progress.tell(onnx_error=reason_of(error))


def replay(
    model: BenchModel,
    pruned: nn.Module,
    recipe: dict[str, Any],
    program: ExportedProgram | None,
    example: tuple[Tensor, tuple[Tensor, ...]],
) -> dict[str, Any]:
    """The recipe on a fresh model of the user's class, with the files that a run writes beside it."""
    images, expected = example
    torch.manual_seed(SEED)
    fresh = prepare(model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_surgery(recipe, {**fresh.state_dict(), **pruned.state_dict()}, folder)
        if program is not None:
            save_program(program, folder / "model.pt2")
        try:
            replayed = apply_surgery(fresh, folder / "surgery.json", folder / "weights.safetensors")
        except SurgeryError as error:
            return {"replay": "refused", "replay_reason": str(error)}
        except Exception as error:
            return {"replay": "wrong", "replay_reason": reason_of(error)}
    with torch.no_grad():
        deviation = distance(expected, tuple(tensor_leaves(replayed(images))))
    outcome = {"replay": "equal", "replay_deviation": deviation}
    if not deviation <= TOLERANCE:
        outcome.update(replay="wrong", replay_reason=f"outputs differ by {deviation:.1e}")
    return outcome


def onnx_deviation(program: ExportedProgram, images: Tensor, expected: tuple[Tensor, ...]) -> float:
    """Write the program as ONNX, run it in onnxruntime, and compare with torch in float32."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        export_onnx(program, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return distance(expected, tuple(torch.from_numpy(np.asarray(f)) for f in found))


def distance(expected: tuple[Tensor, ...], got: tuple[Tensor, ...]) -> float:
    """Largest difference relative to the largest value; infinite where shapes differ or NaN appears."""
    if [t.shape for t in expected] != [t.shape for t in got]:
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        found = float((a - b).abs().max() / a.abs().max())
        worst = max(worst, float("inf") if math.isnan(found) else found)
    return worst
