"""Crafted torch.export archives: whatever stands in them, nothing runs and one sentence says why."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from edgeprune.errors import ModelLoadError
from edgeprune.loading import load_model
from edgeprune.loading.program_operators import is_accepted
from edgeprune.loading.program_sizes import is_guard, is_size

PAYLOAD = "__import__('os').system('touch PWNED')"
MODEL, WEIGHTS = "/models/model.json", "/model_weights_config.json"
MAPPINGS = {"tensor_values", "sym_int_values", "range_constraints", "opset_version", "config"}
REMARKS = {"stack_trace", "nn_module_stack", "torch_fn", "from_node", "custom", "as_string"}
"""Kept as they are: any printable text may stand there, and it never becomes code."""


def wide(text: str) -> str:
    """The same in full-width letters, which Python reads as ASCII."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def bold(text: str) -> str:
    """The same in mathematical letters, which Python reads as ASCII, too."""
    return "".join(chr(0x1D41A + ord(c) - 97) if c.islower() else c for c in text)


class Net(nn.Module):
    """Sizes, a dictionary of outputs, a constant, a part without gradients, a module of an unusual name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4))
        self.blocks = nn.ModuleDict({"res-1": nn.Conv2d(4, 4, 1)})
        self.scale = torch.ones(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            y = self.stem(x)
        y = self.blocks["res-1"](y)
        y = nn.functional.interpolate(y, size=(x.shape[2] // 2, x.shape[3] * 2))
        return {"out": self.fc(torch.einsum("bchw->bc", y) * self.scale), "aux": y.mean((2, 3))}


def good_members(path: Path) -> dict[str, bytes]:
    """A good archive, by member, by way of a file at ``path``."""
    sizes = ({0: Dim("batch"), 2: Dim("h", min=8, max=64), 3: Dim("w", min=8, max=64)},)
    torch.export.save(
        torch.export.export(Net().eval(), (torch.rand(2, 3, 16, 16),), dynamic_shapes=sizes), path
    )
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return good_members(tmp_path_factory.mktemp("good") / "good.pt2")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The payloads make their file in the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(members: dict[str, bytes], changed: dict[str, Any]) -> str:
    """The archive with some members replaced, by the end of their names."""
    with zipfile.ZipFile("crafted.pt2", "w") as archive:
        for name, data in members.items():
            content = next((c for end, c in changed.items() if name.endswith(end)), data)
            archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return "crafted.pt2"


def content(members: dict[str, bytes], end: str) -> Any:
    return json.loads(next(data for name, data in members.items() if name.endswith(end)))


def texts(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of all texts, and of all keys of mappings of names (marked by a last ``None``)."""
    if isinstance(value, str):
        yield place
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, (*place, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield (*place, key, None)
            yield from texts(item, (*place, key))


def kinds(value: Any) -> dict[str, tuple[Any, ...]]:
    """One place of every kind: positions in lists and keys of mappings of names do not count."""
    found: dict[str, tuple[Any, ...]] = {}
    for place in texts(value):
        steps = ["*" if n and place[n - 1] in MAPPINGS else str(step) for n, step in enumerate(place)]
        found.setdefault(re.sub(r"\d+", "N", "/".join(steps)), place)
    return found


def replaced(value: Any, place: tuple[Any, ...], text: str) -> Any:
    """A copy with another text, or another key, at a place."""
    value = copy.deepcopy(value)
    item = value
    *before, last = place[:-1] if place[-1] is None else place
    for step in before:
        item = item[step]
    if place[-1] is None:
        item[text] = item.pop(last)
    else:
        item[last] = text
    return value


def refused(source: str, **options: Any) -> str:
    with pytest.raises(ModelLoadError) as info:
        load_model(source, **options)
    message = str(info.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


NAMES = {
    "call": PAYLOAD,
    "quotes": f'a") if {PAYLOAD} else getattr(self, "b',
    "line": f"a\n    {PAYLOAD}\n    b",
    "return": f"a\r    {PAYLOAD}\r    b",
    "full width": f"a{wide('.__class__')}",
    "bold": bold("eval"),
    "ligature": "\ufb01le",
}


@pytest.mark.parametrize("name", NAMES)
def test_code_in_place_of_any_text_never_runs(members: dict[str, bytes], scratch: Path, name: str) -> None:
    tried = 0
    for end in (MODEL, WEIGHTS):
        good = content(members, end)
        for kind, place in kinds(good).items():
            remark = bool(REMARKS & set(map(str, place))) and place[-1] is not None
            if name != "call" and (place[-1] is None or "as_graph" in place):
                continue  # names of fields, and graphs in graphs, which have the same fields
            if remark and name in {"quotes", "full width", "bold", "ligature"}:
                continue
            source = write(members, {end: replaced(good, place, NAMES[name])})
            with contextlib.suppress(ModelLoadError) if remark else pytest.raises(ModelLoadError) as info:
                load_model(source)
            if not remark:
                assert "\n" not in str(info.value), kind
            assert not (scratch / "PWNED").exists(), kind
            tried += 1
    assert tried > 30


def test_the_letters_of_the_payloads_are_taken_for_ascii_by_python() -> None:
    for text in (NAMES["full width"], NAMES["bold"], NAMES["ligature"]):
        assert not text.isascii()
        assert unicodedata.normalize("NFKC", text).isascii()


SIZES = [
    PAYLOAD,
    f"Max({PAYLOAD}, 2)",
    "'a'.translate(b'a1')",
    f"'a'.{wide('translate')}(b'a1')",
    f"{wide('eval')}('1')",
    "().__class__",
    "s0.real",
    "Symbol('s0').func",
    "[x for x in (1,)]",
    "(lambda: 1)()",
    "Max((1), 2)(3)",
    "s0[0]",
    "f'{s0}'",
    "(s0 := 3)",
    "9**9**9**9",
    "Pow(9, Pow(9, Pow(9, 9)))",
    "Pow(Integer(9), Integer(99999999))",
    "PowByNatural(9, 999999999)",
    "2**s0",
    "(((9**8)**8)**8)**8",
    "99999999!",
    "factorial(99999999)",
    "Symbol('s0').factorial",
    "LShift(1, 99999999999)",
    "1 << 99999999999",
    "9" * 5000,
    "1e999999",
    "Float('1e999999999')",
    "Float('0.5', precision=999999999)",
    "Symbol('u99999999999')",
    "Symbol('__import__')",
    "Integer('9')",
    "-" * 30_000 + "1",
    "(" * 5000 + "1" + ")" * 5000,
    "+".join(["s0"] * 5000),
    "fibonacci(99999999)",
    "zeta(2)",
    "import os",
    "",
]


def with_sizes(value: Any, text: str) -> Any:
    if isinstance(value, list):
        return [with_sizes(item, text) for item in value]
    if isinstance(value, dict):
        return {k: text if k == "expr_str" else with_sizes(v, text) for k, v in value.items()}
    return value


@pytest.mark.parametrize("size", SIZES, ids=range(len(SIZES)))
def test_a_size_is_bounded_arithmetic_or_refused_at_once(
    members: dict[str, bytes], scratch: Path, size: str
) -> None:
    source = write(members, {MODEL: with_sizes(content(members, MODEL), size)})
    began = time.process_time()
    assert "the size" in refused(source)
    assert time.process_time() - began < 2
    assert not (scratch / "PWNED").exists()


@pytest.mark.parametrize(
    "size",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Add(FloorDiv(Symbol('s0'), Integer(2)), Rational(1, 2), Float('0.5', precision=53))",
        "2*s0 + (s1 - 1)//2",
        "Pow(Symbol('s0', positive=True, integer=True), Integer(2))",
        "s0**2",
        "Max(Integer(1), Mul(Integer(-1), Symbol('u0', integer=True)))",
        "TruncToInt(FloatTrueDiv(ToFloat(Symbol('s0')), Float('2.0', precision=53)))",
    ],
)
def test_sizes_that_torch_writes_are_accepted(size: str) -> None:
    assert is_size(size)


def test_conditions_on_inputs_are_comparisons_of_sizes() -> None:
    assert is_guard("((1 + (((-1) + L['x'].size()[3]) // 2))*L['args'][0].size()[2]) != 1")
    assert is_guard("L['x'].stride()[0] >= 2 and not L['x'].storage_offset() == 0")
    for text in ("L['x'].data", "L[__import__('os')]", "L['x'].size()[0].__class__", PAYLOAD):
        assert not is_guard(text)


TARGETS = [
    "os.system",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "torch.os.system",
    "torch.utils.cpp_extension.load_inline",
    "torch.ops.load_library",
    "torch.ops.aten.from_file.default",
    "torch.ops.aten._print.default",
    "torch.ops.aten.__class__.mro",
    "torch.ops.aten.relu.__call__",
    "torch.ops.aten.relu.default.__class__",
    "torch.ops.aten.no_such_op.default",
    "torch.ops.image.write_file.default",
    "torch.ops.profiler._record_function_enter.default",
    "torch.ops.higher_order.cond",
    "torch.ops.higher_order.triton_kernel_wrapper_mutation",
    "torch.ops.torchvision.read_file.default",
    f"torch.ops.aten.{wide('relu')}.default",
    f"torch.{wide('os')}.system",
    "_operator.attrgetter",
    "_operator.methodcaller",
    "_operator.call",
    "_operator.__class__",
    "math.factorial",
    "math.comb",
    "torch.sym_not.__globals__",
    "#extension:op",
    "eval",
    "",
]


@pytest.mark.parametrize("target", TARGETS)
def test_operators_are_taken_from_a_list(members: dict[str, bytes], target: str) -> None:
    assert not is_accepted(target, ())
    model = content(members, MODEL)
    model["graph_module"]["graph"]["nodes"][0]["target"] = target
    assert "the operator" in refused(write(members, {MODEL: model}))


def test_an_operator_of_a_package_is_accepted_where_it_is_named() -> None:
    library = torch.library.Library("example_of_rules", "FRAGMENT")
    library.define("blur(Tensor x) -> Tensor")
    target = "torch.ops.example_of_rules.blur.default"
    assert not is_accepted(target, ())
    assert is_accepted(target, {"example_of_rules::blur"})
    assert not is_accepted("torch.ops.example_of_rules.other.default", {"example_of_rules::blur"})


def spec(kind: str, context: Any) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf]}])


def change_spec(text: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = text

    return change


def first_node(**entries: Any) -> Callable[[Any], None]:
    return lambda model: model["graph_module"]["graph"]["nodes"][0].update(entries)


def first_argument(argument: Any) -> Callable[[Any], None]:
    return lambda model: model["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(arg=argument)


FACTORY = {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": ["a"]}
ENUM = json.dumps([{"__enum__": True, "fqn": "antigravity:x", "name": "y"}])
SHAPES: dict[str, Callable[[Any], None]] = {
    "module imported for a container": change_spec(spec("collections.defaultdict", FACTORY)),
    "module imported for a key": change_spec(spec("builtins.dict", ENUM)),
    "container of no type": change_spec(spec(["x"], "null")),  # type: ignore[arg-type]
    "structure without end": change_spec("[" * 100_000),
    "object as argument": first_argument({"as_custom_obj": {"name": "a", "class_fqn": "b"}}),
    "operator as argument": first_argument({"as_operator": "torch.load"}),
    "two values at once": first_argument({"as_int": 1, "as_string": "a"}),
    "unknown kind of argument": first_argument({"as_code": "1"}),
    "text for a number": first_argument({"as_int": PAYLOAD}),
    "number too large": first_argument({"as_int": 10**400}),
    "text for a list": first_argument({"as_ints": PAYLOAD}),
    "unknown entry": first_node(code=PAYLOAD),
    "unknown remark": first_node(metadata={"compiled": PAYLOAD}),
    "origin outside of torch": first_node(metadata={"source_fn_stack": "a,torch.os.system"}),
    "origin through an attribute": first_node(
        metadata={"source_fn_stack": "a,torch.nn.__loader__.exec_module"}
    ),
    "remark that ends a comment": first_node(metadata={"stack_trace": f"a\r{PAYLOAD}"}),
    "power without end": first_node(
        target="_operator.pow",
        inputs=[{"name": "a", "arg": {"as_int": 9}}, {"name": "b", "arg": {"as_int": 10**9}}],
    ),
    "symbol to count up to": lambda model: model["range_constraints"].update(
        {"u99999999999": {"min_val": 0, "max_val": 1}}
    ),
    "program of no type": lambda model: model.update(graph_module=PAYLOAD),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_other_shapes_than_torch_describes_are_refused(
    members: dict[str, bytes], scratch: Path, shape: str
) -> None:
    model = content(members, MODEL)
    SHAPES[shape](model)
    refused(write(members, {MODEL: model}))
    assert not (scratch / "PWNED").exists()


def test_pickles_and_endless_tensors_among_the_weights_are_refused(members: dict[str, bytes]) -> None:
    config = content(members, WEIGHTS)
    first = next(iter(config["config"].values()))
    for entries in (
        {"use_pickle": True},
        {"path_name": "custom_obj_0"},
        {"path_name": "../../../etc/passwd"},
    ):
        changed = copy.deepcopy(config)
        next(iter(changed["config"].values())).update(entries)
        refused(write(members, {WEIGHTS: changed}))
    for sizes, strides in (([10**12], [0]), ([10**6, 10**6], [0, 0]), ([-1], [1])):
        meta = first["tensor_meta"] | {
            "sizes": [{"as_int": s} for s in sizes],
            "strides": [{"as_int": s} for s in strides],
        }
        changed = copy.deepcopy(config)
        next(iter(changed["config"].values()))["tensor_meta"] = meta
        refused(write(members, {WEIGHTS: changed}))


def test_another_encoding_than_that_which_torch_reads_is_refused(members: dict[str, bytes]) -> None:
    harmless = json.dumps(content(members, MODEL))
    for encoding in ("utf-16", "utf-32"):
        refused(write(members, {MODEL: harmless.encode(encoding)}))


def test_the_good_archive_loads(members: dict[str, bytes]) -> None:
    loaded = load_model(write(members, {}))
    assert loaded.module(torch.rand(3, 3, 24, 12))["out"].shape == (3, 2)
