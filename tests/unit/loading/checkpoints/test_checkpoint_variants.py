"""Checkpoints as trainers and wrappers write them: the very weights are loaded, or a sentence says why."""

from __future__ import annotations

import argparse
import datetime
import itertools
import pathlib
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.artifacts.model import LoadedModel
from edgeprune.errors import ModelLoadError
from edgeprune.loading import load_model

SOURCE = """
from torch import nn
import torch


class Block(nn.Module):
    _version = 2  # of version 1 the layer was called "c"

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3)

    def _load_from_state_dict(self, state, prefix, meta, *rest):
        if meta.get("version") in (None, 1):
            for key in ("weight", "bias"):
                if prefix + "c." + key in state:
                    state[prefix + "conv." + key] = state.pop(prefix + "c." + key)
        super()._load_from_state_dict(state, prefix, meta, *rest)

    def forward(self, x):
        return self.conv(x).relu()


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def get_extra_state(self):
        return {"scale": self.scale}

    def set_extra_state(self, state):
        self.scale = state["scale"]

    def forward(self, x):
        return self.scale * x.relu()


class Net(nn.Module):
    def __init__(self, norm=None, middle=None):
        super().__init__()
        first = nn.Conv2d(3, 4, 3)
        first = first if norm is None else norm(first)
        self.backbone = nn.Sequential(first, middle or nn.BatchNorm2d(4), Block())
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.backbone(x).mean((2, 3)))


def net():
    return Net()


def scaled():
    return Net(middle=Scaled())


def new_norm():
    return Net(norm=nn.utils.parametrizations.weight_norm)


def old_norm():
    return Net(norm=nn.utils.weight_norm)


def raising():
    class Raising(Net):
        def load_state_dict(self, state, strict=True):
            raise KeyError("a hook that fails")

    return Raising()
"""
KINDS = ("net", "scaled", "new_norm", "old_norm")


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("variants.py").write_text(SOURCE)
    return tmp_path


NAMES: dict[str, Any] = {"__name__": "variants_of_tests"}
exec(SOURCE, NAMES)


@pytest.fixture(autouse=True)
def no_warnings_of_the_old_norm() -> None:
    import warnings

    warnings.simplefilter("ignore", FutureWarning)


def made(kind: str = "net", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module: nn.Module = NAMES[kind]()
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1)
    for part in module.modules():
        if isinstance(part, NAMES["Scaled"]):
            part.scale = 3.5
    return module


def load(name: str = "w.pt", kind: str = "net", **options: Any) -> LoadedModel:
    return load_model(name, architecture=f"variants.py:{kind}", **options)


def refusal(name: str = "w.pt", kind: str = "net", **options: Any) -> str:
    with pytest.raises(ModelLoadError) as info:
        load(name, kind, **options)
    assert "\n" not in str(info.value)
    return str(info.value)


def check(loaded: LoadedModel, module: nn.Module, *, dtype: torch.dtype = torch.float32) -> None:
    """Every tensor, and every extra state, is that of the source."""
    expected, got = module.state_dict(), loaded.module.state_dict()
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, Tensor):
            rounded = value.to(dtype).to(value.dtype) if value.is_floating_point() else value
            assert torch.equal(got[key], rounded), key
        else:
            assert got[key] == value


PREFIXES: dict[str, Callable[[str], str]] = {
    "none": lambda key: key,
    "DataParallel": lambda key: "module." + key,
    "compiled": lambda key: "_orig_mod." + key,
    "both": lambda key: "module._orig_mod." + key,
    "lightning": lambda key: "model." + key,
    "lightning of a compiled": lambda key: "model._orig_mod." + key,
    "averaged": lambda key: "ema.module." + key,
    "student": lambda key: "student." + key,
    "net": lambda key: "net." + key,
    "part compiled": lambda key: key.replace("backbone.", "backbone._orig_mod."),
    "part parallel": lambda key: key.replace("backbone.", "backbone.module."),
    "layer parallel": lambda key: key.replace("head.", "head.module."),
    "deep": lambda key: "model." + key.replace("backbone.2.", "backbone.2._orig_mod."),
    "within a backbone": lambda key: "backbone." + key,
}
CONTAINERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "bare": dict,
    "ordered": OrderedDict,
    "lightning": lambda s: {
        "epoch": 3,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": dict(s),
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
    },
    "timm": lambda s: {"arch": "x", "state_dict": dict(s), "args": argparse.Namespace(lr=0.1), "metric": 1.0},
    "mmengine": lambda s: {
        "meta": {"epoch": 3, "time": datetime.datetime(2026, 1, 2), "path": pathlib.PurePosixPath("a")},
        "state_dict": dict(s),
        "message_hub": {"log_scalars": {"loss": 0.1}},
    },
    "nested": lambda s: {"model": {"state_dict": dict(s)}},
}
OTHERS: dict[str, dict[str, Tensor]] = {
    "nothing": {},
    "loss": {"criterion.weight": torch.ones(4)},
    "metrics": {
        "val_acc.total": torch.zeros(1),
        "train_metrics.f1.tp": torch.zeros(3),
        "loss_fn.pos": torch.ones(1),
    },
    "counter": {"n_averaged": torch.tensor(3)},
}


@pytest.mark.parametrize(
    ("prefix", "container", "others"),
    [
        (p, c, o)
        for n, (p, c, o) in enumerate(itertools.product(PREFIXES, CONTAINERS, OTHERS))
        if n % 3 == 0 or c == "bare" or o == "loss"
    ],
)
def test_the_weights_of_any_wrapper_in_any_container_are_loaded(
    prefix: str, container: str, others: str
) -> None:
    kind = KINDS[(len(prefix) + len(container) + len(others)) % 2]
    module = made(kind)
    state = {PREFIXES[prefix](key): value for key, value in module.state_dict().items()}
    torch.save(CONTAINERS[container]({**state, **OTHERS[others]}), "w.pt")
    loaded = load(kind=kind)
    check(loaded, module)
    told = [note for note in loaded.notes if "no part of the model" in note]
    count = len(OTHERS[others])
    assert len(told) == (count > 0)
    if told:
        assert told[0].startswith("1 entry" if count == 1 else f"{count} entries")
        assert all(key in told[0] for key in OTHERS[others])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_other_floating_point_types_behind_any_wrapper(prefix: str, dtype: torch.dtype) -> None:
    module = made()
    torch.save({PREFIXES[prefix](k): v.to(dtype) if v.is_floating_point() else v
                for k, v in module.state_dict().items()}, "w.pt")  # fmt: skip
    loaded = load()
    check(loaded, module, dtype=dtype)
    assert any("floating-point type" in note for note in loaded.notes)


WRAPPERS = [
    "module",
    "_orig_mod",
    "model",
    "net",
    "network",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    front=st.lists(st.sampled_from(WRAPPERS), max_size=3),
    inside=st.dictionaries(st.sampled_from(["backbone", "backbone.2", "head"]), st.sampled_from(WRAPPERS)),
    old=st.booleans(),
    numbers=st.sampled_from([torch.float32, torch.float16]),
)
def test_any_wrappers_anywhere(
    front: list[str], inside: dict[str, str], old: bool, numbers: torch.dtype
) -> None:
    def renamed(key: str) -> str:
        parts = key.split(".")
        made_of = list(front)
        for place, part in enumerate(parts):
            made_of.append("c" if old and part == "conv" else part)
            wrapper = inside.get(".".join(parts[: place + 1]))
            made_of += [wrapper] if wrapper else []
        return ".".join(made_of)

    module = made()
    plain = module.state_dict()
    torch.save({renamed(k): v.to(numbers) if v.is_floating_point() else v for k, v in plain.items()}, "w.pt")
    check(load(), module, dtype=numbers)


# --- what load_state_dict itself reads


def test_versions_of_classes_reach_their_hooks() -> None:
    module = made()
    state = module.state_dict()
    assert state._metadata["backbone.2"]["version"] == 2
    for key in ("weight", "bias"):
        state[f"backbone.2.c.{key}"] = torch.zeros_like(state[f"backbone.2.conv.{key}"])
    torch.save(state, "w.pt")  # of version 2: "c" is no older name there
    assert "2 unexpected: backbone.2.c.weight, backbone.2.c.bias" in refusal()


@pytest.mark.parametrize(
    "prefix", ["none", "DataParallel", "lightning", "part compiled", "part parallel", "deep"]
)
@pytest.mark.parametrize("version", [None, 1])
def test_an_older_version_behind_a_wrapper(prefix: str, version: int | None) -> None:
    module = made()
    state = OrderedDict(
        (PREFIXES[prefix](key).replace("conv.", "c."), value) for key, value in module.state_dict().items()
    )
    if version is not None:
        paths = {key.rpartition(".c.")[0] for key in state if ".c." in key}
        state._metadata = {path: {"version": version} for path in paths}
    torch.save(state, "w.pt")
    check(load(), module)


@pytest.mark.parametrize("metadata", [3, {"backbone.2": 7}, {1: {}}, {"backbone.1": {"version": "x"}}, []])
def test_versions_of_another_form_are_left_out(metadata: Any) -> None:
    module = made()
    state = module.state_dict()
    state._metadata = metadata
    torch.save(state, "w.pt")
    check(load(), module)


@pytest.mark.parametrize("kind", ["new_norm", "old_norm"])
@pytest.mark.parametrize("saved_as", ["new_norm", "old_norm"])
@pytest.mark.parametrize("prefix", ["none", "lightning", "part compiled", "DataParallel"])
def test_old_and_new_weight_norm(kind: str, saved_as: str, prefix: str) -> None:
    module = made(saved_as)
    torch.save({PREFIXES[prefix](k): v for k, v in module.state_dict().items()}, "w.pt")
    loaded = load(kind=kind)
    images = torch.rand(2, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), module.eval()(images))


def test_an_extra_state_that_was_pickled_needs_trust() -> None:
    state = made("scaled").state_dict()
    state["backbone.1._extra_state"] = {"scale": [argparse.Namespace(a=1)]}
    torch.save(state, "w.pt")
    assert "--trust-pickle" in refusal(kind="scaled")


def test_a_missing_extra_state_is_named() -> None:
    safetensors.torch.save_file(
        {k: v for k, v in made("scaled").state_dict().items() if isinstance(v, Tensor)}, "w.safetensors"
    )
    assert "1 missing: backbone.1._extra_state" in refusal("w.safetensors", "scaled")


def test_a_module_that_refuses_in_its_own_words() -> None:
    torch.save(made().state_dict(), "w.pt")
    assert "raised KeyError" in refusal(kind="raising")


# --- several sets of weights


def test_plain_weights_go_before_averages_beside_them() -> None:
    plain, averaged = made(), made(seed=1)
    torch.save(
        {**{"model." + k: v for k, v in plain.state_dict().items()},
         **{"ema.module." + k: v for k, v in averaged.state_dict().items()}}, "w.pt")  # fmt: skip
    loaded = load()
    check(loaded, plain)
    assert any("averaged weights under 'ema' were not used" in note for note in loaded.notes)
    check(load(weights_key="ema"), averaged)
    check(load(weights_key="ema.module"), averaged)
    check(load(weights_key="model"), plain)


@pytest.mark.parametrize("role", ["ema", "ema_model"])
@pytest.mark.parametrize("other", ["online_model", "online_model.module", "model_ema", "raw"])
def test_an_average_that_is_taken_names_the_weights_beside_it(role: str, other: str) -> None:
    averaged, plain = made(), made(seed=1)
    torch.save({**{f"{role}.{k}": v for k, v in averaged.state_dict().items()},
                **{f"{other}.{k}": v for k, v in plain.state_dict().items()}}, "w.pt")  # fmt: skip
    loaded = load()
    told = next(note for note in loaded.notes if "were taken" in note)
    first, second = (averaged, plain) if repr(role) in told.partition("taken")[0] else (plain, averaged)
    check(loaded, first)
    key = told.partition("--weights-key ")[2].partition(" ")[0]
    assert key in (other, role)
    check(load(weights_key=key), second)


def test_an_average_alone_is_said_to_be_alone() -> None:
    state = made().state_dict()
    for others in ({}, {"online_model.head.weight": torch.zeros(1)}):
        torch.save({**{"ema_model." + k: v for k, v in state.items()}, **others}, "w.pt")
        assert any("no others that fit were found" in note for note in load().notes)


@pytest.mark.parametrize(("more", "told"), [
    (("loss.weight",), "1 entry, which is no part of the model, was left out: loss.weight"),
    (("loss.weight", "loss.bias"), "2 entries, which are no part of the model, were left out: loss.weight"),
])  # fmt: skip
def test_what_is_left_out_is_told_in_the_right_number(more: tuple[str, ...], told: str) -> None:
    torch.save({**made().state_dict(), **{key: torch.zeros(2) for key in more}}, "w.pt")
    assert any(told in note for note in load().notes)


@pytest.mark.parametrize(("more", "told"), [
    (("step",), "1 entry, which is no tensor, was left out: step"),
    (("step", "rate"), "2 entries, which are no tensors, were left out: step, rate"),
])  # fmt: skip
def test_entries_that_are_no_tensors_are_told_in_the_right_number(more: tuple[str, ...], told: str) -> None:
    torch.save({**made().state_dict(), **dict.fromkeys(more, 3)}, "w.pt")
    assert any(told in note for note in load().notes)


@pytest.mark.parametrize(
    ("first", "second"), [("student.", "teacher."), ("model.", "module."), ("net.", "student.")]
)
def test_two_sets_of_weights_are_for_the_user_to_choose(first: str, second: str) -> None:
    one, two = made(), made(seed=1)
    torch.save({**{first + k: v for k, v in one.state_dict().items()},
                **{second + k: v for k, v in two.state_dict().items()}}, "w.pt")  # fmt: skip
    told = refusal()
    assert "in two ways" in told
    assert "--weights-key" in told
    check(load(weights_key=first[:-1]), one)
    check(load(weights_key=second[:-1]), two)


def test_the_same_weights_twice_are_no_question() -> None:
    module = made()
    state = module.state_dict()
    torch.save(
        {**{"model." + k: v for k, v in state.items()}, **{"module." + k: v for k, v in state.items()}},
        "w.pt",
    )
    check(load(), module)


@pytest.mark.parametrize(("first", "second"), [("student.", "teacher."), ("model.", "net."), ("ema.", "")])
def test_weights_of_two_networks_are_not_mixed(first: str, second: str) -> None:
    state = made().state_dict()
    torch.save({(first if k.startswith("head") else second) + k: v for k, v in state.items()}, "w.pt")
    assert "missing" in refusal()


@pytest.mark.parametrize(
    ("container", "key"),
    [
        ({"state_dict": 0, "state_dict_ema": 1}, "state_dict_ema"),
        ({"model": 0, "model_ema": 1}, "model_ema"),
        ({"a": {"b.c": {"weights": 1}}, "state_dict": 0}, "a.b.c.weights"),
        ({"a": {"b.c": {"weights": 1}}, "state_dict": 0}, "a"),
        ({"callbacks": {"EMA": {"shadow": 1}}, "state_dict": 0}, "callbacks.EMA.shadow"),
    ],
)
def test_the_entry_that_was_asked_for(container: Any, key: str) -> None:
    states = [made(seed=seed).state_dict() for seed in (0, 1)]

    def filled(value: Any) -> Any:
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else states[value]

    torch.save(filled(container), "w.pt")
    if key == "a":
        told = refusal(weights_key=key)
        assert "no weights" in told
        return
    loaded = load(weights_key=key)
    check(loaded, made(seed=1))
    assert any(repr(key) in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("emma", ("has no entry 'emma'", "'state_dict'", "'ema'", "did you mean 'ema'")),
        ("state_dict.hat", ("has no entry 'hat' under 'state_dict'", "head", "backbone", "head")),
        ("epoch", ("an object of type int", "'epoch'")),
        ("epoch.x", ("has no entry 'x' under 'epoch'", "type int")),
        ("", ("has no entry ''",)),
    ],
)
def test_an_entry_that_is_not_there_is_told_with_those_that_are(key: str, parts: tuple[str, ...]) -> None:
    torch.save({"epoch": 3, "state_dict": made().state_dict(), "ema": made().state_dict()}, "w.pt")
    told = refusal(weights_key=key)
    for part in parts:
        assert part in told


def test_weights_key_where_there_is_no_checkpoint() -> None:
    with pytest.raises(ModelLoadError, match="--weights-key 'ema' was given"):
        load_model(made(), weights_key="ema")
    with pytest.raises(ModelLoadError, match="--weights-key 'ema' was given"):
        load_model("torchvision:resnet18", weights="none", weights_key="ema")


# --- refusals


@pytest.mark.parametrize("prefix", PREFIXES)
def test_missing_keys_behind_any_wrapper_are_named(prefix: str) -> None:
    state = made().state_dict()
    del state["head.weight"]
    torch.save({PREFIXES[prefix](key): value for key, value in state.items()}, "w.pt")
    assert "1 missing: head.weight" in refusal()


@pytest.mark.parametrize("prefix", PREFIXES)
def test_another_size_behind_any_wrapper_is_named(prefix: str) -> None:
    state = made().state_dict() | {"head.weight": torch.zeros(5, 6)}
    torch.save({PREFIXES[prefix](key): value for key, value in state.items()}, "w.pt")
    assert "head.weight is 5x6 instead of 3x6" in refusal()


@pytest.mark.parametrize("prefix", [p for p in PREFIXES if p != "within a backbone"])
@pytest.mark.parametrize("key", ["backbone.3.conv.weight", "head.scale", "backbone.0.loss.weight"])
def test_a_layer_that_the_architecture_lacks_is_never_left_out(prefix: str, key: str) -> None:
    state = made().state_dict() | {key: torch.zeros(2)}
    torch.save({PREFIXES[prefix](k): v for k, v in state.items()}, "w.pt")
    assert f"1 unexpected: {key}" in refusal()


@pytest.mark.parametrize("prefix", ["none", "DataParallel", "lightning"])
def test_an_unknown_part_within_the_network_is_never_left_out(prefix: str) -> None:
    state = made().state_dict() | {"neck.weight": torch.zeros(2)}
    torch.save({PREFIXES[prefix](k): v for k, v in state.items()}, "w.pt")
    assert "1 unexpected: neck.weight" in refusal()


def test_whole_numbers_are_no_weights_behind_a_wrapper() -> None:
    state = made().state_dict() | {"head.weight": torch.zeros(3, 6, dtype=torch.int8)}
    torch.save({"model." + k: v for k, v in state.items()}, "w.pt")
    assert "torch.int8" in refusal()


def test_a_list_of_numbers_is_no_single_one() -> None:
    state = made().state_dict() | {"backbone.1.num_batches_tracked": torch.tensor([5, 6])}
    torch.save(state, "w.pt")
    assert "num_batches_tracked is 2 instead of a scalar" in refusal()


def test_what_is_no_tensor_among_weights_is_counted() -> None:
    module = made()
    torch.save({**module.state_dict(), "epoch": 3, "classes": ["a", "b"], "config": {"lr": 1}}, "w.pt")
    loaded = load()
    check(loaded, module)
    assert any(n.startswith("3 entries, which are no tensors") and "config" in n for n in loaded.notes)


class Runs:
    """Makes a file when it is read as a pickle."""

    def __reduce__(self) -> Any:
        return (open, ("executed", "w"))


@pytest.mark.parametrize("place", ["hyper_parameters", "args", "callbacks", "message_hub", "_extra_state"])
def test_no_object_beside_weights_runs(folder: pathlib.Path, place: str) -> None:
    content = {"state_dict": made().state_dict(), place: {"x": [Runs()], "n": argparse.Namespace(a=1)}}
    torch.save(content, "w.pt")
    assert "--trust-pickle" in refusal()
    assert not (folder / "executed").exists()
    load(trust_pickle=True)
    assert (folder / "executed").exists()


def test_histories_of_mmengine_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    module, name = made(), "mmengine.logging.history_buffer"
    for part in ("mmengine", "mmengine.logging", name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))

    class HistoryBuffer:
        def __init__(self) -> None:
            self.values, self.last = np.arange(3.0), np.float64(2)
            self.statistics = {"mean": HistoryBuffer.mean}

        def mean(self) -> float:
            return float(self.values.mean())

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = name, "HistoryBuffer.mean"
    sys.modules[name].HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    torch.save({"meta": {}, "state_dict": module.state_dict(), "message_hub": {"loss": HistoryBuffer()},
                "ema_state_dict": made(seed=1).state_dict()}, "w.pt")  # fmt: skip
    del sys.modules[name]
    loaded = load()
    check(loaded, module)
    assert any("were not read" in note and "HistoryBuffer" in note for note in loaded.notes)
    check(load(weights_key="ema_state_dict"), made(seed=1))


@pytest.mark.parametrize(
    "key",
    [
        "module." * 20_000 + "head.weight",
        "a." * 100_000 + "weight",
        "head." * 50_000 + "weight",
        "." * 50_000,
        "model.ema.student.teacher.net.module.backbone." * 50 + "head.weight",
    ],
    ids=["wrappers", "parts", "heads", "dots", "all"],
)
def test_keys_without_measure_are_refused(key: str) -> None:
    state = made().state_dict()
    del state["head.weight"]
    torch.save({**state, key: torch.zeros(3, 6)}, "w.pt")
    assert len(refusal()) < 2000


def test_many_networks_in_one_file_are_refused_at_once() -> None:
    names = ["ema", "student", "teacher", "model_ema"]
    state = {
        ".".join(roles) + ".head.weight": torch.zeros(3, 6)
        for length in (1, 2, 3, 4)
        for roles in itertools.product(names, repeat=length)
    }
    torch.save(state, "w.pt")
    assert "missing" in refusal()


def test_whole_modules_in_two_entries_need_trust() -> None:
    torch.save({"model": None, "ema": nn.Sequential(nn.Conv2d(3, 2, 1)).half(), "epoch": -1}, "w.pt")
    with pytest.raises(ModelLoadError, match="--trust-pickle"):
        load_model("w.pt")
    loaded = load_model("w.pt", trust_pickle=True)
    assert loaded.module[0].weight.dtype is torch.float32
    assert any("'ema'" in note for note in loaded.notes)
