"""Quantize one ONNX file: check, calibrate, write, evaluate on held-out images, compare, deliver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from edgeprune import parity
from edgeprune.artifacts.calibration import CalibrationSet
from edgeprune.artifacts.quantization import Precision, QuantizationDetails
from edgeprune.calibration import load_calibration
from edgeprune.commands.compress.quantization_stage import notes_of, notes_of_speed, write_quantized
from edgeprune.commands.quantize.mixed_precision import DROP_POINTS
from edgeprune.commands.quantize.source_file import SourceFile
from edgeprune.devices.connection import connected
from edgeprune.devices.runner import runner_on
from edgeprune.errors import (
    BudgetError,
    CalibrationError,
    OutputError,
    ProfileError,
    QuantizationError,
)
from edgeprune.evaluation.base import Measure
from edgeprune.evaluation.labels import check_classes
from edgeprune.evaluation.registry import check_drop, check_task, for_task, measure_for
from edgeprune.notes import Fact
from edgeprune.options.runs import QuantizeOptions
from edgeprune.profiling.measurer import RunSettings
from edgeprune.profiling.runner import Runner
from edgeprune.profiling.work import size_bytes
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.results import QuantizationResult
from edgeprune.sharing.model_metadata import image_entries, origin_entries, read_entries, write_entries
from edgeprune.storage.files import atomic_write_bytes, check_room, scratch_folder, sha256_file
from edgeprune.storage.ownership import remove_abandoned
from edgeprune.targets import load_target

_CHECKED = 64
"""Images besides those kept back whose outputs have to be numbers for 16 bits; 8 bits look at all."""
_WITHOUT_POINTS = (
    "leave it out and judge by the errors in the report, or say with --task what the outputs are"
)


def quantize_file(options: QuantizeOptions) -> QuantizationResult:
    """Write the quantized file atomically and report its size, accuracy and latency.

    Raises:
        QuantizationError, CalibrationError, TargetError, OutputError: see their classes.
        BudgetError: the drop exceeds ``max_drop_points``; nothing is written.
        UsageError: a node to keep is not in the file, or images do not fit.
        DeviceError: the device cannot be reached, or nothing can be measured there.
    """
    if options.calibration is None:
        raise CalibrationError(
            "no calibration data were given; accepted are a folder, an .npz file or a function"
        )
    target = load_target(options.target)
    _check_output(options)
    check_task(options, options.max_drop_points)
    with scratch_folder() as scratch, connected(options.device) as device:
        opened = SourceFile.opened(options, scratch)
        calibration = _images(options, opened)
        source = opened.prepared(calibration)
        measure = _measure(options, source, calibration)
        how = RunSettings(
            threads=options.threads or 1, batch_size=None, seed=options.seed, timeout_s=options.timeout_s
        )
        runner = runner_on(target, device, how)
        made = scratch / options.file.name
        details = write_quantized(
            source.path,
            made,
            calibration.fitting,
            IntegerSettings(
                form=integer_format(target),
                method=options.method,
                threads=how.threads,
                timeout_s=how.timeout_s,
                seed=options.seed,
            ),
            precision=options.precision,
            runner=runner,
            nodes_to_exclude=frozenset(options.kept_float),
            task_options=options,
            max_drop_points=options.max_drop_points,
        )
        if options.precision is not Precision.FP16:  # where they were looked at before anything was written
            _check_finite(options.source, measure.reference.original)
        _write_facts(options, calibration, source.path, made)
        result = _result(options, runner, calibration, source, measure, made, details)
        atomic_write_bytes(options.file, made.read_bytes(), overwrite=options.overwrite)
    return result


def _images(options: QuantizeOptions, source: SourceFile) -> CalibrationSet:
    """The calibration images, in the size of the file as far as that is known, with the truth of the task."""
    calibration, left_out = for_task(
        load_calibration(
            options.calibration,
            labels=options.labels,
            task=options.task,
            preprocessing=options.preprocessing,
            held_out_fraction=options.held_out,
            max_images=options.max_images,
            seed=options.seed,
            input_shape=source.image if len(source.image) == 3 else None,
        ),
        options,
    )
    return replace(calibration, warnings=(*calibration.warnings, *left_out))


def _measure(options: QuantizeOptions, source: SourceFile, calibration: CalibrationSet) -> Measure:
    """What the quantized file is judged by: its outputs on the held-out images against the file's own.

    Raises:
        QuantizationError: the file cannot be run, or has outputs in 16 bits that nothing can be held against.
        CalibrationError: a label has no class, or a drop is limited and there is nothing to lose.
        UsageError: the outputs do not fit the task, or have no points to lose.
    """
    held = calibration.held_out
    before = _original_outputs(source, held.images)
    if options.precision is Precision.FP16:  # in 8 bits, ranges tell the first tensor that has such values
        few = source.outputs(options.source, calibration.fitting.images[:_CHECKED])
        for outputs in (before, few):
            _check_finite(options.source, outputs)
    for batch in (calibration.fitting, held):
        check_classes(batch, before[0].shape)
    measure = measure_for(options, before, held, options.seed)
    check_drop(measure, options.max_drop_points, _WITHOUT_POINTS)
    told = measure.nothing_to_lose()
    if told is not None and options.max_drop_points is not None:
        raise CalibrationError(f"--max-drop was given, and {told}")
    return measure


def _check_finite(source: Path, outputs: parity.Outputs) -> None:
    """Check that another file's outputs can be held against these.

    Raises:
        QuantizationError: names an output with NaN or infinite values.
    """
    for number, output in enumerate(outputs):
        if not np.isfinite(output).all():
            raise QuantizationError(
                f"output {number} of {source.name} has NaN or infinite values on the calibration images, so "
                "nothing tells what fewer bits lose; accepted are models with finite outputs: check the "
                "weights and the preprocessing"
            )


def _write_facts(options: QuantizeOptions, calibration: CalibrationSet, source: Path, made: Path) -> None:
    """Put into the file how images become its input, and where it is from if the source does not tell."""
    told = read_entries(source)
    origin = told or origin_entries(source_sha256=sha256_file(options.source), seed=options.seed)
    write_entries(made, {**origin, **image_entries(calibration)})


def _original_outputs(source: SourceFile, images: Tensor) -> parity.Outputs:
    """Outputs of the file to be quantized.

    Raises:
        QuantizationError: onnxruntime cannot run it, or its outputs have different numbers of rows.
    """
    try:
        outputs = source.outputs(source.options.source, images)
    except ProfileError as error:
        raise QuantizationError(str(error)) from error
    rows = sorted({len(output) for output in outputs})
    if len(rows) > 1:
        counts = " and ".join(map(str, rows))
        raise QuantizationError(
            f"{source.options.source.name} gives outputs of {counts} rows for {len(images)} images; accepted "
            "are outputs with a row for each: leave those out that tell where values are"
        )
    return outputs


def _result(
    options: QuantizeOptions,
    runner: Runner,
    calibration: CalibrationSet,
    source: SourceFile,
    measure: Measure,
    made: Path,
    details: QuantizationDetails,
) -> QuantizationResult:
    """Size, accuracy and latency of the quantized file.

    Raises:
        BudgetError: the drop exceeds ``max_drop_points``.
    """
    names = ("fp32", options.precision.value)
    before, after = measure.reference.original, source.outputs(made, calibration.held_out.images)
    apart = parity.deviation(before, after, names=names)
    figures = measure.stages(dict(zip(names, (before, after), strict=True)))
    _check_drop(options, measure, after)
    more = measure.more(after)
    ratio = runner.measurer.ratio(*source.sized(calibration, made))
    return QuantizationResult(
        source=str(options.source),
        path=str(options.file),
        target=runner.target.name,
        precision=options.precision,
        details=details,
        size_bytes=size_bytes(made),
        source_size_bytes=size_bytes(options.source),
        accuracy_kind=measure.kind,
        accuracy=figures,
        deviation=apart,
        latency_ratio=ratio,
        notes=(
            *calibration.warnings,
            *source.notes,
            *measure.notes,
            *((Fact(f"besides {measure.kind.value}, in {names[1]}: {more}"),) if more else ()),
            *notes_of(details, runner),
            *_note_of_size(options, made),
            *_note_of_loss(options, measure, after),
            *notes_of_speed(options.precision, runner, ratio),
            *runner.measurer.cautions,
        ),
        cannot_be_judged=measure.nothing_to_lose(),
    )


def _note_of_size(options: QuantizeOptions, made: Path) -> tuple[str, ...]:
    """What to do where the file has grown; a mixture that is not smaller is the file itself, and says so."""
    before, after = size_bytes(options.source), size_bytes(made)
    if options.precision is Precision.AUTO or after <= before:
        return ()
    other = "" if options.precision is Precision.FP16 else ", or ask for --precision auto, which weighs both"
    return (
        f"the file has become larger, {after:,} bytes from {before:,}: what is added for each constant takes "
        f"more than fewer bits save; keep {options.source.name} as it is{other}",
    )


def _note_of_loss(options: QuantizeOptions, measure: Measure, outputs: parity.Outputs) -> tuple[str, ...]:
    """What to do where everything in 8 bits loses more than mixed precision would."""
    if options.precision is not Precision.INT8 or not measure.counts_points or measure.nothing_to_lose():
        return ()
    parted = measure.points_parted(outputs)
    if parted <= DROP_POINTS:
        return ()
    return (
        f"8 bits part from 32 by {parted:.1f} points on the images kept back; --precision auto puts what "
        f"harms most for what it gains back in 32 bits until at most {DROP_POINTS:g} point more is lost than "
        "by stored weights, or what --max-drop says, and stores all weights in 8",
    )


def _check_output(options: QuantizeOptions) -> None:
    """Check the output path before any work.

    Raises:
        OutputError: the file exists, is no .onnx or is the source, or its folder is missing or out of space.
    """
    output = options.file
    if output.suffix != ".onnx":
        raise OutputError(f"output {str(output)!r} is no .onnx file; name one, such as -o model-int8.onnx")
    if output.is_dir():
        raise OutputError(f"output {str(output)!r} is a folder; name a file, such as -o model-int8.onnx")
    if output.exists() and options.source.exists() and output.samefile(options.source):
        raise OutputError(f"output {str(output)!r} is the file to be quantized; name another one")
    if output.exists() and not options.overwrite:
        raise OutputError(f"output {str(output)!r} exists; name another file, or add --overwrite")
    folder = output.resolve().parent
    if not folder.is_dir():
        raise OutputError(f"there is no folder {str(folder)!r} to write to; make it first")
    remove_abandoned(folder)
    check_room(folder, str(output))


def _check_drop(options: QuantizeOptions, measure: Measure, outputs: parity.Outputs) -> None:
    limit = options.max_drop_points
    if limit is None:
        return
    drop = measure.points_lost(outputs)
    if drop > limit:
        raise BudgetError(
            f"{options.precision.value} loses {drop:.2f} points of {measure.kind.value} on the images kept "
            f"back where {limit:g} were allowed, so nothing was written; allow more, keep sensitive nodes in "
            "32 bits (--precision auto finds them, --keep-float names them), or give more calibration images"
        )
