"""Read safetensors files and load them into a module with exactly the same tensors."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edgeprune.errors import EdgepruneError, ModelLoadError
from edgeprune.loading.tensors import check_finite, check_tensors
from edgeprune.storage.documents import UnreadableError, check_regular
from edgeprune.system.imports import first_line


def read_safetensors(
    path: Path, *, error: type[EdgepruneError] = ModelLoadError, remedy: str = "copy or download it again"
) -> dict[str, Tensor]:
    """Tensors of a file by name.

    Raises:
        EdgepruneError: of class ``error``; the file is missing, or its header and content do not fit.
    """
    try:
        check_regular(path)
        return safetensors.torch.load_file(path, device="cpu")
    except UnreadableError as fault:
        raise error(f"{str(path)!r} {fault}; {remedy}") from fault
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, AttributeError) as fault:
        raise error(f"{str(path)!r} is a damaged safetensors file ({first_line(fault)}); {remedy}") from fault


def put_weights(module: nn.Module, path: Path) -> None:
    """Load a file that edgeprune wrote into ``module`` (changed in place).

    Raises:
        ModelLoadError: the file is damaged, holds other tensors than the module has, or values that are not
            finite where the module has finite ones.
    """
    weights, expected = read_safetensors(path), module.state_dict()
    check_tensors(weights.items(), str(path))
    was_finite = {name for name, tensor in expected.items() if bool(torch.isfinite(tensor).all())}
    check_finite(((name, tensor) for name, tensor in weights.items() if name in was_finite), str(path))
    same = weights.keys() == expected.keys() and all(
        (weights[name].shape, weights[name].dtype) == (tensor.shape, tensor.dtype)
        for name, tensor in expected.items()
    )
    if not same:
        raise ModelLoadError(f"{str(path)!r} holds other tensors than were written there")
    module.load_state_dict(weights)
