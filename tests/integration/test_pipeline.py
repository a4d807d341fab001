"""The whole run: its files belong together, and every way to give a model works."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from small_project import compressed_digits, digits_network, make_project
from torch import Tensor, nn

from edgeprune import api, exporting
from edgeprune.artifacts.codec import to_jsonable
from edgeprune.errors import ModelLoadError, ParityError
from edgeprune.loading import load_model
from edgeprune.reporting import read_json
from edgeprune.storage.outputs import read_manifest


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Output folder of the digits example, and the JSON that the command printed."""
    folder, done = compressed_digits(tmp_path_factory.getbasetemp())
    return folder, json.loads(done.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"))


def in_onnx(path: Path, images: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(o) for o in session.run(None, {"input": images.numpy()})]


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def replayed(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """The user's own class with the smaller weights put in."""
    for name, value in weights.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if isinstance(getattr(module, leaf), nn.Parameter):
            setattr(module, leaf, nn.Parameter(value, requires_grad=False))
        else:
            setattr(module, leaf, value)
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.groups = len(module.weight)
    return model.eval()


# --- the digits example


def test_the_manifest_lists_every_file_with_its_hash(digits: Any) -> None:
    folder, _ = digits
    manifest = read_manifest(folder)
    assert manifest is not None
    listed = {file.path: (file.size_bytes, file.sha256) for file in manifest.outputs}
    found = {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    assert listed == found
    assert found.keys() == {
        "README.md", "bom.cdx.json", "infer.py", "model.onnx", "model.pt2", "report.html", "report.json",
        "report.md", "surgery.json", "weights.safetensors",
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        (folder / "report.md").stat().st_mode & 0o777
    }


def test_the_report_reads_back_equal(digits: Any) -> None:
    folder, printed = digits
    assert json.loads(json.dumps(to_jsonable(read_json(folder / "report.json")))) == printed


def test_the_report_tells_what_was_gained_and_what_it_cost(digits: Any) -> None:
    folder, _ = digits
    report = read_json(folder / "report.json")
    before, after = report.deployment.original, report.deployment.compressed
    assert after.size_bytes == (folder / "model.onnx").stat().st_size < before.size_bytes
    assert after.macs <= 0.75 * before.macs
    assert report.pruning.macs_removed_share >= 0.25
    accuracy = {figure.stage: figure for figure in report.accuracy}
    assert list(accuracy) == ["original", "pruned", "recovered", "ONNX"]
    assert len(report.parity) == 4
    assert all(figure.relative_error <= figure.tolerance for figure in report.parity)


@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_program_and_weights_agree(digits: Any, batch: int) -> None:
    folder, _ = digits
    images = torch.rand(batch, 1, 8, 8)
    program = torch.export.load(str(folder / "model.pt2")).module()
    own = replayed(digits_network(), load_file(folder / "weights.safetensors"))
    with torch.no_grad():
        expected = program(images)
        assert_close(own(images), expected)
    assert_close(in_onnx(folder / "model.onnx", images)[0], expected)


def test_kept_indices_select_the_shapes_of_the_weights(digits: Any) -> None:
    folder, _ = digits
    kept = json.loads((folder / "surgery.json").read_text())["kept_indices"]
    weights = load_file(folder / "weights.safetensors")
    original = digits_network().state_dict()
    assert weights.keys() == original.keys()
    assert kept.keys() <= original.keys()
    assert kept, "nothing was removed"
    for name, value in original.items():
        shape = list(value.shape)
        for dim, indices in kept.get(name, {}).items():
            assert indices == sorted(set(indices))
            assert indices[-1] < shape[int(dim)]
            shape[int(dim)] = len(indices)
        assert list(weights[name].shape) == shape


def test_no_private_path_is_in_what_is_shipped(digits: Any) -> None:
    folder, _ = digits
    for name in ("model.onnx", "weights.safetensors", "surgery.json"):
        # Weights are any bytes: only a name before the suffix tells a path.
        assert not re.search(rb"[\w/]{4,}\.py", (folder / name).read_bytes()), name


# --- other models and options


@pytest.mark.wide
def test_fixed_batch(project: Path, tmp_path: Path) -> None:
    """From a program exported for one image to an ONNX file for one image, and on from its result."""
    report = api.compress(
        project / "fixed.pt2",
        calibration=project / "grey.npz",
        output=tmp_path / "out",
        batch_size=1,
        ratio=0.4,
        threads=1,
    )
    assert any("fixed batch of 1" in note for note in report.notes)
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 1, 8, 8]
    image = torch.rand(1, 1, 8, 8)
    found = in_onnx(tmp_path / "out" / "model.onnx", image)[0]
    again = load_model(tmp_path / "out" / "model.pt2").module
    with torch.no_grad():
        assert_close(again(image), found)
        assert_close(again(image.expand(3, -1, -1, -1)), found.expand(3, -1))
    plan = api.compress_dry_run(
        tmp_path / "out" / "model.pt2", calibration=project / "grey.npz", ratio=0.25, threads=1
    )
    assert plan.macs_after < plan.macs_before == report.deployment.compressed.macs


def test_several_outputs_and_images_without_labels(project: Path, tmp_path: Path) -> None:
    report = api.compress(
        project / "named.pt",
        arch=f"{project / 'nets.py'}:named",
        calibration=project / "flat",
        output=tmp_path / "out",
        ratio=0.25,
        threads=1,
    )
    assert report.calibration.labelled is False
    assert "label" not in report.ranking.loss
    images = torch.rand(3, 1, 8, 8)
    logits, features = in_onnx(tmp_path / "out" / "model.onnx", images)
    assert logits.shape == (3, 4)
    assert features.shape == (3, 8, 8, 8), "the channels of an output stay"
    with torch.no_grad():
        program = torch.export.load(str(tmp_path / "out" / "model.pt2")).module()(images)
    for found, expected in zip((logits, features), program, strict=True):
        assert_close(found, expected)


@pytest.mark.wide
def test_the_seed_decides(project: Path) -> None:
    def plan(seed: int) -> Any:
        return api.compress_dry_run(
            project / "dynamic.pt2", calibration=project / "grey.npz", ratio=0.25, threads=1, seed=seed
        )

    first = plan(0)
    torch.manual_seed(99)
    np.random.seed(99)
    assert plan(0) == first
    assert plan(1).macs_before == first.macs_before


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("whole.pt", "trusted"),
        ("double.pt", "torch.float64 were converted to float32"),
        ("half.pt", "converted to that of the architecture"),
        ("from_gpu.pt", None),
        ("small.safetensors", None),
        ("fixed.pt2", "fixed batch"),
    ],
)
def test_the_same_network_however_it_was_saved(name: str, note: str | None, project: Path) -> None:
    """In training mode, of another precision, from a GPU, not contiguous: always the same outputs."""
    architecture = None if name in {"whole.pt", "double.pt", "fixed.pt2"} else f"{project / 'nets.py'}:small"
    loaded = load_model(project / name, architecture=architecture, trust_pickle=note is not None)
    assert (note is None) == (loaded.notes == ())
    assert note is None or any(note in text for text in loaded.notes)
    assert not loaded.module.training
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        expected = load_model(project / "dynamic.pt2").module(images)
        tolerance = 1e-2 if name == "half.pt" else 1e-5
        torch.testing.assert_close(loaded.module(images), expected, atol=tolerance, rtol=0)


class Mixes(nn.Module):
    """Its result for an image depends on the other images."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x).mean((2, 3)) + x.mean()


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_fixed_batch_that_cannot_be_freed_is_refused(batch: int, tmp_path: Path) -> None:
    program = torch.export.export(Mixes().eval(), (torch.rand(batch, 1, 8, 8),))
    torch.export.save(program, str(tmp_path / "mixes.pt2"))
    with pytest.raises(ModelLoadError, match=f"fixed batch of {batch} and its graph depends on it") as caught:
        load_model(tmp_path / "mixes.pt2")
    assert "dynamic_shapes=" in str(caught.value)


def test_the_gpu_checkpoint_really_names_a_gpu(project: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU takes it")
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(project / "from_gpu.pt", weights_only=True)


@pytest.mark.parametrize("broken", [pytest.param("exported", marks=pytest.mark.wide), "simplified"])
def test_a_wrong_conversion_is_refused_and_its_place_named(
    broken: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of the second convolution are off after one of the conversions."""
    name = {"exported": "export_onnx", "simplified": "simplify_onnx"}[broken]
    real = getattr(exporting, name)

    def wrong(source: Any, path: Path, *inputs: Any) -> Any:
        found = real(source, path, *inputs)
        model = onnx.load(str(path))
        weight = next(
            w for w in model.graph.initializer if list(w.dims[1:]) == [8, 3, 3] or w.dims[1:2] == [6]
        )
        weight.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(weight), weight.name))
        onnx.save(model, str(path))
        return found

    monkeypatch.setattr(exporting, name, wrong)
    with pytest.raises(ParityError, match="differs from") as error:
        api.compress(
            project / "small.pt", arch=f"{project / 'nets.py'}:small",
            calibration=project / "grey.npz", output=tmp_path / "out", ratio=0.25, threads=1,
        )  # fmt: skip
    assert re.search(r"first in \w*(conv|relu)\w*", str(error.value))
    assert not (tmp_path / "out").exists()
