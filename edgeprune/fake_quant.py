"""Fake quantization: weights rounded to their 8-bit values, in floating point."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.attributes import get_attribute
from edgeprune.fx import RECURRENT

STEPS = 127
"""Steps of a symmetric weight on either side of 0, as onnxruntime rounds."""
_REDUCED_STEPS = 64

LARGEST = float(np.finfo(np.float32).max)
"""Largest finite float32."""
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Smallest normal float32: onnxruntime replaces smaller scales by 1, which rounds the values to zero."""


def steps_of(form: IntegerFormat) -> int:
    """Steps of a weight on either side of 0."""
    return _REDUCED_STEPS if form.reduce_range else STEPS


def rounded(weight: FloatArray, form: IntegerFormat) -> FloatArray:
    """Round a weight (output channels, ...) to 8 bits with a symmetric scale per output channel.

    A following norm scales whole channels, so folding it in first makes no difference.
    """
    scale = np.abs(weight).reshape(len(weight), -1).max(axis=1) / steps_of(form)
    scale = np.where(scale >= SMALLEST_SCALE, scale, 1.0).reshape(-1, *[1] * (weight.ndim - 1))
    return np.asarray(np.round(weight / scale) * scale)


def round_weight(weight: Tensor, form: IntegerFormat) -> None:
    """Round a weight in place, as :func:`rounded` does."""
    exact = weight.detach().double().cpu().numpy()
    with torch.no_grad():
        weight.copy_(torch.from_numpy(rounded(exact, form)))


def round_layers(module: nn.Module, coupling: CouplingGraph, form: IntegerFormat) -> dict[str, Tensor]:
    """Round the weights of all layers of ``module`` in place; return the exact ones by path.

    Transposed convolutions, whose output channels come second, and recurrent layers, which are not stored in
    8 bits, stay unchanged.
    """
    exact: dict[str, Tensor] = {}
    for layer in coupling.layers:
        first = coupling.parameter_players.get((layer.weight, 0))
        out_first = first is None or np.array_equal(first, layer.out_players)
        if not out_first or layer.weight in exact or layer.op in RECURRENT:
            continue
        weight = get_attribute(module, layer.weight)
        exact[layer.weight] = weight.detach().clone()
        round_weight(weight, form)
    return exact
