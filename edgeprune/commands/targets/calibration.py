"""``edgeprune targets calibrate``: a device's own profile from times of small networks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnxruntime
import torch

from edgeprune.artifacts.quantization import IntegerFormat, RangeMethod
from edgeprune.commands.targets.fitting import Device, FittedTables, MeasuredNetwork, fit_tables, with_threads
from edgeprune.commands.targets.grid import GridPoint, grid
from edgeprune.commands.targets.grid_files import SMALLEST, GridFile, grid_files
from edgeprune.commands.targets.measuring import MeasureFiles, NetworkTime, measure_here
from edgeprune.errors import QuantizationError, TargetError
from edgeprune.profiling.costs import far_from, node_cost
from edgeprune.profiling.kinds import OpKind
from edgeprune.profiling.runtime.graph import Kernels, kernels_of, runtime_work
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.storage.files import scratch_folder
from edgeprune.system.host import machine_description
from edgeprune.system.progress import task
from edgeprune.targets import Calibration, TargetProfile, describe_host

_WITH_THREADS_EVERY = 4
_LEAST_MEASURED = 0.5
"""Share of the files."""
_COVERAGE = 0.9


class MeasuredDevice(Protocol):
    """A device to calibrate; ``machine``, ``runtime`` and ``cores`` are asked once it has measured."""

    @property
    def facts(self) -> TargetProfile:
        """What is known of it."""
        ...

    @property
    def machine(self) -> str:
        """What measured, in words."""
        ...

    @property
    def runtime(self) -> str:
        """The onnxruntime there."""
        ...

    @property
    def cores(self) -> int | None:
        """That can be used; ``None``: those of its facts."""
        ...

    @property
    def measure(self) -> MeasureFiles:
        """Times ONNX files there."""
        ...


@dataclass(frozen=True, kw_only=True)
class ThisHost:
    """This machine."""

    facts: TargetProfile = field(default_factory=describe_host)
    machine: str = field(default_factory=machine_description)
    runtime: str = f"onnxruntime {onnxruntime.__version__}"
    cores: int | None = None
    measure: MeasureFiles = measure_here


def calibrate(
    name: str, device: MeasuredDevice, *, points: Sequence[GridPoint] | None = None
) -> TargetProfile:
    """A profile of the device with tables, by measuring the grid there in 32 and 8 bits.

    ``points``: the blocks of the grid that are measured; all where ``None``.

    Raises:
        TargetError: too few networks could be measured.
        ProfileError: a network cannot be run.
    """
    facts = device.facts
    chosen = grid() if points is None else tuple(points)
    began = time.monotonic()
    with scratch_folder("grid-") as folder:
        files = _written(grid_files(chosen), facts, folder)
        kernels = kernels_of(facts)
        measured = _measured(files, device.measure(files, 1), kernels)
        single = tuple(network for network in measured if network.name != SMALLEST)
        if len(measured) < _LEAST_MEASURED * len(files) or not single:
            raise TargetError(
                f"only {len(measured)} of {len(files)} networks could be measured; see that "
                "onnxruntime runs there"
            )
        us_per_run = 1e3 * sum(network.time_ms for network in measured if network.name == SMALLEST)
        asked = Device(quantum=facts.width_quantum, far_from_bytes=far_from(facts))
        fitted = fit_tables(single, asked, us_per_run)
        threads, more = device.cores or facts.cores or 1, files[1::_WITH_THREADS_EVERY]
        several = _measured(more, device.measure(more, threads), kernels) if threads > 1 else ()
    count, spent_s = len(measured) + len(several), time.monotonic() - began
    profile = _profile(name, device, fitted, us_per_run, count, spent_s)
    return _with_threads(profile, single, several, threads) if several else profile


def _written(files: Sequence[GridFile], facts: TargetProfile, folder: Path) -> list[Path]:
    """The files of the grid."""
    written = []
    form = integer_format(facts)
    with task("writing small networks", len(files)) as advance:
        for file in files:
            path = folder / f"{file.name}.onnx"
            onnx.save(file.model(), path)
            if not file.in_8_bits:
                written.append(path)
            else:
                signed = form.signed_activations != file.other_sign
                written += _in_8_bits(path, replace(form, signed_activations=signed))
            advance(1)
    return written


def _in_8_bits(path: Path, chosen: IntegerFormat) -> list[Path]:
    """The file in 8 bits, with ranges of random images; none where nothing of it can be."""
    made = path.with_name(f"{path.stem}-quantized.onnx")
    sizes = [d.dim_value for d in onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim]
    images = torch.randn(*sizes, generator=torch.Generator().manual_seed(0))
    settings = IntegerSettings(form=chosen, method=RangeMethod.MINMAX, equalized=False, corrected=False)
    try:
        quantize_integers(path, made, images, settings)
    except QuantizationError:
        return []
    model = onnx.load(str(made))
    for place, node in enumerate(model.graph.node):
        # Shares of the time are told by names of nodes.
        node.name = node.name or f"node{place}"
    onnx.save(model, made)
    path.unlink()
    return [made]


def _measured(
    files: Sequence[Path], times: Sequence[NetworkTime | None], kernels: Kernels
) -> tuple[MeasuredNetwork, ...]:
    return tuple(
        MeasuredNetwork(
            name=path.stem, operations=work.operations, time_ms=spent.time_ms, shares=spent.shares
        )
        for path, spent in zip(files, times, strict=True)
        if spent is not None and spent.time_ms > 0
        for work in (runtime_work(path, kernels),)
        if not work.note
    )


def _profile(
    called: str,
    device: MeasuredDevice,
    fitted: FittedTables,
    us_per_run: float,
    count: int,
    spent_s: float,
) -> TargetProfile:
    ratios = np.array(fitted.held_out)
    low, high = (float(np.quantile(ratios, q)) for q in ((1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2))
    facts, where = device.facts, device.machine
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    tables = Calibration(
        machine=where,
        date=today,
        runtime=device.runtime,
        edgeprune=metadata.version("edgeprune"),
        measurements=count,
        nodes=fitted.nodes,
        measured_s=round(spent_s, 1),
        held_out_median_error=round(float(np.median(np.abs(ratios - 1.0))), 4),
        us_per_run=round(us_per_run, 3),
        error_low_factor=round(min(1.0, low), 3),
        error_high_factor=round(max(1.0, high), 3),
        error_coverage=_COVERAGE,
        kinds=fitted.kinds,
    )
    source = f"measured by edgeprune targets calibrate on {where}, {today}"
    return replace(
        facts,
        name=called,
        display_name=f"{called}, calibrated on {facts.cpu_name or 'its processor'}",
        aliases=(),
        roofline=None,
        calibration=tables,
        sources={**facts.sources, "calibration": source},
    )


def _with_threads(
    profile: TargetProfile,
    single: Sequence[MeasuredNetwork],
    several: Sequence[MeasuredNetwork],
    threads: int,
) -> TargetProfile:
    """The profile with what threads gain, by networks measured with one and with all."""
    assert profile.calibration is not None
    cost, alone = node_cost(profile, 1), {network.name: network.time_ms for network in single}
    times = []
    for network in several:
        if network.name not in alone:
            continue
        nodes = [cost(op) for op in network.operations if op.kind is not OpKind.FREE]
        worked = sum(n.latency_ms for n in nodes if n.work.macs > 0)
        share = worked / max(1e-9, sum(n.latency_ms for n in nodes))
        times.append((share * alone[network.name], (1 - share) * alone[network.name], network.time_ms))
    improved = with_threads(profile.calibration.kinds, times, threads)
    return replace(profile, calibration=replace(profile.calibration, kinds=improved))
