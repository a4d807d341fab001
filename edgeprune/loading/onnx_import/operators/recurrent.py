"""LSTM, GRU and plain recurrence: a node is a layer of torch, its gates in torch's order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.loading.onnx_import.operators.layers import parameter
from edgeprune.loading.onnx_import.site import Imported, Site
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import Array, Repeated, UnknownFormError

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Place in the file of each gate of torch: input, forget, cell, output; reset, update, new."""
_ACTIVATIONS = {
    "LSTM": (("Sigmoid", "Tanh", "Tanh"),),
    "GRU": (("Sigmoid", "Tanh"),),
    "RNN": (("Tanh",), ("Relu",)),
}
_LAYERS: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
_LENGTHS, _PEEPHOLES = 4, 7


@operator("LSTM", "GRU", "RNN")
def recurrent(site: Site) -> Imported:
    """A recurrent layer over all steps, from the state 0."""
    kind = str(site.node.op_type)
    weights, fed, biases = site.constant(1), site.constant(2), site.optional(3)
    direction, order = str(site.attribute("direction", "forward")), _GATES[kind]
    directions = 2 if direction == "bidirectional" else 1
    width = int(site.attribute("hidden_size", fed.shape[-1]))
    rows = (directions, len(order) * width)
    if weights.shape[:2] != rows or fed.shape != (*rows, width):
        raise UnknownFormError(f"has weights {weights.shape} and {fed.shape} for {width} units")
    _check(site, kind, directions)
    with torch.device("meta"):
        layer = _LAYERS[kind](
            weights.shape[2],
            width,
            bias=biases is not None,
            bidirectional=directions == 2,
            **_form(site, kind),
        )  # fmt: skip
    for place, suffix in enumerate(("", "_reverse")[:directions]):
        parts = {"weight_ih_l0": weights[place], "weight_hh_l0": fed[place]}
        if biases is not None:
            parts["bias_ih_l0"], parts["bias_hh_l0"] = np.split(biases[place], 2)
        for name, values in parts.items():
            setattr(layer, name + suffix, parameter(_in_order(values, order)))
    return AsInFiles(layer, backward=direction == "reverse", results=len(site.node.outputs))


def _in_order(values: Array, order: tuple[int, ...]) -> Array:
    """Rows of the gates in torch's order."""
    gates = np.split(values, len(order))
    return np.concatenate([gates[place] for place in order])


def _form(site: Site, kind: str) -> dict[str, str]:
    """The activation of a plain recurrence."""
    if kind != "RNN":
        return {}
    given = site.attribute("activations", ("Tanh",))
    return {"nonlinearity": str(given[0]).lower()}


def _check(site: Site, kind: str, directions: int) -> None:
    """Refuse what torch's layers do not compute."""
    site.require("direction", "forward", "reverse", "bidirectional")
    site.require("layout", 0)
    site.require("input_forget", 0)
    site.ignore("output_sequence")
    if kind == "GRU":
        site.require("linear_before_reset", 0, 1)
        if not site.attribute("linear_before_reset", 0):
            raise UnknownFormError("applies the reset gate before the product, and accepted is behind it")
    accepted = _ACTIVATIONS[kind]
    given = tuple(site.attribute("activations", accepted[0] * directions))
    if given not in [each * directions for each in accepted]:
        raise UnknownFormError(f"has the activations {', '.join(map(str, given))}")
    if site.attribute("clip", None) is not None:
        raise UnknownFormError("clips its states, and accepted is a layer that does not")
    if kind == "LSTM" and (peepholes := site.optional(_PEEPHOLES)) is not None and peepholes.any():
        raise UnknownFormError("has peepholes, and accepted is a layer without")
    lengths = site.optional(_LENGTHS)
    if lengths is not None and (lengths != site.shape(0)[0]).any():
        raise UnknownFormError("reads sequences of different lengths, and accepted is one length for all")
    for place in _STATES[kind]:
        _check_state(site, place)


def _check_state(site: Site, place: int) -> None:
    """Refuse a first state that is not 0."""
    if not site.has(place):
        return
    constant = site.peek(place)
    values = constant.values if isinstance(constant, Repeated) else constant
    site.taken.add(place)
    if not isinstance(values, np.ndarray) or values.any():
        raise UnknownFormError("starts from a state that is not 0, and accepted is one from 0")


class AsInFiles(nn.Module):
    """A recurrent layer with the results of ONNX: (steps, directions, batch, units), then the last states."""

    def __init__(self, layer: nn.RNNBase, *, backward: bool, results: int) -> None:
        super().__init__()
        self.layer = layer
        self._backward, self._results = backward, results

    def forward(self, steps: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run over steps (steps, batch, features)."""
        output, states = self.layer(steps.flip(0) if self._backward else steps)
        output = output.flip(0) if self._backward else output
        ways = 2 if self.layer.bidirectional else 1
        parted = output.unflatten(2, (ways, self.layer.hidden_size)).transpose(1, 2)
        results = (parted, *(states if isinstance(states, tuple) else (states,)))
        return results[: self._results] if self._results > 1 else parted
