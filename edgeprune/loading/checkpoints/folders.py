"""Weights in a folder as transformers and others save it: one safetensors file, or several with an index."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgeprune.errors import ModelLoadError
from edgeprune.loading.weights import read_safetensors
from edgeprune.showing import first_few, shown_in_cell
from edgeprune.storage.documents import UnreadableError, read_json
from edgeprune.storage.files import sha256_file

INDEX = "model.safetensors.index.json"
NAMES = ("model.safetensors", INDEX, "pytorch_model.bin")
"""Files of weights, or the index of several, that a folder may have."""
_SUFFIX = ".safetensors"
_LISTED = 3
_MOST_FILES = 1000
_AGAIN = "copy or download the folder again"


def weights_in(folder: Path) -> Path | None:
    """The file with the weights, or the index of several; ``None`` where there is none of these names."""
    names = [name for name in NAMES if (folder / name).is_file()]
    return folder / names[0] if names else None


def read_shards(index: Path) -> tuple[dict[str, Tensor], list[str], str]:
    """Tensors of all files that an index lists, a note on them, and a SHA-256 over all of these files.

    Raises:
        ModelLoadError: the index is malformed, names files elsewhere, or does not fit what the files hold.
    """
    placed = _weight_map(index)
    tensors: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    names = sorted(set(placed.values()))
    for name in names:
        shard = index.parent / name
        content = read_safetensors(shard)
        due = {key for key, file in placed.items() if file == name}
        if apart := sorted(due ^ content.keys()):
            raise ModelLoadError(
                f"{str(shard)!r} and {index.name} disagree on {len(apart)} tensors "
                f"({first_few([shown_in_cell(key) for key in apart], _LISTED)}); {_AGAIN}"
            )
        tensors.update(content)
        digest.update(sha256_file(shard).encode())
    return tensors, [f"weights taken from {len(names)} files that {index.name} lists"], digest.hexdigest()


def _weight_map(index: Path) -> dict[str, str]:
    try:
        content: Any = read_json(index)
    except UnreadableError as error:
        raise ModelLoadError(f"{str(index)!r} {error}; {_AGAIN}") from error
    placed = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(placed, dict) or not placed or not all(isinstance(v, str) for v in placed.values()):
        raise ModelLoadError(f"{str(index)!r} has no 'weight_map' from tensors to files; {_AGAIN}")
    for name in sorted(set(placed.values())):
        if Path(name).name != name or "\\" in name or not name.endswith(_SUFFIX):
            raise ModelLoadError(
                f"{str(index)!r} names the file {shown_in_cell(name)!r}; accepted are {_SUFFIX} files "
                "beside it"
            )
        if not (index.parent / name).is_file():
            raise ModelLoadError(
                f"{str(index)!r} names the file {shown_in_cell(name)!r}, which is not beside it; {_AGAIN}"
            )
    if len(set(placed.values())) > _MOST_FILES:
        raise ModelLoadError(f"{str(index)!r} names more than {_MOST_FILES} files; {_AGAIN}")
    return placed
