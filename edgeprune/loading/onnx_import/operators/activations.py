"""Activations and softmax."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.loading.onnx_import.operators.layers import parameter
from edgeprune.loading.onnx_import.site import Imported, Operation, Site
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import UnknownFormError

_PLAIN: dict[str, Operation] = {
    "Relu": functional.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softsign": functional.softsign,
    "HardSwish": functional.hardswish,
    "Mish": functional.mish,
}
_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


@operator(*_PLAIN)
def plain_activation(site: Site) -> Imported:
    """One without attributes that count."""
    site.ignore("consumed_inputs")
    return _PLAIN[site.node.op_type]


@operator("LeakyRelu")
def leaky_relu(site: Site) -> Imported:
    """With one slope for negative values."""
    return partial(functional.leaky_relu, negative_slope=float(site.attribute("alpha", 0.01)))


@operator("PRelu")
def prelu(site: Site) -> Imported:
    """A layer where each channel has its slope, or all have one."""
    shape = site.shape(1)
    if site.is_constant(1):
        channels, rank = site.shape(0)[1], site.rank()
        own = (1,) * (rank - 1 - len(shape)) + shape if len(shape) < rank else shape[1:]
        by_channel = rank > 1 and own[:1] == (channels,) and math.prod(shape) == channels
        if math.prod(shape) == 1 or by_channel:
            slope = site.constant(1).reshape(-1)
            layer = nn.PReLU(len(slope))
            layer.weight = parameter(slope)
            return layer
    return _general_prelu


def _general_prelu(values: Tensor, slope: Tensor) -> Tensor:
    return torch.where(values < 0, values * slope, values)


@operator("Elu")
def elu(site: Site) -> Imported:
    """Exponential below zero."""
    return partial(functional.elu, alpha=float(site.attribute("alpha", 1.0)))


@operator("Celu")
def celu(site: Site) -> Imported:
    """Exponential below zero, with a continuous derivative."""
    return partial(functional.celu, alpha=float(site.attribute("alpha", 1.0)))


@operator("Selu")
def selu(site: Site) -> Imported:
    """Scaled exponential below zero, with its usual constants."""
    alpha, gamma = float(site.attribute("alpha", _SELU[0])), float(site.attribute("gamma", _SELU[1]))
    if np.allclose((alpha, gamma), _SELU):
        return torch.selu
    return partial(_general_selu, factors=(alpha, gamma))


def _general_selu(values: Tensor, *, factors: tuple[float, float]) -> Tensor:
    alpha, gamma = factors
    return gamma * functional.elu(values, alpha)


@operator("ThresholdedRelu")
def thresholded_relu(site: Site) -> Imported:
    """Zero up to a threshold."""
    return partial(functional.threshold, threshold=float(site.attribute("alpha", 1.0)), value=0.0)


@operator("HardSigmoid")
def hard_sigmoid(site: Site) -> Imported:
    """Torch's own where its slope is a sixth."""
    alpha, beta = float(site.attribute("alpha", 0.2)), float(site.attribute("beta", 0.5))
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and math.isclose(beta, 0.5, rel_tol=1e-6):
        return functional.hardsigmoid
    return partial(_general_hard_sigmoid, line=(alpha, beta))


def _general_hard_sigmoid(values: Tensor, *, line: tuple[float, float]) -> Tensor:
    slope, middle = line
    return torch.clamp(values * slope + middle, 0.0, 1.0)


@operator("Clip")
def clip(site: Site) -> Imported:
    """Limits are attributes, or inputs in later opsets."""
    least, most = site.number("min", 1), site.number("max", 2)
    if least is None and most is None:
        return identity
    if least == 0.0 and most == 6.0:
        return functional.relu6
    return partial(torch.clamp, min=least, max=most)


def identity(values: Tensor) -> Tensor:
    """The same."""
    return values


@operator("Identity")
def same(site: Site) -> Imported:  # noqa: ARG001 - every importer takes it
    """Nothing is done."""
    return identity


@operator("Dropout")
def dropout(site: Site) -> Imported:
    """Nothing is dropped in inference."""
    site.ignore("ratio", "seed", "is_test", "consumed_inputs")
    site.one_output()
    site.optional(1)
    training = site.optional(2)
    if training is not None and training.any():
        raise UnknownFormError("is in training mode: export the model in evaluation mode")
    return identity


@operator("Softplus")
def softplus(site: Site) -> Imported:  # noqa: ARG001 - every importer takes it
    """Logarithm of one plus the exponential."""
    return functional.softplus


@operator("Gelu")
def gelu(site: Site) -> Imported:
    """Exact or by a hyperbolic tangent."""
    site.require("approximate", "none", "tanh")
    return partial(functional.gelu, approximate=site.attribute("approximate", "none"))


@operator("Swish")
def swish(site: Site) -> Imported:
    """Times its own sigmoid."""
    alpha = float(site.attribute("alpha", 1.0))
    return functional.silu if alpha == 1.0 else partial(_general_swish, steepness=alpha)


def _general_swish(values: Tensor, *, steepness: float) -> Tensor:
    return values * torch.sigmoid(steepness * values)


@operator("Softmax", "LogSoftmax")
def softmax(site: Site) -> Imported:
    """Along an axis; before opset 13 over all dimensions from it on."""
    function = torch.softmax if site.node.op_type == "Softmax" else torch.log_softmax
    if site.opset >= 13:
        return partial(function, dim=site.axis("axis", -1))
    axis = site.axis("axis", 1)
    if axis == site.rank() - 1:
        return partial(function, dim=axis)
    if all(size == 1 for size in site.shape(0)[axis + 1 :]):
        return partial(function, dim=axis)
    return partial(_over_all, first=axis, logarithm=site.node.op_type == "LogSoftmax")


def _over_all(values: Tensor, *, first: int, logarithm: bool) -> Tensor:
    flat = values.flatten(first)
    result = flat.log_softmax(-1) if logarithm else flat.softmax(-1)
    return result.reshape(values.shape)
