"""What a network is made of: ``inspect``."""

from __future__ import annotations

from edgeprune.artifacts.model import takes_several
from edgeprune.capture.inputs import input_shapes
from edgeprune.commands.inspect import network_graph
from edgeprune.commands.inspect.inspection import inspect_loaded
from edgeprune.coupling.plugins import ruled_operators
from edgeprune.loading import load_model
from edgeprune.options.runs import InspectOptions
from edgeprune.options.signatures import called_with
from edgeprune.results import Inspection


@called_with(InspectOptions)
def inspect(options: InspectOptions) -> Inspection:
    """Layers, channels, coupled groups, MACs, parameters, and what cannot be pruned and why.

    ``input_shape`` is that of one input, without the batch, or one such shape for each of several inputs:
    ``((3, 32, 32), (5,))``. ``graph`` is an ``.svg`` or ``.html`` file to draw the coupled groups into; one
    that edgeprune drew before is only replaced with ``overwrite``.

    Raises:
        UsageError: neither the model, ``input_shape`` nor ``calibration`` tells the input's shape, or
            ``graph`` has another suffix.
        OutputError: ``graph`` exists already or cannot be written.
    """
    return inspect_network(options)


def inspect_network(options: InspectOptions) -> Inspection:
    """:func:`inspect` with its options in one."""
    graph, shape = options.graph, options.input_shape
    drawing = None if graph is None else network_graph.check_graph_path(graph, overwrite=options.overwrite)
    loaded = load_model(
        options.model,
        architecture=options.arch,
        arch_kwargs=options.arch_kwargs,
        weights=options.weights,
        weights_key=options.weights_key,
        trust_pickle=options.trust_pickle,
        input_shape=None if shape is None or takes_several(shape) else input_shapes(shape)[0],
        operators=ruled_operators(),
    )
    return inspect_loaded(
        loaded,
        input_shape=shape,
        calibration=options.calibration,
        options=options.coupling,
        drawing=drawing,
        told=None if graph is None else str(graph),
    )
