"""Networks by name and by function, with keyword arguments; folders of transformers and of safetensors."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from edgeprune.artifacts.model import ModelFormat
from edgeprune.errors import ModelLoadError
from edgeprune.loading import load_model
from edgeprune.loading.architectures.building import Architecture
from edgeprune.system.compat import import_torchvision

SOURCE = """
from torch import nn


def net(width: float = 1.0, classes=3, bias=True, kind="relu"):
    assert type(bias) is bool and isinstance(kind, str)
    return nn.Sequential(nn.Conv2d(3, int(8 * width), 3, bias=bias), nn.Flatten(), nn.LazyLinear(classes))


def small(width=1.0):
    return nn.Sequential(nn.Linear(4, int(8 * width)), nn.Linear(int(8 * width), 2))


def anything(**options):
    return small(**options)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("named.py").write_text(SOURCE)
    return tmp_path


def refused(source: Any, *parts: str, **options: Any) -> None:
    with pytest.raises(ModelLoadError) as info:
        load_model(source, **options)
    assert "\n" not in str(info.value)
    for part in parts:
        assert part in str(info.value)


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# --- keyword arguments


@pytest.mark.parametrize("name", ["small", "anything"])
def test_keyword_arguments_reach_the_function(name: str) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    torch.save(module.state_dict(), "w.pt")
    options: dict[str, Any] = {"architecture": f"named.py:{name}"}
    assert same(load_model("w.pt", arch_kwargs={"width": 0.5}, **options).module, module)
    refused("w.pt", "0.weight is 4x4 instead of 8x4", **options)


def test_an_unknown_keyword_argument_is_told_with_those_accepted() -> None:
    torch.save(nn.Linear(2, 2).state_dict(), "w.pt")
    options = {"architecture": "named.py:net", "arch_kwargs": {"wdith": 2}}
    refused("w.pt", "no 'wdith'", "did you mean 'width'?", "width, classes, bias, kind", **options)
    options["architecture"] = "named.py:anything"
    refused("w.pt", "raised TypeError", "wdith", **options)
    refused("w.pt", "without an architecture", arch_kwargs={"width": 2})
    refused(nn.Linear(2, 2), "without an architecture", arch_kwargs={"width": 2})


@pytest.mark.parametrize(
    ("source", "options", "part"),
    [
        ("torchvision:mobilenet_v2", {"width_mul": 0.5}, "did you mean 'width_mult'"),
        ("torchvision:resnet18", {"num_clases": 5}, "did you mean 'num_classes'"),
        ("torchvision:resnet18", {"num_classes": "many"}, "cannot be built with num_classes=many"),
    ],
)
def test_keyword_arguments_of_torchvision_are_checked(
    source: str, options: dict[str, Any], part: str
) -> None:
    refused(source, part, weights="none", arch_kwargs=options)


def test_keyword_arguments_of_torchvision() -> None:
    options: dict[str, Any] = {"width_mult": 0.25, "num_classes": 7}
    loaded = load_model("torchvision:mobilenet_v2", weights="none", arch_kwargs=options)
    assert loaded.module(torch.rand(1, 3, 32, 32)).shape == (1, 7)
    torch.save(loaded.module.state_dict(), "w.pt")
    for given in (("torchvision:mobilenet_v2", {"weights": "w.pt"}),
                  ("w.pt", {"architecture": "torchvision:mobilenet_v2"})):  # fmt: skip
        assert same(load_model(given[0], arch_kwargs=options, **given[1]).module, loaded.module)


def test_classes_that_were_asked_for_are_not_changed() -> None:
    loaded = load_model("torchvision:squeezenet1_1", weights="none", arch_kwargs={"num_classes": 7})
    torch.save(loaded.module.state_dict(), "w.pt")
    refused(
        "w.pt", "instead of 9x512", architecture="torchvision:squeezenet1_1", arch_kwargs={"num_classes": 9}
    )


# --- timm


class TestTimm:
    @pytest.fixture(autouse=True)
    def timm(self) -> Any:
        import_torchvision()
        return pytest.importorskip("timm")

    def test_random_weights_are_repeatable(self) -> None:
        first, second = (load_model("timm:resnet10t", weights="none") for _ in range(2))
        assert first.format is ModelFormat.TIMM
        assert first.input_shape is not None
        assert first.input_shape[0] == 3
        assert any("random" in note for note in first.notes)
        assert same(first.module, second.module)

    @pytest.mark.parametrize("container", ["state_dict", "state_dict_ema", None])
    def test_weights_of_a_file_of_another_class_count(self, timm: Any, container: str | None) -> None:
        model = timm.create_model("resnet10t", num_classes=5)
        torch.save(model.state_dict() if container is None else {container: model.state_dict()}, "w.pt")
        for loaded in (
            load_model("timm:resnet10t", weights="w.pt"),
            load_model("w.pt", architecture="timm:resnet10t"),
            load_model("w.pt", architecture="timm:resnet10t", arch_kwargs={"num_classes": 5}),
        ):
            assert same(loaded.module, model)
            assert loaded.architecture == "timm:resnet10t"

    def test_refusals(self) -> None:
        refused("timm:resnet1", "timm has no model 'resnet1'", "did you mean resnet18", weights="none")
        refused("timm:hf-hub:a/b", "timm has no model", weights="none")
        refused("timm:resnet18", "no 'num_clases'", weights="none", arch_kwargs={"num_clases": 2})
        refused("timm:resnet18", "neither a file", "a1_in1k", weights="imagenet")

    def test_no_network_is_one_sentence(self, timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **options: Any) -> Any:
            raise OSError("no route to host")

        monkeypatch.setattr(timm, "create_model", fail)
        refused("timm:resnet18", "could not be downloaded (no route to host)", "--weights none")


@pytest.mark.parametrize(("name", "source"), [("timm", "timm:resnet18"), ("transformers", "hf:folder")])
def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    configured()
    monkeypatch.setitem(sys.modules, name, None)
    refused(source, f"{name} cannot be imported", f"pip install {name}", weights="none")


# --- folders


def configured(**settings: Any) -> None:
    pathlib.Path("folder").mkdir(exist_ok=True)
    text = json.dumps({"architectures": ["ResNetForImageClassification"], "model_type": "resnet", **settings})
    pathlib.Path("folder/config.json").write_text(text)


def sharded(state: dict[str, torch.Tensor], **changed: str) -> dict[str, str]:
    pathlib.Path("shards").mkdir(exist_ok=True)
    placed = {key: f"model-{n % 2}.safetensors" for n, key in enumerate(state)}
    for name in set(placed.values()):
        part = {key: state[key] for key, file in placed.items() if file == name}
        safetensors.torch.save_file(part, f"shards/{name}")
    index = {"metadata": {}, "weight_map": {**placed, **changed}}
    pathlib.Path("shards/model.safetensors.index.json").write_text(json.dumps(index))
    return placed


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_weights_in_several_files(prefix: str) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    sharded({prefix + key: value for key, value in module.state_dict().items()})
    loaded = load_model("shards", architecture="named.py:small")
    assert same(loaded.module, module)
    assert loaded.sha256 is not None
    assert any("2 files" in note for note in loaded.notes)


def test_a_folder_with_one_file() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    pathlib.Path("one").mkdir()
    safetensors.torch.save_file(module.state_dict(), "one/model.safetensors")
    assert same(load_model("one", architecture="named.py:small").module, module)
    refused("one", "is a state_dict", "--arch")


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"0.weight": "../model-0.safetensors"}, "accepted are .safetensors files beside it"),
        ({"0.weight": "/etc/passwd"}, "accepted are .safetensors files beside it"),
        ({"0.weight": "a\\b.safetensors"}, "accepted are .safetensors files beside it"),
        ({"0.weight": "model-7.safetensors"}, "which is not beside it"),
        ({"0.weight": "model-1.safetensors"}, "disagree on 1 tensors"),
        ({"more": "model-1.safetensors"}, "disagree on 1 tensors"),
    ],
)
def test_an_index_that_does_not_fit(changed: dict[str, str], part: str) -> None:
    sharded(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).state_dict(), **changed)
    refused("shards", part, architecture="named.py:small")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "{" * 200]
)
def test_an_index_that_is_none(text: str) -> None:
    pathlib.Path("shards").mkdir()
    pathlib.Path("shards/model.safetensors.index.json").write_text(text)
    refused("shards", "index.json", architecture="named.py:small")


def test_a_folder_of_transformers_that_is_none() -> None:
    refused("hf:nowhere", "'nowhere', which does not exist", "config.json")
    pathlib.Path("empty").mkdir()
    refused("hf:empty", "config.json", "save_pretrained")
    torch.save(nn.Linear(2, 2).state_dict(), "w.pt")
    refused("w.pt", "which does not exist", architecture="hf:nowhere")


def test_a_configuration_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Architecture, "build", lambda self, classes=None: nn.Linear(2, 2))
    configured()
    told = ("'folder' has config.json and no file of weights", "pytorch_model.bin", "--weights none")
    refused("hf:folder", *told)
    refused("folder", *told, architecture="hf:folder")
    refused("folder", *told)


class TestTransformers:
    @pytest.fixture(autouse=True)
    def model(self) -> Any:
        import_torchvision()
        transformers = pytest.importorskip("transformers")
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3
        )
        return transformers.ResNetForImageClassification(config).eval()

    @pytest.mark.parametrize("size", ["5GB", "5KB"])
    def test_a_folder(self, model: Any, size: str) -> None:
        model.save_pretrained("folder", max_shard_size=size)
        images = torch.rand(2, 3, 32, 32)
        for loaded in (load_model("hf:folder"), load_model("folder", architecture="hf:folder")):
            assert same(loaded.module, model)
            with torch.no_grad():
                torch.testing.assert_close(loaded.module(images).logits, model(images).logits)

    def test_keyword_arguments_and_random_weights(self) -> None:
        configured(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8)
        loaded = load_model("hf:folder", weights="none", arch_kwargs={"num_labels": 5})
        assert loaded.module(torch.rand(1, 3, 32, 32)).logits.shape == (1, 5)
        refused("hf:folder", "no 'num_lables'", weights="none", arch_kwargs={"num_lables": 5})

    @pytest.mark.parametrize("settings", [{"model_type": "none"}, {"hidden_sizes": "x"}])
    def test_a_configuration_that_builds_nothing(self, settings: dict[str, Any]) -> None:
        configured(**settings)
        refused("hf:folder", "cannot build a model from hf:folder", weights="none")


# --- torchvision in files of the user

SCRIPT = """
import sys
from edgeprune.loading import load_model
from edgeprune.loading.architectures.building import Architecture
import torch
torch.save({"0.weight": torch.ones(1, 1), "0.bias": torch.ones(1)}, "w.pt")
module = load_model("w.pt", architecture="mine.py:net").module
print(module[0].weight.item(), sys.modules["torchvision"].sub.loads)
"""
BROKEN = """
import torch
from torchvision import sub
@torch.library.register_fake("torchvision::nms")
def _nms(dets, scores, iou_threshold):
    return dets
__version__ = "0.0"
"""


@pytest.mark.parametrize(
    "line",
    [
        "from torchvision.sub import loads",
        *(
            pytest.param(line, marks=pytest.mark.wide)
            for line in ("import torchvision", "from torchvision import sub", "")
        ),
    ],
)
def test_a_file_that_imports_a_torchvision_without_its_library(folder: pathlib.Path, line: str) -> None:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(BROKEN)
    (folder / "torchvision" / "sub.py").write_text("loads = 'once'")
    late = "    import torchvision\n" if not line else ""
    (folder / "mine.py").write_text(
        f"{line}\nfrom torch import nn\ndef net():\n{late}    return nn.Sequential(nn.Linear(1, 1))\n"
    )
    (folder / "run.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "run.py"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == ["1.0", "once"], done.stderr
