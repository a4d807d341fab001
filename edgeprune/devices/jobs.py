"""One job on a device: its models as single files, and its result or the sentence for what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from edgeprune.devices.connection import Device
from edgeprune.devices.protocol import (
    FailureKind,
    MeasurementFailure,
    MeasurementJob,
    MeasurementResult,
    from_json,
)
from edgeprune.errors import DeviceError, ProfileError
from edgeprune.onnx_io.check import tensors_of
from edgeprune.onnx_io.read import read_onnx
from edgeprune.storage.files import scratch_folder, sha256_file
from edgeprune.system.imports import first_line

_LEAST_LIMIT_S = 300.0
_MODEL_LIMIT_S = 90.0
_REASON_LENGTH = 200
_OF_THE_MODEL = frozenset({FailureKind.LOAD, FailureKind.RUN})
_ADVICE = {
    FailureKind.LOAD: "give a valid ONNX file, or update onnxruntime there",
    FailureKind.RUN: "give a valid ONNX file, or update onnxruntime there",
    FailureKind.MEMORY: "end other programs there, or give a smaller model",
    FailureKind.TIME: "give a smaller model, or look whether something else keeps the device busy",
    FailureKind.VERSION: "use the script of this version of edgeprune",
}
_MOST_BYTES = 2**31 - 2**24


def run_job(device: Device, job: MeasurementJob, onnx_paths: Sequence[Path]) -> MeasurementResult:
    """Run ``job`` on the device, whose models are ``onnx_paths`` in their order.

    Raises:
        ProfileError: onnxruntime there cannot load or run a model.
        DeviceError: the device fails, or sends no result.
    """
    limit_s = _LEAST_LIMIT_S + _MODEL_LIMIT_S * len(job.models)
    with scratch_folder() as scratch:
        files = {
            model.file: single_file(path, scratch / model.file)
            for model, path in zip(job.models, onnx_paths, strict=True)
        }
        text = device.measure(job.to_json(), files, time_limit_s=limit_s)
    names = {model.name: path.name for model, path in zip(job.models, onnx_paths, strict=True)}
    return _decoded(text, device.name, names)


def _decoded(text: bytes, device: str, names: Mapping[str, str]) -> MeasurementResult:
    """The result of a job whose models are called ``names`` here; ``device`` is where it ran.

    Raises:
        ProfileError: onnxruntime there cannot load or run a model.
        DeviceError: it failed otherwise, or this is no result.
    """
    try:
        told = from_json(text)
    except ValueError as fault:
        raise DeviceError(
            f"{device} sent a result that is none ({first_line(fault, _REASON_LENGTH)}); run the same "
            "command "
            "again, and look into the memory and the disk of the device if that happens again"
        ) from fault
    if isinstance(told, MeasurementResult):
        return told
    raise failure(told, device, names)


def failure(told: MeasurementFailure, device: str, names: Mapping[str, str]) -> DeviceError | ProfileError:
    """The error for what a script has told, of models that are called ``names`` here."""
    where = "" if told.model is None else f"{names.get(told.model, told.model)}: "
    raises = ProfileError if told.kind in _OF_THE_MODEL else DeviceError
    return raises(f"{where}{told.message} (on {device}); {_ADVICE[told.kind]}")


def measured_sha256(path: Path) -> str:
    """SHA-256 of what is copied to a device for a file."""
    with scratch_folder() as scratch:
        return sha256_file(single_file(path, scratch / "model.onnx"))


def single_file(path: Path, copy: Path) -> Path:
    """The file, or a copy with what it keeps in other files.

    Raises:
        ProfileError: it is no ONNX file, or takes more than one may hold.
    """
    if not any(
        uses_external_data(tensor) for tensor in tensors_of(onnx.load(path, load_external_data=False))
    ):
        return path
    model = read_onnx(path, ProfileError)
    if model.ByteSize() > _MOST_BYTES:
        raise ProfileError(
            f"{path.name} takes more than 2 GiB with the files beside it, which is not copied to a "
            "device; give "
            "a smaller model"
        )
    copy.write_bytes(model.SerializeToString())
    return copy
