"""ONNX files and their neighbours, from small captured networks."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import more_networks
import networks
import onnx
import onnxruntime
import onnxsim
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from edgeprune import exporting
from edgeprune.capture.capture import capture
from edgeprune.capture.export import export_program, program_of_graph
from edgeprune.errors import CaptureError


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.norm(self.first(x)))
        return self.head(features.mean((2, 3))), features


class Unknown(nn.Module):
    """An op without an ONNX form."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    graph = capture(TwoHeads().eval(), (1, 8, 8)).graph_module
    program = program_of_graph(graph, torch.zeros(2, 1, 8, 8))
    exporting.export_onnx(program, folder / "exported.onnx")
    assert exporting.simplify_onnx(folder / "exported.onnx", folder / "model.onnx") is None
    exporting.save_program(program, folder / "model.pt2")
    return folder


@pytest.mark.parametrize("name", ["exported.onnx", "model.onnx"])
@pytest.mark.parametrize("batch", [1, 3])
def test_both_files_agree_with_the_program(exported: Path, name: str, batch: int) -> None:
    images = torch.rand(batch, 1, 8, 8)
    session = onnxruntime.InferenceSession(str(exported / name), providers=["CPUExecutionProvider"])
    found = session.run(["output_0", "output_1"], {"input": images.numpy()})
    with torch.no_grad():
        expected = torch.export.load(str(exported / "model.pt2")).module()(images)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(a), b, rtol=1e-4, atol=1e-5)


class PaddedPooling(nn.Module):
    """Zeros around negative values take part in the maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        below = -self.first(x).abs() - 1
        return functional.max_pool2d(functional.pad(below, (1, 1, 1, 1)), 3, 2)


class Windows(nn.Module):
    """Heads and windows folded into the batch, beside tensors of the batch itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix = nn.Conv2d(1, 8, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.first(x)
        halves = self.mix(whole.reshape(-1, 4, 8, 8)).relu()
        again = self.mix(halves.permute(0, 1, 3, 2)).reshape(whole.shape)
        return (again + whole).mean((2, 3))


@pytest.mark.parametrize("kind", [PaddedPooling, Windows])
def test_what_onnxruntime_computes_is_what_torch_computes(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = capture(kind().eval(), (1, 8, 8)).graph_module
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        expected = graph(images)
    exporting.export_onnx(program_of_graph(graph, images), tmp_path / "exported.onnx")
    assert exporting.simplify_onnx(tmp_path / "exported.onnx", tmp_path / "model.onnx") is None
    for name in ("exported.onnx", "model.onnx"):
        session = onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"input": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-6)


def test_only_the_batch_is_called_batch(tmp_path: Path) -> None:
    graph = capture(Windows().eval(), (1, 8, 8)).graph_module
    exporting.export_onnx(export_program(graph, torch.zeros(2, 1, 8, 8)), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in model.graph.value_info
    }
    first = [shape[0] for shape in shapes.values() if len(shape) == 4 and shape[1] == 4]
    assert first
    assert "batch" not in first


def test_what_the_file_says(exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    (given,) = model.graph.input
    batch, *rest = given.type.tensor_type.shape.dim
    assert (given.name, batch.dim_param) == ("input", "batch")
    assert [d.dim_value for d in rest] == [1, 8, 8]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_the_file_tells_nothing_about_where_it_was_made(exported: Path) -> None:
    for name in ("exported.onnx", "model.onnx"):
        content = (exported / name).read_bytes()
        for word in (b".py", b"torch/nn", b"TwoHeads", str(Path.cwd()).encode()):
            assert word not in content


@pytest.mark.parametrize("factory", [networks.channel_shuffle, more_networks.group_norms])
def test_a_captured_graph_needs_no_functionalising(factory: Any, tmp_path: Path) -> None:
    case = networks.toy(factory)
    graph, example = copy.deepcopy(case.captured.graph_module).float(), torch.zeros(2, *networks.IMAGE)
    files = tmp_path / "functionalised.onnx", tmp_path / "as it is.onnx"
    for program, path in zip(
        (export_program(graph, example), program_of_graph(graph, example)), files, strict=True
    ):
        exporting.export_onnx(program, path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_op_without_onnx_form_is_named(tmp_path: Path) -> None:
    program = export_program(Unknown(), torch.zeros(2, 1, 4, 4))
    with pytest.raises(CaptureError, match="could not be written as ONNX") as caught:
        exporting.export_onnx(program, tmp_path / "model.onnx")
    assert "bessel_j0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", ["raises", "differs"])
def test_where_simplifying_fails_the_exporters_file_is_kept_and_noted(
    failure: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simplify(model: onnx.ModelProto) -> Any:
        if failure == "raises":
            raise RuntimeError("out of ideas\nand more")
        return onnx.ModelProto(), False

    monkeypatch.setattr(onnxsim, "simplify", simplify)
    note = exporting.simplify_onnx(exported / "exported.onnx", tmp_path / "model.onnx")
    assert note is not None
    assert ("out of ideas" if failure == "raises" else "difference") in note
    assert "\n" not in note
    assert onnx.load(tmp_path / "model.onnx") == onnx.load(exported / "exported.onnx")


def test_weights_that_share_memory_or_are_strided_are_saved(tmp_path: Path) -> None:
    shared = torch.rand(3, 4)
    state = {"a": shared, "b": shared, "c": shared.t(), "d": nn.Parameter(torch.rand(2))}
    exporting.save_surgery({"kept_indices": {"a": {"0": [0, 2]}}}, state, tmp_path)
    found = load_file(tmp_path / "weights.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert json.loads((tmp_path / "surgery.json").read_text()) == {"kept_indices": {"a": {"0": [0, 2]}}}
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors", "surgery.json"}
