"""``edgeprune verify`` as a user and a CI step run it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import written
from safetensors.torch import load_file, save_file
from small_project import DIGITS, DIGITS_DATA, DIGITS_MODEL, digits_network, sentence

ARCHITECTURE = ("--arch", f"{DIGITS / 'model.py'}:digits_net")
DATA = ("--calibration", DIGITS_DATA, "--threads", "1")


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(digits_network(), tmp_path_factory.mktemp("digits") / "digits.onnx", (1, 8, 8))


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(exported_once, tmp_path / "digits.onnx"))


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    return written(module, tmp_path_factory.mktemp("classes") / "classes.onnx", (1, 8, 8))


def test_an_export_is_what_was_exported(edgeprune: Any, exported: Path) -> None:
    done = edgeprune("verify", DIGITS_MODEL[0], str(exported), *ARCHITECTURE, *DATA, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"]
    assert found["deviation"]["top1_agreement"] == 1.0
    assert found["deviation"]["images"] == 64
    assert len(found["tensors"]) >= 5
    assert all(tensor["error"] < 1e-5 for tensor in found["tensors"])
    assert found["first_diverging"] is None


def test_the_first_tensor_that_differs_is_named(edgeprune: Any, exported: Path, tmp_path: Path) -> None:
    weights = load_file(DIGITS_MODEL[0])
    name = next(name for name in weights if name.startswith("depthwise.0") and name.endswith("weight"))
    weights[name] = weights[name] * 1.2
    save_file(weights, str(tmp_path / "other.safetensors"))
    done = edgeprune(
        "verify", str(exported), str(tmp_path / "other.safetensors"), *ARCHITECTURE, *DATA, "--json"
    )
    assert done.returncode == 8
    found = json.loads(done.stdout)
    errors = {tensor["name"]: tensor["error"] for tensor in found["tensors"]}
    first = found["first_diverging"]
    assert errors[first] == pytest.approx(0.2, rel=0.5)  # behind a norm
    names = list(errors)
    assert all(errors[name] < 1e-5 for name in names[: names.index(first)])
    assert f"the first inner tensor beyond it is {first}" in done.stderr.splitlines()[-1]
    shown = edgeprune("verify", str(exported), str(tmp_path / "other.safetensors"), *ARCHITECTURE, *DATA)
    assert "FAILED at a tolerance of 0.001" in shown.stdout
    assert f"first inner tensor beyond the tolerance: {first}" in shown.stdout


def test_eight_bits_against_32_reckon_with_scaled_channels(
    edgeprune: Any, exported: Path, tmp_path: Path
) -> None:
    done = edgeprune("quantize", str(exported), *DATA, "-o", str(tmp_path / "q.onnx"))
    assert done.returncode == 0, done.stderr
    asked = ("verify", str(exported), str(tmp_path / "q.onnx"), *DATA, "--tolerance", "0.1", "--json")
    done = edgeprune(*asked)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    scaled = [tensor for tensor in found["tensors"] if tensor["up_to_scales"]]
    assert scaled
    assert 0 < max(tensor["error"] for tensor in found["tensors"]) < 0.1
    proto = onnx.load(str(tmp_path / "q.onnx"))
    del proto.metadata_props[:]
    onnx.save(proto, str(tmp_path / "q.onnx"))
    plain = json.loads(edgeprune(*asked).stdout)
    errors = {tensor["name"]: tensor["error"] for tensor in plain["tensors"]}
    assert any(errors[tensor["name"]] > 2 * tensor["error"] for tensor in scaled)


def test_models_without_a_common_tensor_are_compared_by_their_outputs(
    edgeprune: Any, exported: Path, tmp_path: Path
) -> None:
    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.flatten(1))

    other = written(Other(), tmp_path / "other.onnx", (1, 8, 8))
    done = edgeprune("verify", str(exported), str(other), *DATA)
    assert done.returncode == 8
    assert "no inner tensor has the same name and shape in both" in done.stdout


def constant_model() -> onnx.ModelProto:
    """A model without an input."""
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(
        helper.make_graph([helper.make_node("Constant", [], ["y"], value=value)], "constant", [], [output])
    )


@pytest.mark.parametrize(
    ("models", "options", "status", "said"),
    [
        (("missing.onnx", "digits.onnx"), (), 10, "no ONNX file at 'missing.onnx'"),
        (("digits.onnx", "text.onnx"), (), 10, "text.onnx is no valid ONNX file"),
        (("digits.onnx", "empty.onnx"), (), 10, "empty.onnx is an ONNX file without nodes"),
        (("constant.onnx", "digits.onnx"), (), 10, "constant.onnx has 0 inputs; accepted is one"),
        (("digits.onnx", "digits.onnx"), ("--tolerance", "0"), 2, "--tolerance 0 was given"),
        (("digits.onnx", "classes.onnx"), (), 8, "gives outputs of shape [(64, 3)]"),
    ],
)
def test_what_is_refused(
    edgeprune: Any,
    exported: Path,
    three_classes: Path,
    models: tuple[str, str],
    options: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    folder = exported.parent
    shutil.copy(three_classes, folder)
    (folder / "text.onnx").write_text("no model")
    (folder / "empty.onnx").write_bytes(b"")
    onnx.save(constant_model(), folder / "constant.onnx")
    written(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), folder / "classes.onnx", (1, 8, 8)
    )
    done = edgeprune("verify", *models, *DATA, *options, cwd=folder)
    assert said in sentence(done, status)
