"""Cost models of real graphs: right for the whole network, and for networks that were really pruned."""

from __future__ import annotations

from pathlib import Path

import networks as nets
import pytest
import torch
from torch import nn

from edgeprune.capture.capture import capture
from edgeprune.capture.export import export_program
from edgeprune.commands.search.cost_models import measure_tables, measured_model, roofline_model, size_model
from edgeprune.coupling.coupling import couple
from edgeprune.exporting import export_onnx, simplify_onnx
from edgeprune.profiling.layers import LayerGeometry, write_layer
from edgeprune.profiling.measurer import HostMeasurer, RunSettings
from edgeprune.profiling.work import size_bytes
from edgeprune.pruning.surgery import prune
from edgeprune.selection.costs import Widths
from edgeprune.targets import load_target

HERE = HostMeasurer(settings=RunSettings(threads=1))


def cost_of(model, coupling, removed: tuple[int, ...]) -> float:
    """Of a plan, by the widths that selection would reckon with."""
    widths = Widths(coupling, [model])
    gone = coupling.removed_mask(removed)
    for index, group in enumerate(coupling.groups):
        widths.remove(index, int(gone[list(group.players)].sum()))
    return widths.totals()[0]


def onnx_size(module, shape: tuple[int, ...], folder: Path) -> int:
    program = export_program(module, torch.zeros(2, *shape), dynamic_batch=True)
    export_onnx(program, folder / "exported.onnx")
    simplify_onnx(folder / "exported.onnx", folder / "model.onnx")
    return size_bytes(folder / "model.onnx")


@pytest.mark.parametrize(
    "factory", [nets.residual_add, nets.depthwise, pytest.param(nets.lstm, marks=pytest.mark.wide)]
)
def test_bytes_are_those_of_the_file(factory, tmp_path: Path) -> None:
    captured = capture(factory().eval(), nets.IMAGE)
    coupling = couple(captured)
    whole = onnx_size(captured.graph_module, nets.IMAGE, tmp_path)
    model = size_model(captured, coupling, whole)
    assert cost_of(model, coupling, ()) == pytest.approx(whole)
    removed = tuple(sorted(p for g in coupling.groups for p in g.players[::2][: len(g.players) - 1]))
    pruned = onnx_size(prune(captured, coupling, removed), nets.IMAGE, tmp_path)
    saved = whole - cost_of(model, coupling, removed)
    assert saved == pytest.approx(whole - pruned, rel=0.05)


@pytest.mark.parametrize("factory", [nets.residual_add, nets.lstm, nets.gru])
def test_a_roofline_is_the_prediction_at_full_width_and_falls(factory) -> None:
    captured = capture(factory().eval(), nets.IMAGE)
    coupling = couple(captured)
    model = roofline_model(captured, coupling, load_target("rpi4"), 2.0)
    assert cost_of(model, coupling, ()) == pytest.approx(2.0)
    removed = tuple(p for g in coupling.groups for p in g.players[: len(g.players) // 2])
    assert cost_of(model, coupling, removed) < 2.0


def test_layers_are_measured_and_those_that_cannot_be_are_named() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ConvTranspose2d(8, 8, 2),
        nn.Flatten(),
        nn.Linear(8 * 81, 4),
    )
    captured = capture(network.eval(), (3, 8, 8))
    coupling = couple(captured)
    notes: list[str] = []
    tables = measure_tables(captured, coupling, HERE, step=4)
    model = measured_model(captured, coupling, tables, step=4, total_ms=5.0, note=notes.append)
    assert cost_of(model, coupling, ()) >= 5.0
    assert len(notes) == 1
    assert "1 layers of kinds that are not measured alone (3," in notes[0]


def test_recurrent_layers_cost_what_their_products_do() -> None:
    captured = capture(nets.lstm().eval(), nets.IMAGE)
    coupling = couple(captured)
    notes: list[str] = []
    tables = measure_tables(captured, coupling, HERE, step=2)
    model = measured_model(captured, coupling, tables, step=2, total_ms=5.0, note=notes.append)
    assert "8 layers of kinds that are not measured alone (rnn.weight_ih_l0, ...)" in notes[0]
    units = tuple(coupling.groups[1].players[:3])
    assert cost_of(model, coupling, units) < cost_of(model, coupling, ())


@pytest.mark.parametrize(
    ("geometry", "out", "into"),
    [
        (LayerGeometry(size=(1,)), 4, 6),
        (LayerGeometry(size=(9, 7), kernel=(3, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), 4, 6),
        (
            LayerGeometry(
                size=(8, 8), kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1), depthwise=True
            ),
            6,
            1,
        ),
        (
            LayerGeometry(
                size=(8, 8), kernel=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=2
            ),
            6,
            3,
        ),
    ],
)
def test_every_kind_of_layer_runs_alone(geometry: LayerGeometry, out: int, into: int, tmp_path: Path) -> None:
    (least_ms,) = HERE.least_cpu_ms([write_layer(geometry, out, into, tmp_path / "layer.onnx")])
    assert least_ms is not None
    assert least_ms > 0.0
