"""Compare two models: their outputs, and the first inner tensor that diverges."""

from __future__ import annotations

from pathlib import Path

import torch

from edgeprune import parity
from edgeprune.artifacts.choices import HOST
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
from edgeprune.devices.emulation.cores import core_of
from edgeprune.devices.emulation.running import emulated_instructions, emulated_outputs
from edgeprune.errors import DeviceError, ParityError, ProfileError, UsageError
from edgeprune.loading import load_model
from edgeprune.onnx_io.inputs import only_input
from edgeprune.onnx_io.passes.normal_form import Sizes
from edgeprune.onnx_io.read import read_onnx
from edgeprune.options.runs import VerifyOptions
from edgeprune.results import Verification
from edgeprune.targets import load_target


def verify_models(options: VerifyOptions, threads: int) -> Verification:
    """Compare two models on calibration images.

    Raises:
        ModelLoadError, CaptureError, ProfileError, CalibrationError: a model or the images cannot be used.
        ParityError: the models' outputs differ in number or shape.
        UsageError: a tolerance that is not positive, or two models that tell no input shape.
    """
    if not options.tolerance > 0:
        raise UsageError(f"--tolerance {options.tolerance:g} was given; accepted is a number above 0")
    if options.emulate:
        return verify_emulated(options, threads)
    if options.second is None or options.target != HOST:
        raise UsageError(
            "a single model, or --target, was given without --emulate; accepted are two models, or one .onnx "
            "file with --target NAME --emulate"
        )
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


def verify_emulated(options: VerifyOptions, threads: int) -> Verification:
    """Compare an ONNX file here with itself on an emulated core of the target.

    Raises:
        UsageError: it is no ONNX file, a second model was given, or the target has no core that is known.
        DeviceError: qemu or its system is missing, or the file does not run there.
    """
    path = Path(options.first)
    if options.second is not None or not _is_onnx(str(path)):
        raise UsageError(
            f"--emulate was given with {str(options.second or path)!r}; accepted is a single .onnx file, "
            "which is compared with itself on the core of --target"
        )
    core = core_of(load_target(options.target))
    taken = only_input(read_onnx(path, ProfileError), path, ProfileError)
    calibration = load_calibration(
        options.calibration,
        preprocessing=options.preprocessing,
        max_images=options.max_images,
        seed=options.seed,
        input_shape=taken.image if taken.may_be_image else None,
    )
    batch = taken.batch or 1
    images = torch.cat([calibration.fitting.images, calibration.held_out.images])
    images = images[: len(images) - len(images) % batch]
    before = parity.run_onnx(path, images, threads=threads, timeout_s=options.timeout_s)
    after = emulated_outputs(path, taken.name, images, core)
    deviation = parity.deviation(before, after, names=(path.name, f"{path.name} on an emulated {core.name}"))
    counts, reason = None, None
    try:
        counts = emulated_instructions(path, taken.name, images[:batch], core)
    except DeviceError as error:  # the outputs are known all the same
        reason = str(error)
    return Verification(
        deviation=deviation,
        tolerance=options.tolerance,
        passed=deviation.relative_error <= options.tolerance,
        tensors=(),
        first_diverging=None,
        emulated_core=core.name,
        instructions=counts,
        uncounted=reason,
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
