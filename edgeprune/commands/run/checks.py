"""Checks of a run's options, and of the model and the images that they name, before work starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from edgeprune import limits
from edgeprune.accelerator import CPU, find_device
from edgeprune.artifacts.calibration import CalibrationSet
from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.model import CapturedModel, shape_words, takes_several
from edgeprune.artifacts.quantization import Precision
from edgeprune.errors import CalibrationError, ModelLoadError, UsageError
from edgeprune.evaluation.labels import check_classes
from edgeprune.evaluation.registry import check_task
from edgeprune.executors.chosen import check_address
from edgeprune.fx import tensor_leaves
from edgeprune.options.bounds import check_bounds
from edgeprune.options.project_file import check_ratio
from edgeprune.options.runs import CompressOptions
from edgeprune.profiling.runner import runner_for
from edgeprune.storage import outputs
from edgeprune.targets import load_target


def check_options(options: CompressOptions) -> None:
    """Check the option values before any stage.

    Raises:
        UsageError: names the option, its value and what is accepted.
    """
    if options.ratio is not None:
        check_ratio(options.ratio)
    check_bounds(options)
    if options.finetune is not None:
        if options.finetune.steps is not None:
            limits.FINETUNE_STEPS.check("--finetune", options.finetune.steps)
        if options.finetune.time_limit_s is not None:
            limits.TIME_S.check("--finetune", options.finetune.time_limit_s)
    _check_precision(options)
    check_address(options.executor, options.ray_address)
    if options.is_spread and find_device(options.compute_device) != CPU:
        raise UsageError(
            f"--device {options.compute_device.value} was given with workers, which rank on processors, and "
            "there is a GPU; accepted is --device cpu, or no workers"
        )
    check_task(options, options.budget.max_drop_points)
    if options.recipe is not None and options.finetune is not None:
        raise UsageError("--recipe and --finetune were both given; accepted is one way of training")
    if takes_several(options.input_shape):
        raise UsageError(
            f"--input-shape was given for several inputs, {shape_words(options.input_shape or ())}; accepted "
            "is the shape of one: leave it out, those of several are told by the calibration data"
        )
    if options.calibration is None:
        raise CalibrationError(
            "no calibration data were given; accepted are a folder of images, an .npz file or "
            "package.module:function: name one with --calibration."
        )
    if options.folder is not None:
        outputs.check_destination(options.folder, overwrite=options.overwrite, reads=read_by(options))


def read_by(options: CompressOptions) -> dict[str, str | Path | None]:
    """Paths that a run reads, by role; ``None`` for a module in memory."""
    constants = options.constants or ()
    files = constants.values() if isinstance(constants, Mapping) else [x.partition("=")[2] for x in constants]
    paths = [value for value in files if isinstance(value, (str, Path))]
    return {
        **{f"constant input {place}": path for place, path in enumerate(paths)},
        "model": None if isinstance(options.model, nn.Module) else options.model,
        "calibration data": options.calibration,
        "labels": options.labels,
        "weights": options.weights,
        "file of --arch": options.arch,
        "recipe": options.recipe,
        "metric": options.metric,
        "ranking": options.ranking,
        "target profile": options.target,
    }


def _check_precision(options: CompressOptions) -> None:
    """Check that a limited latency is known for the precision."""
    budget = options.budget
    limited = budget.max_latency_ms is not None or budget.max_latency_share is not None
    runner = runner_for(load_target(options.target), threads=1)
    if limited and options.device is None and not runner.knows(options.stored_in):
        raise UsageError(
            f"--max-latency was given with --precision {options.stored_in.value} and --target "
            f"{options.target}, whose latency in 8 bits is not known here; accepted there are --max-size, "
            "--max-memory and --max-drop, or measure on the device itself with --ssh"
        )


def check_inputs(captured: CapturedModel, options: CompressOptions) -> None:
    """Check that what was asked for takes a model of several inputs, if it is one.

    Raises:
        UsageError: 8 bits, or a task whose answers lie in one image.
    """
    if not captured.joins:
        return
    told = f"the model takes several inputs ({', '.join(captured.joins)})"
    if options.stored_in in (Precision.INT8, Precision.AUTO):
        raise UsageError(
            f"--precision {options.stored_in.value} was given, and {told}; accepted for it are fp32 and fp16"
        )
    if options.task in (Task.DETECTION, Task.SEGMENTATION):
        raise UsageError(
            f"--task {options.task.value} was given, and {told}; accepted for it are classification, "
            "regression, embedding and --metric"
        )


def check_outputs(captured: CapturedModel, calibration: CalibrationSet) -> None:
    """Check that the model's outputs are finite and that every label has a class."""
    with torch.no_grad():
        model_outputs = tensor_leaves(captured.graph_module(calibration.fitting.images[:8]))
    if not all(bool(torch.isfinite(t).all()) for t in model_outputs):
        raise ModelLoadError(
            "the model gives NaN or infinite outputs on the calibration images; accepted is a trained "
            "model with finite outputs: check the weights and the preprocessing (--mean, --std)."
        )
    check_classes(calibration.fitting, model_outputs[0].shape)
