"""Rules of LSTM, GRU and plain recurrent layers: a hidden unit leaves all layers and directions of one op."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.artifacts.coupling import BatchLayout
from edgeprune.coupling.context import Context, Labelling, rows_per_image
from edgeprune.coupling.labels import Atoms
from edgeprune.coupling.layout import image_layout, mask
from edgeprune.coupling.membership import Membership, rows_of_images
from edgeprune.coupling.rules.layers import add_weighted
from edgeprune.coupling.rules.table import freeze_all, rule
from edgeprune.fx import RECURRENT, op_name

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True, kw_only=True)
class RecurrentCall:
    """Operands of a recurrent op, parameters by layer and direction: weights of input and hidden state, then
    both biases if there are any."""

    source: Node
    states: tuple[Node, ...]
    parameters: tuple[tuple[Node, ...], ...]
    directions: int
    batch_first: bool

    @property
    def hidden(self) -> Node:
        """Weights of the hidden state (gates x units, units) of the first layer."""
        return self.parameters[0][1]


def recurrent_call(node: Node) -> RecurrentCall | None:
    """What a node computes; ``None`` for packed sequences and projected states."""
    if len(node.args) != 9 or not isinstance(node.args[0], Node):
        return None
    read, states, given, has_biases, layers, _, _, bidirectional, batch_first = node.args
    assert isinstance(read, Node)
    assert isinstance(given, (list, tuple))
    assert isinstance(layers, int)
    ways = 2 if bidirectional else 1
    each = 4 if has_biases else 2
    parameters = [p for p in given if isinstance(p, Node)]
    if len(given) != each * layers * ways or len(parameters) != len(given):
        return None
    several = states if isinstance(states, (list, tuple)) else (states,)
    return RecurrentCall(
        source=read,
        states=tuple(s for s in several if isinstance(s, Node)),
        parameters=tuple(tuple(parameters[i : i + each]) for i in range(0, len(parameters), each)),
        directions=ways,
        batch_first=bool(batch_first),
    )


@rule(*RECURRENT)
def recurrent(context: Context, node: Node) -> Labelling:
    """Input features enter the first layer; units are coupled over gates, layers, directions and states.

    The states share one width, so that a unit leaves everywhere or nowhere.
    """
    call = recurrent_call(node)
    if call is None or not all(context.is_parameter(p) for each in call.parameters for p in each):
        return freeze_all(context, node, "packed, projected or with computed weights")
    shape = context.shape(call.source)
    layout = image_layout(context, call.source)
    if len(shape) != 3 or layout is None or layout.dim != (0 if call.batch_first else 1):
        return freeze_all(context, node, "its input does not tell the images of a batch apart")
    labels = dict(context.labels(call.source))
    entering = labels.pop(2, None)
    context.freeze(node, labels, "steps of a sequence")
    units = context.atoms.new(context.shape(call.hidden)[1])
    for number, parameters in enumerate(call.parameters):
        read = entering if number < call.directions else np.tile(units, call.directions)
        inputs = context.parameter(parameters[0], 1)
        _couple_parameters(context, node, parameters, units)
        _add_layers(context, node, parameters, rows_per_image(shape[:2]))
        if read is None:
            context.freeze(node, {1: inputs}, "its input channels cannot go")
        else:
            context.couple(node, read, inputs)
    if entering is not None:
        mask(context, node, call.source, 2, entering)
    _couple_states(context, node, call, units)
    mask(context, node, call.source, 2, units, inside=True)
    outputs = [{2: np.tile(units, call.directions)}, {2: units}, {2: units}]
    return [dict(each) for each in outputs[: len(node.meta["val"])]]


def _couple_parameters(context: Context, node: Node, parameters: tuple[Node, ...], units: Atoms) -> None:
    """Rows of every gate, and columns of the hidden state's weights."""
    gates = np.tile(units, _GATES[op_name(node)])
    for parameter in parameters:
        context.couple(node, gates, context.parameter(parameter, 0))
    context.couple(node, units, context.parameter(parameters[1], 1))


def _couple_states(context: Context, node: Node, call: RecurrentCall, units: Atoms) -> None:
    """The last dimension of initial states; one that cannot become smaller keeps the units."""
    for state in call.states:
        labels = context.labels(state)
        if 2 in labels:
            context.couple(node, units, labels[2])
        else:
            context.freeze(node, {2: units}, "its initial state is computed")


def _add_layers(context: Context, node: Node, parameters: tuple[Node, ...], steps: int) -> None:
    """Two weighted layers for each layer and direction: of the input and of the hidden state."""
    for weight in parameters[:2]:
        add_weighted(context, node, weight, context.parameter(weight, 0), context.parameter(weight, 1), steps)


class MaskedRecurrent(Membership):
    """A recurrent op whose absent units have the state 0 at every step, as if they were not there.

    Step by step: no fused op takes a mask for each image.
    """

    def __init__(self, players: Tensor, dim: int, batch: BatchLayout, node: Node) -> None:
        super().__init__(players, dim, batch)
        call = recurrent_call(node)
        assert call is not None
        self._op = op_name(node)
        self._directions, self._batch_first = call.directions, call.batch_first
        self._each = len(call.parameters[0])

    def forward(
        self, value: Tensor, states: tuple[Tensor, ...], parameters: tuple[Tensor, ...], masks: Tensor
    ) -> tuple[Tensor, ...]:
        """Outputs and last states, as of the op itself."""
        factors = self.present.to(masks.dtype) + masks.index_select(1, self.players)
        member = rows_of_images(factors, self.batch)
        x = value.transpose(0, 1) if self._batch_first else value
        last: list[list[Tensor]] = []
        for layer in range(len(parameters) // (self._each * self._directions)):
            parts = []
            for direction in range(self._directions):
                place = layer * self._directions + direction
                own = parameters[place * self._each : (place + 1) * self._each]
                steps, ended = self._run(x, [s[place] for s in states], own, member, backward=direction == 1)
                parts.append(steps)
                last.append(ended)
            x = torch.cat(parts, dim=2)
        output = x.transpose(0, 1) if self._batch_first else x
        return (output, *(torch.stack(each) for each in zip(*last, strict=True)))

    def _run(
        self, x: Tensor, states: list[Tensor], own: tuple[Tensor, ...], member: Tensor, *, backward: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states (steps, batch, units) of one layer in one direction, and its last states."""
        biases = own[2:] or (None, None)
        given = torch.nn.functional.linear(x, own[0], biases[0])
        state = [states[0] * member, *states[1:]]
        steps: list[Tensor] = []
        for time in range(len(x) - 1, -1, -1) if backward else range(len(x)):
            fed = torch.nn.functional.linear(state[0], own[1], biases[1])
            state = _STEPS[self._op](given[time], fed, state)
            state[0] = state[0] * member
            steps.append(state[0])
        return torch.stack(steps[::-1] if backward else steps), state


def _lstm(given: Tensor, fed: Tensor, state: list[Tensor]) -> list[Tensor]:
    inward, forget, new, outward = (given + fed).chunk(4, dim=1)
    cell = forget.sigmoid() * state[1] + inward.sigmoid() * new.tanh()
    return [outward.sigmoid() * cell.tanh(), cell]


def _gru(given: Tensor, fed: Tensor, state: list[Tensor]) -> list[Tensor]:
    reset, update, new = given.chunk(3, dim=1)
    fed_reset, fed_update, fed_new = fed.chunk(3, dim=1)
    kept = (update + fed_update).sigmoid()
    fresh = (new + (reset + fed_reset).sigmoid() * fed_new).tanh()
    return [(1.0 - kept) * fresh + kept * state[0]]


def _tanh(given: Tensor, fed: Tensor, _state: list[Tensor]) -> list[Tensor]:
    return [(given + fed).tanh()]


def _relu(given: Tensor, fed: Tensor, _state: list[Tensor]) -> list[Tensor]:
    return [(given + fed).relu()]


_STEPS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _tanh, "rnn_relu": _relu}
"""A step from its input's and its hidden state's products (batch, gates x units) to the next states."""


def masked_recurrent(
    players: Tensor, dim: int, batch: BatchLayout, node: Node
) -> tuple[MaskedRecurrent, tuple[object, ...]]:
    """The module that replaces ``node`` under masks, and its operands before the masks."""
    call = recurrent_call(node)
    assert call is not None
    parameters = tuple(p for each in call.parameters for p in each)
    return MaskedRecurrent(players, dim, batch, node), (call.source, call.states, parameters)
