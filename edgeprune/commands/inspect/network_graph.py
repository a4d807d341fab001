"""The drawing of ``inspect``: its path, the data flow through the network, and its file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.fx import Node

from edgeprune.artifacts.arrays import IndexArray
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel, shape_words
from edgeprune.errors import OutputError
from edgeprune.fx import op_name
from edgeprune.reporting.drawing.files import (
    DRAWING_MARK,
    FlowStep,
    GraphFormat,
    NetworkDrawing,
    StepKind,
    render_graph,
)
from edgeprune.storage.files import atomic_write_text, check_room, check_writable
from edgeprune.storage.ownership import remove_abandoned

_CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})
_MARK_WITHIN_BYTES = 512


def check_graph_path(path: str | Path, *, overwrite: bool = False) -> Path:
    """Check the path of a drawing and return it as absolute; nothing is created.

    Raises:
        UsageError: the suffix is of no known format.
        OutputError: the path exists already, or the folder is missing or not writable.
    """
    GraphFormat.of(path)
    shown = repr(str(path))
    destination = Path(path).expanduser().resolve()
    check_writable(path, what="drawing")
    if destination.exists():
        _check_replaceable(destination, shown, overwrite)
    remove_abandoned(destination.parent)
    check_room(destination.parent, str(path))
    return destination


def _check_replaceable(destination: Path, shown: str, overwrite: bool) -> None:
    if not overwrite:
        raise OutputError(
            f"drawing {shown} exists already; name another file with --graph, or add --overwrite to "
            "replace it"
        )
    try:
        with destination.open("rb") as stream:
            ours = DRAWING_MARK.encode() in stream.read(_MARK_WITHIN_BYTES)
    except OSError as error:
        raise OutputError(
            f"drawing {shown} cannot be read ({error.strerror or error}); name another file with --graph"
        ) from error
    if not ours:
        raise OutputError(
            f"drawing {shown} was not drawn by edgeprune, so --overwrite will not replace it; "
            "name another file with --graph, or remove that one yourself"
        )


def write_graph(
    path: Path,
    captured: CapturedModel,
    coupling: CouplingGraph,
    *,
    source: str,
    notes: tuple[str, ...],
) -> None:
    """Draw the coupled groups into an ``.svg`` or ``.html`` file; the same model gives the same bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    drawing = NetworkDrawing(
        source=source,
        inputs=shape_words(captured.input_shapes),
        parameters=captured.num_parameters,
        coupling=coupling,
        flow=network_flow(captured, coupling),
        notes=notes,
    )
    atomic_write_text(path, render_graph(drawing, GraphFormat.of(path)))


def network_flow(captured: CapturedModel, coupling: CouplingGraph) -> tuple[FlowStep, ...]:
    """Data flow between weighted layers in graph order, with the joins of branches.

    A concatenation that only extends an earlier one is fed by that one, so that a densely connected block
    is a chain and not a mesh.
    """
    walk = _Walk(coupling)
    for node in captured.graph_module.graph.nodes:
        walk.visit(node)
    return _leading_somewhere(walk.steps)


class _Walk:
    """Follows activations from layer to layer; ``origin`` is the step that a node's value comes from."""

    def __init__(self, coupling: CouplingGraph) -> None:
        self.steps: list[FlowStep] = []
        self._layers = {layer.node: layer.name for layer in coupling.layers}
        self._origin: dict[Node, str] = {}
        self._concatenated: dict[tuple[object, ...], str] = {}
        self._along: dict[str, IndexArray] = {}
        for (node, _), players in sorted(coupling.node_players.items()):
            self._along.setdefault(node, players)

    def visit(self, node: Node) -> None:
        if node.op == "get_attr":
            return
        operands = [] if _only_shape(node) else [o for o in node.all_input_nodes if o in self._origin]
        fed_by = tuple(dict.fromkeys(self._origin[o] for o in operands))
        if node.op == "placeholder":
            self._add(node, StepKind.INPUT, node.name, ())
        elif node.op == "output":
            self._add(node, StepKind.OUTPUT, "output", fed_by)
        elif node.name in self._layers:
            players = next((p for o in operands if (p := self._along.get(o.name)) is not None), None)
            self._add(node, StepKind.LAYER, self._layers[node.name], fed_by, players)
        elif len(fed_by) > 1 and _is_tensor(node):
            self._join(node, fed_by)
        elif fed_by and _is_tensor(node):
            self._origin[node] = fed_by[0]

    def _join(self, node: Node, fed_by: tuple[str, ...]) -> None:
        kind = op_name(node)
        if kind in _CONCATENATIONS:
            where = (str(node.args[1:]), str(node.kwargs.get("dim")))
            known = range(len(fed_by), 1, -1)
            earlier = ((self._concatenated.get((*where, *fed_by[:n])), n) for n in known)
            prefix = next(((name, n) for name, n in earlier if name is not None), None)
            self._concatenated.setdefault((*where, *fed_by), node.name)
            if prefix is not None and prefix[1] == len(fed_by):
                self._origin[node] = prefix[0]
                return
            if prefix is not None:
                fed_by = tuple(dict.fromkeys((prefix[0], *fed_by[prefix[1] :])))
        self._add(node, StepKind.JOIN, kind, fed_by, self._along.get(node.name))

    def _add(
        self,
        node: Node,
        kind: StepKind,
        label: str,
        fed_by: tuple[str, ...],
        players: IndexArray | None = None,
    ) -> None:
        self.steps.append(FlowStep(name=node.name, kind=kind, label=label, fed_by=fed_by, players=players))
        self._origin[node] = node.name


def _only_shape(node: Node) -> bool:
    """Whether an op uses only the shape of its operand, as ``new_zeros`` does."""
    name = op_name(node)
    return name.startswith("new_") or name.endswith("_like")


def _is_tensor(node: Node) -> bool:
    """Whether a node's value is an activation (or several) rather than a size."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (
        isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value)
    )


def _leading_somewhere(steps: list[FlowStep]) -> tuple[FlowStep, ...]:
    """The steps without unused joins."""
    used: set[str] = set()
    kept = []
    for step in reversed(steps):
        if step.kind is not StepKind.JOIN or step.name in used:
            kept.append(step)
            used.update(step.fed_by)
    return tuple(reversed(kept))
