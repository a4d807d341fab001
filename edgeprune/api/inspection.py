"""What a network is made of: ``inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from edgeprune.artifacts.choices import AttentionUnit, CouplingOptions
from edgeprune.artifacts.model import InputShape, InputShapes, takes_several
from edgeprune.capture.inputs import input_shapes
from edgeprune.commands.inspect import network_graph
from edgeprune.commands.inspect.inspection import inspect_loaded
from edgeprune.coupling.plugins import ruled_operators
from edgeprune.loading import load_model
from edgeprune.results import Inspection


def inspect(
    model: str | Path | nn.Module,
    *,
    arch: str | None = None,
    arch_kwargs: Mapping[str, int | float | bool | str] | None = None,
    weights: str | None = None,
    weights_key: str | None = None,
    trust_pickle: bool = False,
    input_shape: InputShape | InputShapes | None = None,
    calibration: str | Path | None = None,
    attention_unit: AttentionUnit = AttentionUnit.HEAD_DIMENSIONS,
    prune_normalized: bool = False,
    graph: str | Path | None = None,
    overwrite: bool = False,
) -> Inspection:
    """Layers, channels, coupled groups, MACs, parameters, and what cannot be pruned and why.

    ``input_shape`` is that of one input, without the batch, or one such shape for each of several inputs:
    ``((3, 32, 32), (5,))``. ``graph`` is an ``.svg`` or ``.html`` file to draw the coupled groups into; one
    that edgeprune drew before is only replaced with ``overwrite``.

    Raises:
        UsageError: neither the model, ``input_shape`` nor ``calibration`` tells the input's shape, or
            ``graph`` has another suffix.
        OutputError: ``graph`` exists already or cannot be written.
    """
    drawing = None if graph is None else network_graph.check_graph_path(graph, overwrite=overwrite)
    loaded = load_model(
        model,
        architecture=arch,
        arch_kwargs=arch_kwargs,
        weights=weights,
        weights_key=weights_key,
        trust_pickle=trust_pickle,
        input_shape=None
        if input_shape is None or takes_several(input_shape)
        else input_shapes(input_shape)[0],
        operators=ruled_operators(),
    )
    return inspect_loaded(
        loaded,
        input_shape=input_shape,
        calibration=calibration,
        options=CouplingOptions(attention=attention_unit, prune_normalized=prune_normalized),
        drawing=drawing,
        told=None if graph is None else str(graph),
    )
