"""A bundle: models, job and script as a tar.gz for a device without a network; and what it sends back."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from edgeprune.devices.connection import JOB_NAME, RESULT_NAME, SCRIPT_NAMES, script_text
from edgeprune.devices.instruction_sets import cautioned
from edgeprune.devices.jobs import failure, measured_sha256, single_file
from edgeprune.devices.protocol import PROCESSES, MeasurementJob, MeasurementResult, ModelJob, from_json
from edgeprune.devices.recorded import RecordedMeasurer
from edgeprune.errors import UsageError
from edgeprune.options.devices import BundleOptions
from edgeprune.profiling.measurer import LATENCY_PAIRS, HostMeasurer, RunSettings
from edgeprune.storage.files import atomic_write, scratch_folder
from edgeprune.storage.outputs import MANIFEST_NAME, read_manifest
from edgeprune.targets import TargetProfile

FOLDER = "edgeprune-bench"
"""What a bundle is unpacked to."""
RUN_NAME = "run.sh"
_LARGEST_RESULT_BYTES = 64 * 2**20
_README = """\
Measures these ONNX models on this device, with Python 3.9 or later, numpy and onnxruntime:

    sh run.sh

Where numpy or onnxruntime is missing and pip works, they are installed into ./venv.
PYTHON=/path/to/python3 sh run.sh chooses another Python. It takes about {minutes}
minutes. Keep the device cool and let nothing else run. Copy
{result} back, and read it with

    edgeprune profile MODEL.onnx --result {result}

Models: {models}. The first is the baseline that the others are compared with.
"""


def write_bundle(options: BundleOptions, threads: int) -> tuple[str, ...]:
    """Write the bundle of some models; the names that they have in it, the baseline first.

    The same models and options give the same bytes.

    Raises:
        UsageError: no model, or a folder without any.
        ProfileError: a model cannot be run here.
        OutputError: the bundle exists already, or cannot be written.
    """
    settings = RunSettings(threads=threads, batch_size=options.batch_size, seed=options.seed)
    paths = _models(options.models)
    for path in paths:
        HostMeasurer(settings=settings).check(path)
    names = _names(paths)
    models = tuple(
        ModelJob(name=name, file=f"{name}.onnx", sha256=measured_sha256(path))
        for name, path in zip(names, paths, strict=True)
    )
    job = MeasurementJob(
        threads=threads,
        models=models,
        batch_size=options.batch_size,
        seed=options.seed,
        pairs=tuple((names[0], name) for name in names[1:]),
        least_pairs=LATENCY_PAIRS,
        time_limit_s=options.time_limit_s,
        per_operator=True,
        pairs_alone=True,
        noise_check=True,
        processes=PROCESSES,
    )
    atomic_write(
        options.output, lambda stream: _write_archive(stream, job, paths), overwrite=options.overwrite
    )
    return names


def read_result(path: Path, target: TargetProfile | None = None) -> RecordedMeasurer:
    """What the script of a bundle has written.

    Raises:
        UsageError: it is missing, damaged, or of another schema.
        DeviceError: the device says that it failed.
        ProfileError: the device says that a model cannot be run there.
    """
    try:
        if path.stat().st_size > _LARGEST_RESULT_BYTES:
            raise UsageError(f"{str(path)!r} is too large for a result; give the {RESULT_NAME} of a bundle")
        told = from_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{str(path)!r} cannot be read ({error.strerror}); give the {RESULT_NAME} that {RUN_NAME} of a "
            "bundle wrote on the device"
        ) from error
    except ValueError as fault:
        raise UsageError(
            f"{str(path)!r} is no result of a measurement ({fault}); copy the {RESULT_NAME} of the "
            "device again"
        ) from fault
    if not isinstance(told, MeasurementResult):
        raise failure(told, f"the device that wrote {path.name}", {})
    return RecordedMeasurer(result=cautioned(told, target), source=path.name)


def _models(given: Sequence[str | Path]) -> list[Path]:
    """ONNX files; those of a folder are what ``compress`` has listed in its manifest, in 32 bits first."""
    paths: list[Path] = []
    for each in map(Path, given):
        if not each.is_dir():
            paths.append(each)
            continue
        manifest = read_manifest(each)
        if manifest is None:
            raise UsageError(f"{str(each)!r} is no folder that compress wrote: it has no {MANIFEST_NAME}")
        listed = [each / file.path for file in manifest.outputs]
        own = [path for path in listed if path.suffix == ".onnx" and path.parent == each]
        if not own:
            raise UsageError(f"{str(each)!r} has no ONNX file; give the output folder of compress")
        paths += sorted(own, key=lambda path: (path.stem == "model", path.name))
    if not paths:
        raise UsageError("no model was given; accepted are ONNX files and output folders of compress")
    return paths


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Names for a job: plain characters, each once."""
    names: list[str] = []
    for path in paths:
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in path.stem)[:60]
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return tuple(names)


def _write_archive(stream: BinaryIO, job: MeasurementJob, paths: Sequence[Path]) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in _texts(job):
            _add(archive, name, content)
        for model, path in zip(job.models, paths, strict=True):
            with scratch_folder() as scratch:
                _add(archive, model.file, single_file(path, scratch / model.file).read_bytes())


def _texts(job: MeasurementJob) -> Iterator[tuple[str, bytes]]:
    """Files other than models, by their names."""
    readme = _README.format(
        minutes=len(job.models), result=RESULT_NAME, models=", ".join(model.file for model in job.models)
    )
    yield "README.txt", readme.encode()
    yield JOB_NAME, job.to_json()
    for name in (RUN_NAME, *SCRIPT_NAMES):
        yield name, script_text(name).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file without owner and time."""
    entry = tarfile.TarInfo(f"{FOLDER}/{name}")
    entry.size, entry.mode = len(content), 0o755 if name == RUN_NAME else 0o644
    archive.addfile(entry, io.BytesIO(content))
