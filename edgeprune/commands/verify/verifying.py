"""Compare two models: their outputs, and the first inner tensor that diverges."""

from __future__ import annotations

from pathlib import Path

import torch

from edgeprune import parity
from edgeprune.calibration import load_calibration
from edgeprune.capture.capture import capture
from edgeprune.commands.verify.first_divergence import (
    Traced,
    first_apart,
    inner_deviations,
    traced_onnx,
    traced_torch,
)
from edgeprune.coupling.plugins import ruled_operators
from edgeprune.errors import ParityError, ProfileError, UsageError
from edgeprune.loading import load_model
from edgeprune.onnx_io.inputs import only_input
from edgeprune.onnx_io.passes.normal_form import Sizes
from edgeprune.onnx_io.read import read_onnx
from edgeprune.options.runs import VerifyOptions
from edgeprune.results import Verification


def verify_models(options: VerifyOptions, threads: int) -> Verification:
    """Compare two models on calibration images.

    Raises:
        ModelLoadError, CaptureError, ProfileError, CalibrationError: a model or the images cannot be used.
        ParityError: the models' outputs differ in number or shape.
        UsageError: a tolerance that is not positive, or two models that tell no input shape.
    """
    if not options.tolerance > 0:
        raise UsageError(f"--tolerance {options.tolerance:g} was given; accepted is a number above 0")
    pair = str(options.first), str(options.second)
    shape = _image_sizes(pair)
    calibration = load_calibration(
        options.calibration,
        labels=options.labels,
        preprocessing=options.preprocessing,
        max_images=options.max_images,
        seed=options.seed,
        input_shape=shape,
    )
    images = torch.cat([calibration.fitting.images, calibration.held_out.images])
    first, second = (_open(name, options, calibration.input_shape, threads) for name in pair)
    before, after = first.outputs(images), second.outputs(images)
    deviation = parity.deviation(before, after, names=pair)
    tensors = tuple(inner_deviations(first, second, images))
    apart = first_apart(tensors, options.tolerance)
    return Verification(
        deviation=deviation,
        tolerance=options.tolerance,
        passed=deviation.relative_error <= options.tolerance,
        tensors=tensors,
        first_diverging=None if apart is None else apart.name,
    )


def require(verification: Verification) -> None:
    """Raise if the outputs differ by more than the tolerance.

    Raises:
        ParityError: states by how much they differ, and where that begins.
    """
    if verification.passed:
        return
    begins = "no inner tensor has the same name and shape in both"
    if verification.tensors:
        begins = "no common inner tensor differs by as much"
    if verification.first_diverging is not None:
        begins = f"the first inner tensor beyond it is {verification.first_diverging}"
    shown = verification.deviation
    raise ParityError(
        f"{shown.candidate} differs from {shown.reference} by {shown.relative_error:.2e} of the largest "
        "output, "
        f"accepted is {verification.tolerance:.0e}; {begins}"
    )


def _open(name: str, options: VerifyOptions, shape: tuple[int, ...], threads: int) -> Traced:
    if _is_onnx(name):
        return traced_onnx(Path(name), threads, timeout_s=options.timeout_s)
    loaded = load_model(
        name,
        architecture=options.arch,
        arch_kwargs=options.arch_kwargs,
        weights=options.weights,
        weights_key=options.weights_key,
        trust_pickle=options.trust_pickle,
        input_shape=shape,
        operators=ruled_operators(),
    )
    return traced_torch(capture(loaded.module, shape).graph_module)


def _is_onnx(name: str) -> bool:
    return name.endswith(".onnx")


def _image_sizes(names: tuple[str, str]) -> Sizes | None:
    """Sizes of an image, as far as the ONNX files among the models tell, the first one before the second."""
    told: list[Sizes] = []
    for path in map(Path, filter(_is_onnx, names)):
        taken = only_input(read_onnx(path, ProfileError), path, ProfileError)
        if taken.may_be_image:
            told.append(taken.image)
    return tuple(next((s for s in each if s is not None), None) for each in zip(*told, strict=True)) or None
