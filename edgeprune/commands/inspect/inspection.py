"""Analyse a model or a file without changing it: ``inspect`` and ``profile``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgeprune.artifacts.choices import CouplingOptions
from edgeprune.artifacts.latency import Provenance
from edgeprune.artifacts.model import InputShape, InputShapes, LoadedModel, takes_several
from edgeprune.calibration import load_calibration
from edgeprune.capture.capture import capture
from edgeprune.capture.inputs import input_names
from edgeprune.commands.inspect import network_graph
from edgeprune.commands.run.report_builder import layer_rows
from edgeprune.coupling.coupling import couple
from edgeprune.devices.bundle import read_result
from edgeprune.devices.connection import Device, connected
from edgeprune.devices.host import HostDevice
from edgeprune.devices.runner import DeviceMeasurer, runner_on
from edgeprune.errors import ProfileError, UsageError
from edgeprune.onnx_io.working_copy import with_image_size
from edgeprune.options.runs import ProfileOptions
from edgeprune.profiling.figures import figures
from edgeprune.profiling.measurer import RunSettings
from edgeprune.profiling.work import size_bytes
from edgeprune.results import GroupRow, Inspection, ProfileResult
from edgeprune.storage.files import scratch_folder
from edgeprune.targets import TargetProfile, load_target


def inspect_loaded(
    loaded: LoadedModel,
    *,
    input_shape: InputShape | InputShapes | None,
    calibration: str | Path | None,
    options: CouplingOptions,
    drawing: Path | None,
    told: str | None,
) -> Inspection:
    """Couple a loaded model and list its groups; ``drawing`` is the path of the drawing, ``told`` as given.

    Raises:
        UsageError: neither the model, ``input_shape`` nor ``calibration`` gives the input shape.
        OutputError: the drawing cannot be written.
    """
    shape = input_shape or loaded.input_shape
    if shape is None and calibration is not None:
        shapes = load_calibration(calibration, input_names=input_names(loaded.module)).input_shapes
        shape = shapes if len(shapes) > 1 else shapes[0]
    if shape is None:
        raise UsageError(
            "the model does not tell the shape of its input; accepted is --input-shape such as 3x224x224, or "
            "--calibration with images of the right size."
        )
    captured = capture(loaded.module, shape)
    coupling = couple(captured, options)
    notes = (*loaded.notes, *captured.notes, *coupling.notes)
    if drawing is not None:
        network_graph.write_graph(drawing, captured, coupling, source=loaded.source, notes=notes)
    return Inspection(
        source=loaded.source,
        input_shape=captured.input_shapes if takes_several(shape) else captured.input_shape,
        parameters=captured.num_parameters,
        macs=coupling.total_macs(),
        players=coupling.num_players,
        layers=layer_rows(coupling, ()),
        groups=tuple(
            GroupRow(group=g.name, channels=len(g.players), layers=g.layers, consumers=g.consumers)
            for g in coupling.groups
        ),
        unruled_ops=coupling.unruled_ops,
        notes=notes,
        graph=told,
    )


def profile_onnx(options: ProfileOptions, threads: int) -> ProfileResult:
    """Size, work and latency of an ONNX file, and of an optional baseline, with ``threads`` threads.

    Raises:
        ProfileError: a file is missing, or cannot be loaded or run by onnxruntime, or one run takes longer
            than ``timeout_s`` seconds.
        DeviceError: the device cannot be reached, or nothing can be measured there.
        UsageError: ``result`` is damaged, or of other files; or both it and a device are given.
    """
    if options.result is not None and options.device is not None:
        raise UsageError("--result has times of a device already; give it, or --ssh or --adb, not both")
    described = load_target(options.target)
    path, baseline = Path(options.onnx_path), None if options.baseline is None else Path(options.baseline)
    paths = [path] + ([] if baseline is None else [baseline])
    how = RunSettings(
        threads=threads, batch_size=options.batch_size, seed=options.seed, timeout_s=options.timeout_s
    )
    recorded = None if options.result is None else read_result(Path(options.result), described)
    with _sized(paths, options.input_shape) as sized, connected(options.device) as device:
        runner = runner_on(described, device, how)
        measurer = recorded or _fresh(device, how, described)
        for each in sized:  # check that it runs before any figure is computed
            (recorded or runner.measurer).check(each)
        measured = [
            replace(figures(copy, measurer), size_bytes=size_bytes(given))
            for copy, given in zip(sized, paths, strict=True)
        ]
        at_hand = device is not None or recorded is not None
        predictions = [None if at_hand else runner.prediction(each) for each in sized]
        ratio = None if baseline is None else measurer.ratio(sized[1], sized[0])
    return ProfileResult(
        path=str(path),
        target=described.name,
        figures=measured[0],
        baseline_path=None if baseline is None else str(baseline),
        baseline=measured[1] if baseline is not None else None,
        latency_ratio=ratio,
        prediction=predictions[0],
        baseline_prediction=predictions[1] if baseline is not None else None,
        notes=tuple(measurer.cautions),
    )


def _fresh(device: Device | None, how: RunSettings, described: TargetProfile) -> DeviceMeasurer:
    """Measures in fresh processes, there or here, and finds out how far that is to be trusted."""
    if device is not None:
        return DeviceMeasurer(device=device, settings=how, target=described, noise_check=True)
    return DeviceMeasurer(
        device=HostDevice(), settings=how, noise_check=True, provenance=Provenance.MEASURED_ON_HOST
    )


@contextmanager
def _sized(paths: list[Path], image: tuple[int, ...] | None) -> Iterator[list[Path]]:
    """The files, or copies of those whose dynamic sizes become those of ``image``.

    Raises:
        ProfileError: a size beyond the batch stays dynamic, or is another in the file.
    """
    with scratch_folder() as scratch:
        yield [
            with_image_size(path, image, scratch / str(place), ProfileError)
            for place, path in enumerate(paths)
        ]
