"""Read the two files that describe a pruning: the recipe and the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeprune.errors import SurgeryError
from edgeprune.limits import MOST_INPUT_VALUES
from edgeprune.loading.tensors import check_finite, check_tensors
from edgeprune.loading.weights import read_safetensors
from edgeprune.showing import first_few, in_short
from edgeprune.storage.documents import UnreadableError, read_json
from edgeprune.system.imports import first_line

READABLE_VERSIONS = ("1.0", "1.1", "1.2", "1.3")
_SHOWN = 3
_MOST_DIGITS = 18


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe as read: kept positions by parameter and dimension; the rest is empty in older versions.

    ``shapes`` are the original shapes of all tensors of the graph; ``input_shapes`` are without the batch;
    ``module_sizes`` gives, by module, all new sizes of each size in its own forward pass.
    """

    path: Path
    kept: Mapping[str, Mapping[int, Tensor]]
    shapes: Mapping[str, tuple[int, ...]]
    input_shapes: tuple[tuple[int, ...], ...] | None
    module_sizes: Mapping[str, Mapping[int, tuple[int, ...]]]


def listed(names: Sequence[str], *, quoted: bool = True) -> str:
    """The first few names and how many more."""
    return first_few([repr(name) for name in names] if quoted else names, _SHOWN)


def read_recipe(path: Path) -> Recipe:
    """Read ``surgery.json``.

    Raises:
        SurgeryError: missing, not JSON, of an unknown schema version or malformed.
    """
    try:
        content = read_json(path)
    except UnreadableError as error:
        raise SurgeryError(
            f"{str(path)!r} {error}; accepted is the path of the surgery.json that edgeprune compress wrote"
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version not in READABLE_VERSIONS:
        raise SurgeryError(
            f"{str(path)!r} has the schema version {in_short(version)}; this version of edgeprune reads "
            f"{', '.join(READABLE_VERSIONS)}: compress again, or use the version that wrote it"
        )
    if blocks := content.get("dropped_blocks"):
        told = listed([str(b) for b in blocks]) if isinstance(blocks, list) else in_short(blocks)
        raise SurgeryError(
            f"{str(path)!r} drops whole residual blocks ({told}), which "
            "the code of a class goes on to run; take the rewritten graph, model.pt2, or search with "
            "--keep-blocks"
        )
    try:
        return _parsed(path, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SurgeryError(
            f"{str(path)!r} is malformed ({first_line(error)}); compress again, or restore the file as it "
            "was written"
        ) from error


def _parsed(path: Path, content: dict[str, Any]) -> Recipe:
    kept = {
        name: {_dimension(name, dim): _indices(name, keep) for dim, keep in dims.items()}
        for name, dims in content["kept_indices"].items()
    }
    shapes = {name: _sizes(name, shape) for name, shape in content.get("original_shapes", {}).items()}
    single = content.get("input_shape")
    given = content.get("input_shapes", None if single is None else [single])
    module_sizes = {
        module: {_dimension(module, old): _become(module, new) for old, new in sizes.items()}
        for module, sizes in content.get("module_sizes", {}).items()
    }
    return Recipe(
        path=path,
        kept=kept,
        shapes=shapes,
        input_shapes=None if given is None else tuple(map(_input_shape, given)),
        module_sizes=module_sizes,
    )


def _dimension(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"{name} has a dimension {in_short(text)}")
    return int(text)


def _indices(name: str, values: object) -> Tensor:
    whole = isinstance(values, list) and values and all(type(v) is int and v >= 0 for v in values)
    if not whole or values != sorted(set(values)):  # type: ignore[call-overload]
        raise ValueError(f"the kept indices of {name} are not ascending whole numbers")
    return torch.tensor(values)


def _sizes(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(v) is int and v >= 0 for v in values):
        raise ValueError(f"{name} has a shape that is no list of whole numbers")
    return tuple(values)


def _become(name: str, values: object) -> tuple[int, ...]:
    sizes = _sizes(name, values)
    if not sizes:
        raise ValueError(f"{name} has a size of which nothing has become")
    return sizes


def _input_shape(values: object) -> tuple[int, ...]:
    shape = _sizes("input_shape", values)
    if 0 in shape or math.prod(shape) > MOST_INPUT_VALUES:
        raise ValueError(
            f"input_shape {in_short(list(shape))} is none of 1 to {MOST_INPUT_VALUES} values in all"
        )
    return shape


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read ``weights.safetensors``: dense, finite tensors of real numbers.

    Raises:
        SurgeryError: missing, not a safetensors file, or one of other tensors.
    """
    weights = read_safetensors(
        path,
        error=SurgeryError,
        remedy="accepted is the path of the weights.safetensors that edgeprune compress wrote",
    )
    check_tensors(weights.items(), str(path), error=SurgeryError)
    check_finite(weights.items(), str(path), error=SurgeryError, remedy="compress again, or train anew")
    return weights
