"""LSTM, GRU and RNN nodes of files give what onnxruntime gives, or are refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx_graphs import Node, check, write

from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.errors import ModelLoadError
from edgeprune.loading.onnx_import import import_onnx

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FEATURES = 8
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def file(
    path: Path,
    kind: str,
    *,
    direction: str = "forward",
    units: int = 5,
    biases: bool = True,
    states: bool = False,
    seed: int = 0,
    more: dict[str, Any] | None = None,
    inputs: dict[int, Any] | None = None,
    batch: int | str = "n",
) -> Path:
    """A file whose node reads the rows of all channels as 24 steps; steps and, where asked, states come out.

    ``inputs`` are further constants by their place, ``more`` further attributes.
    """
    rng, ways, rows = np.random.default_rng(seed), DIRECTIONS[direction], GATES[kind] * units
    constants: dict[str, Any] = {
        "to_rows": np.array([0, 24, FEATURES]),
        "W": rng.normal(0, 0.5, (ways, rows, FEATURES)).astype(np.float32),
        "R": rng.normal(0, 0.5, (ways, rows, units)).astype(np.float32),
    }
    read = ["steps", "W", "R"]
    if biases:
        constants["B"] = rng.normal(0, 0.5, (ways, 2 * rows)).astype(np.float32)
        read.append("B")
    for place, value in (inputs or {}).items():
        read += [""] * (place - len(read)) + [f"i{place}"]
        constants[f"i{place}"] = value
    attributes: dict[str, Any] = {"hidden_size": units, "direction": direction}
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    nodes: list[Node] = [
        ("Reshape", ["x", "to_rows"], ["rows"], {}),
        ("Transpose", ["rows"], ["steps"], {"perm": [1, 0, 2]}),
        (kind, read, ["all", "last"] if states else ["all"], {**attributes, **(more or {})}),
        ("Transpose", ["all"], ["y"], {"perm": [2, 0, 1, 3]}),
    ]
    outputs = {"y": TensorProto.FLOAT}
    if states:
        nodes.append(("Transpose", ["last"], ["z"], {"perm": [1, 0, 2]}))
        outputs["z"] = TensorProto.FLOAT
    return write(path, nodes, constants, outputs=outputs, batch=batch)


@pytest.mark.parametrize("states", [False, True], ids=["steps", "states"])
@pytest.mark.parametrize("biases", [True, False], ids=["biases", "bare"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
def test_a_node_gives_what_onnxruntime_gives(
    tmp_path: Path, kind: str, direction: str, biases: bool, states: bool
) -> None:
    check(file(tmp_path / "m.onnx", kind, direction=direction, biases=biases, states=states))


def test_a_plain_recurrence_may_clip_at_zero_and_first_states_and_lengths_may_be_told(tmp_path: Path) -> None:
    check(file(tmp_path / "relu.onnx", "RNN", more={"activations": ["Relu"]}))
    zeros = np.zeros((1, 1, 5), np.float32)
    lengths = np.full(1, 24, np.int32)
    # As files with a batch that is fixed to one have them.
    for kind, inputs in (("LSTM", {4: lengths, 5: zeros, 6: zeros}), ("GRU", {5: zeros})):
        path = file(tmp_path / f"{kind}.onnx", kind, inputs=inputs, batch=1)
        assert import_onnx(path, (3, 8, 8)).module is not None


@pytest.mark.parametrize(
    ("kind", "more", "inputs", "words"),
    [
        ("GRU", {"linear_before_reset": 0}, {}, "applies the reset gate before the product"),
        ("LSTM", {"clip": 1.0}, {}, "clips its states"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, {}, "has the activations Sigmoid, Relu, Tanh"),
        ("LSTM", {"input_forget": 1}, {}, "has input_forget=1"),
        ("LSTM", {}, {7: np.ones((1, 15), np.float32)}, "has peepholes"),
        ("LSTM", {}, {5: np.ones((1, 1, 5), np.float32)}, "starts from a state that is not 0"),
        ("RNN", {}, {4: np.full(1, 7, np.int32)}, "sequences of different lengths"),
    ],
)
def test_what_torch_does_not_compute_is_refused(
    tmp_path: Path, kind: str, more: dict[str, Any], inputs: dict[int, Any], words: str
) -> None:
    path = file(tmp_path / "m.onnx", kind, more=more, inputs=inputs)
    with pytest.raises(ModelLoadError, match=words):
        import_onnx(path, (3, 8, 8))


def test_units_of_an_imported_node_can_leave(tmp_path: Path) -> None:
    path = file(tmp_path / "m.onnx", "LSTM", direction="bidirectional")
    module = import_onnx(path, (3, 8, 8)).module
    coupling = couple(capture(module.eval(), (3, 8, 8)))
    assert coupling.unruled_ops == ()
    assert sum(layer.macs(coupling.removed_mask(())) for layer in coupling.layers) == 24 * 2 * 4 * 5 * (8 + 5)


def test_steps_may_stand_before_a_batch_that_the_file_fixes(tmp_path: Path) -> None:
    """Exporters join directions by a target that copies the first sizes, which are those of steps."""
    rng = np.random.default_rng(0)
    constants = {
        "to_rows": np.array([1, 24, FEATURES]),
        "join": np.array([0, 0, -1]),
        "W": rng.normal(0, 0.5, (2, 15, FEATURES)).astype(np.float32),
        "R": rng.normal(0, 0.5, (2, 15, 5)).astype(np.float32),
    }
    attributes = {"hidden_size": 5, "direction": "bidirectional", "linear_before_reset": 1}
    nodes: list[Node] = [
        ("Reshape", ["x", "to_rows"], ["rows"], {}),
        ("Transpose", ["rows"], ["steps"], {"perm": [1, 0, 2]}),
        ("GRU", ["steps", "W", "R"], ["all"], attributes),
        ("Transpose", ["all"], ["moved"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["moved", "join"], ["joined"], {}),
        ("Transpose", ["joined"], ["y"], {"perm": [1, 0, 2]}),
    ]
    module = check(write(tmp_path / "m.onnx", nodes, constants, batch=1), batch=1)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = torch.cat([module(image[None]) for image in images])
        torch.testing.assert_close(module(images), alone)
