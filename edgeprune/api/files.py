"""What is done with files as they are: ``bundle``, ``profile``, ``quantize`` and ``verify``."""

from __future__ import annotations

from dataclasses import replace

import torch

from edgeprune.commands.inspect.inspection import profile_onnx
from edgeprune.commands.quantize.quantizing import quantize_file
from edgeprune.commands.verify.verifying import verify_models
from edgeprune.devices.bundle import write_bundle
from edgeprune.options.bounds import check_bounds
from edgeprune.options.devices import BundleOptions
from edgeprune.options.runs import ProfileOptions, QuantizeOptions, VerifyOptions
from edgeprune.options.signatures import called_with
from edgeprune.results import ProfileResult, QuantizationResult, Verification


@called_with(ProfileOptions)
def profile(options: ProfileOptions) -> ProfileResult:
    """Size, work and latency of an ONNX file: measured here or on a device, or predicted for a target.

    Loading a file, and one run of it, take ``timeout_s`` seconds at most.

    Args:
        target: device profile by name, alias or path.
        device: where the file is measured, over ssh or adb (:class:`DeviceOptions`); this machine where
            ``None``.
        result: ``result.json`` of a bundle (:func:`bundle`) that ran on the device: its times, of this very
            file, in place of a measurement.
        input_shape: channels, height and width of one image; needed where the file leaves any of them open.

    Raises:
        ProfileError: a file cannot be loaded or run by onnxruntime, or not in time.
    """
    return profile_file(options)


def profile_file(options: ProfileOptions) -> ProfileResult:
    """:func:`profile` with its options in one."""
    check_bounds(options)
    return profile_onnx(options, options.threads or torch.get_num_threads())


@called_with(BundleOptions)
def bundle(options: BundleOptions) -> tuple[str, ...]:
    """Write a tar.gz with models, a measuring job and ``run.sh``, for a device without a network.

    The ``result.json`` that it writes there is read by ``profile(result=...)``. Returns the names of the
    models in it, the baseline first.

    Args:
        models: ONNX files, and output folders of ``compress``, which stand for their ONNX files; all are
            compared with the first.
        output: the ``.tar.gz``; it appears whole or not at all.
        threads: of onnxruntime on the device; as many as here where ``None``.
        batch_size: of inputs whose batch is open; 1 where ``None``.
        time_limit_s: longest time of the measurement there.

    Raises:
        ProfileError: a file cannot be loaded or run by onnxruntime.
        OutputError: the output exists already, or cannot be written.
    """
    check_bounds(options)
    return write_bundle(options, options.threads or torch.get_num_threads())


@called_with(VerifyOptions)
def verify(options: VerifyOptions) -> Verification:
    """Hold two models, torch or ONNX, against each other on calibration images.

    Args:
        first: the reference: an ``.onnx`` file or a model as in :func:`compress`.
        second: what is compared with it; left out where ``emulate``.
        tolerance: largest error of an output, over the largest output, that passes; the first inner tensor
            whose relative error is beyond it is named.
        target: whose processor core is emulated.
        emulate: hold ``first``, an ONNX file, here against itself on an emulated core of ``target``.
        timeout_s: longest time of loading an ONNX file, and of one run of it; status 10 beyond.

    Raises:
        EdgepruneError: one sentence; each subclass carries the command line's exit status.
    """
    return verify_pair(options)


def verify_pair(options: VerifyOptions) -> Verification:
    """:func:`verify` with its options in one."""
    check_bounds(options)
    return verify_models(options, options.threads or torch.get_num_threads())


@called_with(QuantizeOptions)
def quantize(options: QuantizeOptions) -> QuantizationResult:
    """Write an ONNX file, of edgeprune or not, in 8 or 16 bits, and judge it on images that are kept back.

    Args:
        onnx_path: a 32-bit file of opset 7 on with one image input; its sizes may be dynamic.
        calibration: as in :func:`compress`; ranges of activations come from these images.
        output: the file to write; it appears whole or not at all.
        input_shape: channels, height and width that dynamic sizes are fixed at; in 8 bits those of the images
            where ``None``.
        batch_size: fixed batch of the file that is written; as in ``onnx_path`` where ``None``.
        precision: ``INT8``, or ``FP16`` for weights stored in 16 bits.
        target: decides the 8-bit form: signed or unsigned, 7 or 8 bits of weights.
        device: where files are measured, over ssh or adb (:class:`DeviceOptions`), so that ``AUTO``
            decides by times from there; this machine where ``None``.
        method: which part of the values seen an 8-bit scale covers.
        max_drop_points: refuse to write a file that loses more percentage points.
        task: what the network is for; points are of its measure; ``metric`` and ``boxes`` are as in
            :func:`compress`.
        kept_float: names of nodes that stay in 32 bits.
        timeout_s: longest time of loading the model, and of one run of it.

    Raises:
        QuantizationError: the file cannot be quantized.
        BudgetError: more is lost than allowed.
        EdgepruneError: one sentence; each subclass carries the command line's exit status.
    """
    return quantize_onnx(options)


def quantize_onnx(options: QuantizeOptions) -> QuantizationResult:
    """:func:`quantize` with its options in one."""
    check_bounds(options)
    return quantize_file(replace(options, threads=options.threads or torch.get_num_threads()))
