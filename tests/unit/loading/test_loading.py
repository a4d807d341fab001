import hashlib
import io
import json
import pickle
import sys
import textwrap
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.export import Dim

from edgeprune.artifacts.model import ModelFormat
from edgeprune.errors import ModelLoadError
from edgeprune.loading import load_model
from edgeprune.system.compat import import_torchvision

SOURCE = textwrap.dedent(
    """
    import torch
    from torch import nn

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.drop = nn.Dropout(0.5)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))

    def small():
        return Small()

    def broken():
        raise KeyError("no config")

    def wrong():
        return 3

    def tied():
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model
    """
)
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with ``arch_small.py`` in it that is the current one."""
    (tmp_path / "arch_small.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("arch_small", "edgeprune_user_arch_small"):
        sys.modules.pop(name, None)


@pytest.fixture
def small(project):
    namespace = {"__name__": "arch_small_test"}
    exec(SOURCE, namespace)
    torch.manual_seed(3)
    model = namespace["Small"]().eval()
    model.norm.running_mean.uniform_(-1, 1)
    return model


def refused(source, *parts, **options):
    """The message of the refusal, which has to be one line with every part in it."""
    with pytest.raises(ModelLoadError) as info:
        load_model(source, **options)
    message = str(info.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def same(loaded, model):
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(IMAGES), model(IMAGES))
    assert not any(m.training for m in loaded.module.modules())


# --- state_dicts


@pytest.mark.parametrize("architecture", ["arch_small:small", "arch_small.py:small", "arch_small:Small"])
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors", "old.pt", "no_suffix"])
def test_state_dict(project, small, architecture, name):
    if name.endswith("safetensors"):
        safetensors.torch.save_file(small.state_dict(), name)
    else:
        torch.save(small.state_dict(), name, _use_new_zipfile_serialization=name != "old.pt")
    loaded = load_model(name, architecture=architecture)
    same(loaded, small)
    assert loaded.format is ModelFormat.STATE_DICT
    assert loaded.architecture == architecture
    assert loaded.sha256 == hashlib.sha256(Path(name).read_bytes()).hexdigest()
    assert loaded.input_shape is None
    assert load_model(name, architecture=architecture, input_shape=(3, 8, 8)).input_shape == (3, 8, 8)


@pytest.mark.parametrize(
    "wrapper", ["state_dict", "model", "model_state_dict", "net", "ema", "model_ema", "state_dict_ema"]
)
def test_wrapped_state_dict_says_where_it_was(project, small, wrapper):
    torch.save({"epoch": 3, wrapper: small.state_dict(), "loss": 0.1}, "w.pt")
    loaded = load_model("w.pt", architecture="arch_small:small")
    same(loaded, small)
    assert any(repr(wrapper) in note for note in loaded.notes)


def test_plain_weights_go_before_averaged_ones_and_the_note_says_so(project, small):
    averaged = {k: torch.zeros_like(v) for k, v in small.state_dict().items()}
    torch.save({"ema": averaged, "state_dict": small.state_dict()}, "w.pt")
    loaded = load_model("w.pt", architecture="arch_small:small")
    same(loaded, small)
    assert any("'ema' were not used" in note for note in loaded.notes)


def test_nested_wrapper(project, small):
    torch.save({"model": {"state_dict": small.state_dict()}}, "w.pt")
    same(load_model("w.pt", architecture="arch_small:small"), small)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_prefixes_are_removed_and_noted(project, small, prefix):
    torch.save({prefix + k: v for k, v in small.state_dict().items()}, "w.pt")
    loaded = load_model("w.pt", architecture="arch_small:small")
    same(loaded, small)
    assert any("prefix" in note for note in loaded.notes)


def test_averaged_model_counter_is_dropped(project, small):
    averaged = torch.optim.swa_utils.AveragedModel(small)
    torch.save(averaged.state_dict(), "w.pt")
    same(load_model("w.pt", architecture="arch_small:small"), small)


def test_half_precision_weights_are_converted_with_a_note(project, small):
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in small.state_dict().items()}, "w.pt")
    loaded = load_model("w.pt", architecture="arch_small:small")
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    assert any("floating-point" in note for note in loaded.notes)


def test_missing_and_unexpected_keys_are_listed(project, small):
    state = small.state_dict()
    del state["fc.weight"]
    state.update({f"extra.{i}": torch.zeros(1) for i in range(7)})
    torch.save(state, "w.pt")
    refused(
        "w.pt",
        "1 missing: fc.weight",
        "7 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4 and 2 more",
        architecture="arch_small:small",
    )


def test_counters_of_batch_normalisation_may_be_missing(project, small):
    state = {k: v for k, v in small.state_dict().items() if not k.endswith("num_batches_tracked")}
    safetensors.torch.save_file(state, "w.safetensors")
    same(load_model("w.safetensors", architecture="arch_small:small"), small)


def test_tied_weights_saved_once(project):
    weights = {"0.weight": torch.eye(4), "0.bias": torch.ones(4), "1.bias": torch.zeros(4)}
    safetensors.torch.save_file(weights, "w.safetensors")
    module = load_model("w.safetensors", architecture="arch_small:tied").module
    assert torch.equal(module[1].weight, torch.eye(4))


def test_size_mismatch_is_named(project, small):
    state = small.state_dict()
    state["fc.weight"] = torch.zeros(7, 4)
    torch.save(state, "w.pt")
    refused("w.pt", "fc.weight is 7x4 instead of 2x4", architecture="arch_small:small")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_named(project, small, value):
    small.conv.weight.data[0, 0, 0, 0] = value
    torch.save(small.state_dict(), "w.pt")
    refused("w.pt", "NaN or infinite", "'conv.weight'", architecture="arch_small:small")


def test_state_dict_without_architecture(project, small):
    torch.save(small.state_dict(), "w.pt")
    refused("w.pt", "is a state_dict", "--arch")


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, [1, 2], torch.zeros(3), {"state_dict": {}}], ids=lambda c: type(c).__name__
)
def test_checkpoint_without_weights(project, content):
    torch.save(content, "w.pt")
    refused("w.pt", "no weights", architecture="arch_small:small")


# --- architectures


@pytest.mark.parametrize(
    ("architecture", "part"),
    [
        ("arch_small:smal", "did you mean small"),
        ("arch_small:broken", "raised KeyError"),
        ("arch_small:wrong", "returned int"),
        ("arch_none:small", "No module named 'arch_none'"),
        ("none.py:small", "does not exist"),
        ("resnet18", "did you mean torchvision:resnet18?"),
        ("something", "give torchvision:NAME"),
        (":small", "not understood"),
        ("torchvision:resnet1", "did you mean resnet18"),
        ("torchvision:qqqqqq", "no model 'qqqqqq'"),
    ],
)
def test_bad_architecture(project, small, architecture, part):
    torch.save(small.state_dict(), "w.pt")
    refused("w.pt", part, architecture=architecture)


def test_syntax_error_in_the_users_file(project, small):
    torch.save(small.state_dict(), "w.pt")
    Path("bad.py").write_text("def small(:")
    refused("w.pt", "cannot be imported", "SyntaxError", architecture="bad.py:small")


def test_file_architecture_imports_its_neighbours_and_leaves_the_path_alone(project, small):
    (project / "sub").mkdir()
    (project / "sub" / "arch_parts.py").write_text(SOURCE)
    (project / "sub" / "arch_main.py").write_text("from arch_parts import Small\n")
    torch.save(small.state_dict(), "w.pt")
    before = list(sys.path)
    same(load_model("w.pt", architecture="sub/arch_main.py:Small"), small)
    assert sys.path == before
    sys.modules.pop("arch_parts")


def test_loading_leaves_the_random_state_alone(project, small):
    torch.save(small.state_dict(), "w.pt")
    before = torch.random.get_rng_state()
    load_model("w.pt", architecture="arch_small:small")
    assert torch.equal(before, torch.random.get_rng_state())


# --- torchvision


def test_torchvision_random_weights_are_repeatable():
    first = load_model("torchvision:squeezenet1_1", weights="none")
    second = load_model("torchvision:squeezenet1_1", weights="none")
    assert first.format is ModelFormat.TORCHVISION
    assert first.input_shape == (3, 224, 224)
    assert any("random" in note for note in first.notes)
    states = zip(first.module.state_dict().values(), second.module.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_torchvision_weights_from_a_file_of_another_class_count(tmp_path):
    models = import_torchvision().models
    model = models.squeezenet1_1(weights=None, num_classes=7).eval()
    path = tmp_path / "w.pth"
    torch.save(model.state_dict(), path)
    for loaded in (
        load_model("torchvision:squeezenet1_1", weights=str(path)),
        load_model(path, architecture="torchvision:squeezenet1_1"),
    ):
        image = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(loaded.module(image), model(image))
        assert any("7 classes" in note for note in loaded.notes)
        assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert loaded.architecture == "torchvision:squeezenet1_1"


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash value")])
def test_torchvision_offline(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(import_torchvision().models._api, "load_state_dict_from_url", fail)
    refused("torchvision:squeezenet1_1", "could not be downloaded", "--weights none")


def test_torchvision_downloaded_weights(monkeypatch):
    models = import_torchvision().models
    state = models.squeezenet1_1(weights=None).state_dict()
    monkeypatch.setattr(models._api, "load_state_dict_from_url", lambda *a, **k: state)
    for weights in (None, "DEFAULT", "IMAGENET1K_V1"):
        loaded = load_model("torchvision:squeezenet1_1", weights=weights)
        assert loaded.notes == ("weights SqueezeNet1_1_Weights.IMAGENET1K_V1",)
        assert loaded.input_shape == (3, 224, 224)
        assert torch.equal(loaded.module.state_dict()["features.0.weight"], state["features.0.weight"])


def test_torchvision_refusals(tmp_path):
    refused("torchvision:resnet19", "did you mean resnet18", weights="none")
    refused("torchvision:resnet18", "neither a file", "IMAGENET1K_V1", weights="imagenet")
    refused("torchvision:resnet18", "does not exist", weights=str(tmp_path / "w.pth"))
    refused("torchvision:mnasnet0_5", "--arch", architecture="torchvision:resnet18")
    refused(tmp_path / "w.pth", "go with torchvision:NAME only", weights="none")


# --- exported programs


def exported(model, path, **options):
    program = torch.export.export(model, (torch.rand(2, 3, 8, 8),), **options)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    Path(path).write_bytes(buffer.getvalue())


@pytest.mark.parametrize("name", ["m.pt2", "model.pt", "model"])
def test_exported_program_is_told_by_content(project, small, name):
    exported(small, name, dynamic_shapes=({0: Dim("batch")},))
    loaded = load_model(name)
    same(loaded, small)
    assert loaded.format is ModelFormat.EXPORTED_PROGRAM
    assert loaded.input_shape == (3, 8, 8)
    assert loaded.sha256 == hashlib.sha256(Path(name).read_bytes()).hexdigest()
    assert loaded.notes == ()
    assert dict(loaded.module.named_parameters()).keys() == dict(small.named_parameters()).keys()
    assert loaded.module.eval() is loaded.module


def test_exported_program_of_fixed_batch_and_dynamic_size(project, small):
    exported(small, "fixed.pt2")
    loaded = load_model("fixed.pt2", architecture="arch_small:small")
    assert any("fixed batch of 2" in note for note in loaded.notes)
    assert any("--arch was not needed" in note for note in loaded.notes)
    refused("fixed.pt2", "exported for images of 3x8x8", "3x9x9", input_shape=(3, 9, 9))
    exported(small, "dyn.pt2", dynamic_shapes=({2: Dim("h", min=4, max=64), 3: Dim("w", min=4, max=64)},))
    assert load_model("dyn.pt2").input_shape == (3, 8, 8)
    assert load_model("dyn.pt2", input_shape=(3, 9, 9)).input_shape == (3, 9, 9)


def test_program_exported_in_training_mode(project, small):
    small.norm.eval()
    small.drop.train()
    exported(small, "drop.pt2")
    refused("drop.pt2", "training mode", "dropout", "model.eval()")
    exported(small.train(), "norm.pt2")
    refused("norm.pt2", "training mode", "batch_norm", "model.eval()")
    program = torch.export.export(small, (torch.rand(2, 3, 8, 8),))
    refused(program.module(check_guards=False), "training mode")


def test_program_of_other_type(project, small):
    program = torch.export.export(small.double(), (torch.rand(2, 3, 8, 8).double(),))
    torch.export.save(program, "m.pt2")
    refused("m.pt2", "torch.float64", "float32")


def test_damaged_program(project, small):
    exported(small, "m.pt2")
    data = Path("m.pt2").read_bytes()
    Path("cut.pt2").write_bytes(data[: len(data) // 2])
    refused("cut.pt2", "damaged")
    rewrite("m.pt2", "bad.pt2", lambda name, data: b"{}" if name.endswith("model.json") else data)
    refused("bad.pt2", "export it again")


def rewrite(source, destination, change):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(destination, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickle_inside_an_export_archive_is_not_executed(project, small):
    exported(small, "m.pt2")
    marker = project / "executed"
    buffer = io.BytesIO()
    torch.save(((Bomb(marker),), {}), buffer)
    rewrite("m.pt2", "evil.pt2", lambda n, d: buffer.getvalue() if "sample_inputs" in n else d)
    refused("evil.pt2", "runs code", "--trust-pickle")
    assert not marker.exists()
    load_model("evil.pt2", trust_pickle=True)
    assert marker.exists()


def test_code_in_a_symbolic_size_is_not_executed(project, small):
    exported(small, "m.pt2", dynamic_shapes=({0: Dim("batch")},))
    marker = project / "executed"
    code = f"Max(1, open('{marker}', 'w').fileno())"

    def change(name, data):
        if not name.endswith("models/model.json"):
            return data
        model = json.loads(data)
        pending = [model]
        while pending:
            item = pending.pop()
            if isinstance(item, dict):
                if "expr_str" in item:
                    item["expr_str"] = code
                pending.extend(item.values())
            elif isinstance(item, list):
                pending.extend(item)
        return json.dumps(model).encode()

    rewrite("m.pt2", "evil.pt2", change)
    refused("evil.pt2", "runs code", "the size")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("member", "part"),
    [("m/data/aotinductor/model/x.so", "runs code"), ("m/models/MODEL.json", "two members of the same name")],
)
def test_compiled_code_and_twin_members_are_refused(project, small, member, part):
    exported(small, "m.pt2")
    root = zipfile.ZipFile("m.pt2").namelist()[0].partition("/")[0]
    with zipfile.ZipFile("m.pt2", "a") as archive:
        archive.writestr(member.replace("m/", f"{root}/", 1), b"{}")
    refused("m.pt2", part)


@pytest.mark.parametrize("prefix", ["custom_obj_0", "opaque_obj_0"])
def test_pickled_constants_are_refused(project, small, prefix):
    exported(small, "m.pt2")
    config = json.dumps({"config": {"c": {"path_name": prefix, "use_pickle": True}}}).encode()
    rewrite("m.pt2", "e.pt2", lambda n, d: config if n.endswith("model_constants_config.json") else d)
    refused("e.pt2", "pickled objects")


# --- pickles


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_module_needs_trust(project, zipped):
    from edgeprune.system.imports import importable

    with importable(project):
        import arch_small
    model = arch_small.small().eval()
    torch.save(model, "m.pt", _use_new_zipfile_serialization=zipped)
    del sys.modules["arch_small"]
    refused("m.pt", "arch_small.Small", "--trust-pickle")
    assert "arch_small" not in sys.modules
    loaded = load_model("m.pt", trust_pickle=True)
    same(loaded, model)
    assert loaded.format is ModelFormat.PICKLED_MODULE
    assert loaded.architecture == "arch_small.Small"
    assert any("trusted" in note for note in loaded.notes)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["root", "beside-weights"])
def test_pickle_is_not_executed_without_trust(project, small, zipped, place):
    marker = project / "executed"
    content = Bomb(marker) if place == "root" else {"state_dict": small.state_dict(), "args": Bomb(marker)}
    torch.save(content, "evil.pt", _use_new_zipfile_serialization=zipped)
    refused("evil.pt", "io.open", "--trust-pickle", architecture="arch_small:small")
    assert not marker.exists()
    options = {"architecture": "arch_small:small", "trust_pickle": True}
    if place == "root":
        refused("evil.pt", "no weights", **options)
    else:
        same(load_model("evil.pt", **options), small)
    assert marker.exists()


def test_plain_pickle_is_not_executed(project):
    marker = project / "executed"
    Path("evil.pt").write_bytes(pickle.dumps(Bomb(marker), protocol=4))
    refused("evil.pt", "io.open")
    assert not marker.exists()


def test_pickled_module_whose_class_is_gone(project):
    sys.modules["gone_module"] = type(sys)("gone_module")
    sys.modules["gone_module"].Gone = Gone = type("Gone", (nn.Linear,), {"__module__": "gone_module"})
    torch.save(Gone(2, 2), "m.pt")
    del sys.modules["gone_module"]
    refused("m.pt", "cannot be imported", trust_pickle=True)


def test_pickled_wrapper_and_half_precision(project):
    torch.save({"model": nn.DataParallel(nn.Conv2d(3, 2, 1).half()), "epoch": 1}, "m.pt")
    loaded = load_model("m.pt", trust_pickle=True)
    assert isinstance(loaded.module, nn.Conv2d)
    assert loaded.module.weight.dtype is torch.float32
    assert any("DataParallel" in note for note in loaded.notes)
    assert any("float16" in note for note in loaded.notes)


# --- modules in memory


def test_given_module_is_copied(small):
    small.train()
    before = {k: v.clone() for k, v in small.state_dict().items()}
    loaded = load_model(small, input_shape=(3, 8, 8))
    assert loaded.format is ModelFormat.MODULE
    assert loaded.sha256 is None
    assert small.training
    assert not loaded.module.training
    with torch.no_grad():
        loaded.module.conv.weight.zero_()
    assert all(torch.equal(before[k], v) for k, v in small.state_dict().items())


def test_given_exported_module_can_be_used(small):
    program = torch.export.export(small, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: Dim("batch")},))
    same(load_model(program.module(check_guards=False)), small)


def test_given_modules_that_are_refused(small):
    refused(torch.jit.trace(small, IMAGES), "TorchScript", "torch.export")
    refused(nn.Flatten(), "no floating-point weights")
    small.extra = (small.conv.weight * 2).relu()
    refused(small, "cannot be copied")


# --- other files


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("m.pt", b"", "an empty file"),
        ("m.onnx", b"\x08\x0a\x12\x07pytorch", "is an ONNX file without nodes"),
        ("renamed.pt", b"\x08\x0a\x12\x07pytorch\x1a\x03", "is no valid ONNX file"),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        ("m.tflite", b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow Lite"),
        ("m.pt", b"hello, these are words\n", "a text file"),
        ("m.pt", "Gewichte für das Modell\n".encode(), "a text file"),
        ("m.pt", b"<!DOCTYPE html><html></html>", "an HTML page"),
        ("m.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("m.pt", b"\x00\x01\x02\x03" * 30, "a file of unknown kind"),
        ("m.pt", b"PK\x03\x04 cut off", "damaged"),
        ("m.pt", b"\x80\x02}q\x00", "cannot be read"),
        ("m.safetensors", (40).to_bytes(8, "little") + b'{"a": ' + bytes(60), "damaged safetensors"),
    ],
)
def test_other_files(tmp_path, name, content, part):
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, part)


def test_other_archives(tmp_path, small):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    refused(tmp_path / "a.npz", "a NumPy archive")
    for member, part in (("x.txt", "a zip archive"), ("model.weights.h5", "a Keras archive")):
        with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
            archive.writestr(member, "x")
        refused(tmp_path / "z.pt", part)
    torch.jit.trace(small, IMAGES).save(tmp_path / "ts.pt")
    refused(tmp_path / "ts.pt", "TorchScript", "torch.export.export(model.eval()")


def test_sources_that_are_no_files(tmp_path):
    refused(tmp_path, "is a folder")
    refused(tmp_path / "none.pt", "does not exist", "accepted are")
    refused("resnet18", "did you mean torchvision:resnet18?")
    refused("package.module:factory", "--arch")


def test_a_program_whose_norm_keeps_no_statistics_is_not_taken_for_one_in_training(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (torch.rand(2, 3, 8, 8),), dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "model.pt2")
    assert load_model(tmp_path / "model.pt2").module(torch.rand(3, 3, 8, 8)).shape == (3, 4, 6, 6)
