"""Facts inside an ONNX file (``metadata_props``): where it is from, and how an image becomes its input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnx
from onnx import ModelProto

from edgeprune.artifacts.calibration import CalibrationSet, Preprocessing
from edgeprune.artifacts.codec import to_jsonable
from edgeprune.storage.files import atomic_write_bytes

PREFIX = "edgeprune."
CLASS_SCORES, OTHER_OUTPUTS = "class scores", "other"
_RESAMPLING = "bilinear, antialiased; uint8 pixels are rounded to whole steps"


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """What was removed: share of the MACs, number of channels, names of residual blocks."""

    macs_removed_share: float = 0.0
    channels_removed: int = 0
    blocks_dropped: tuple[str, ...] = ()


def image_entries(calibration: CalibrationSet) -> dict[str, str]:
    """How images become the input (``preprocessing``), the kind of the outputs, names of classes if known."""
    entries = {
        f"{PREFIX}preprocessing": preprocessing_text(calibration.preprocessing),
        f"{PREFIX}outputs": CLASS_SCORES if calibration.fitting.class_scores else OTHER_OUTPUTS,
    }
    if calibration.class_names:
        entries[f"{PREFIX}labels"] = _text(calibration.class_names)
    return entries


def origin_entries(*, source_sha256: str | None, seed: int, plan: PlanFacts | None = None) -> dict[str, str]:
    """Version of edgeprune, hash of the given file (none for a network given by name), plan and seed."""
    entries = {f"{PREFIX}version": metadata.version("edgeprune"), f"{PREFIX}seed": str(seed)}
    if source_sha256 is not None:
        entries[f"{PREFIX}source_sha256"] = source_sha256
    if plan is not None:
        entries[f"{PREFIX}plan"] = _text(plan)
    return entries


def preprocessing_text(preprocessing: Preprocessing) -> str:
    """The steps as JSON, in the order in which they are applied."""
    steps = {"resampling": _RESAMPLING, "scale": "1/255", **to_jsonable(preprocessing)}
    return _text(steps)


def write_entries(path: Path, entries: Mapping[str, str]) -> None:
    """Put entries into an ONNX file; others that it has stay. The same entries give the same bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    model: ModelProto = ModelProto.FromString(path.read_bytes())
    merged = {**entries_of(model), **entries}
    del model.metadata_props[:]
    for key in sorted(merged):
        model.metadata_props.add(key=key, value=merged[key])
    atomic_write_bytes(path, model.SerializeToString(deterministic=True))


def carry_entries(source: Path, destination: Path) -> None:
    """Give a file the entries of edgeprune that the file has from which it was made."""
    entries = read_entries(source)
    if entries and read_entries(destination) != entries:
        write_entries(destination, entries)


def read_entries(path: Path) -> dict[str, str]:
    """The entries of edgeprune in a file that was read before; empty where it has none."""
    found = entries_of(onnx.load_model(str(path), load_external_data=False, format="protobuf"))
    return {key: value for key, value in found.items() if key.startswith(PREFIX)}


def entries_of(model: ModelProto) -> dict[str, str]:
    """All entries of a model, of whatever origin."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _text(value: object) -> str:
    return json.dumps(to_jsonable(value), separators=(",", ":"))
