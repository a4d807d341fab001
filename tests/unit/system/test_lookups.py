"""PyTorch's look-ups of operators are made once: the results are those without, and nothing stays changed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import more_networks
import networks
import pytest
import torch
from networks import IMAGE
from torch import nn
from torch._C import DispatchKey
from torch._ops import OperatorBase
from torch.export import exported_program

from edgeprune import exporting
from edgeprune.capture import export as capturing
from edgeprune.capture.capture import capture
from edgeprune.capture.export import export_program
from edgeprune.exporting import export_onnx
from edgeprune.system import lookups


@pytest.fixture
def registry() -> Any:
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    return registration.ONNXRegistry


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A switch that leaves everything to PyTorch."""

    def switch() -> None:
        monkeypatch.setattr(capturing, "operators_listed_once", contextlib.nullcontext)
        monkeypatch.setattr(exporting, "operators_listed_once", contextlib.nullcontext)
        monkeypatch.setattr(exporting, "onnx_forms_kept", contextlib.nullcontext)

    return switch


def traced(factory: Any, folder: Path) -> tuple[str, bytes]:
    torch.manual_seed(0)
    graph = capture(factory().eval(), IMAGE).graph_module
    export_onnx(export_program(graph, torch.zeros(2, *IMAGE)), folder / "network.onnx")
    return graph.code, (folder / "network.onnx").read_bytes()


@pytest.mark.parametrize(
    "factory",
    [
        networks.residual_add,
        *(
            pytest.param(factory, marks=pytest.mark.wide)
            for factory in (networks.squeeze_excitation, networks.interpolate, more_networks.instance_norms)
        ),
    ],
)
def test_graphs_and_files_are_the_same(factory: Any, without: Any, tmp_path: Path) -> None:
    found = traced(factory, tmp_path)
    without()
    assert traced(factory, tmp_path) == found


def test_pytorch_is_as_before_also_after_an_error(registry: Any) -> None:
    def inside() -> list[Any]:
        listing = torch._export.utils._materialize_cpp_cia_ops
        return [listing, vars(OperatorBase)["py_impl"], vars(registry)["from_torchlib"]]

    def fail() -> None:
        with lookups.operators_listed_once(), lookups.onnx_forms_kept():
            assert all(a is not b for a, b in zip(before, inside(), strict=True))
            raise ZeroDivisionError

    before = inside()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(a is b for a, b in zip(before, inside(), strict=True))


def test_registering_refuses_what_it_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = torch.ops.aten.relu.default
    monkeypatch.setattr(operator, "py_kernels", {})
    with lookups.operators_listed_once():
        operator.py_impl(DispatchKey.CPU)(print)
        assert operator.py_kernels == {DispatchKey.CPU: print}
        with pytest.raises(RuntimeError, match="override a python impl"):
            operator.py_impl(DispatchKey.CPU)(print)
        with pytest.raises(AssertionError, match="register a mode"):
            operator.py_impl(DispatchKey.Python)(print)
        with pytest.raises(AssertionError, match="DispatchKey"):
            operator.py_impl(7)(print)


def test_the_operators_are_listed_once_for_each_program(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    utilities = torch._export.utils
    original = utilities._materialize_cpp_cia_ops
    monkeypatch.setattr(utilities, "_materialize_cpp_cia_ops", lambda: (listed.append(1), original()))
    network = nn.Sequential(nn.Conv2d(3, 2, 1)).eval()
    for number in (1, 2):
        export_program(network, torch.zeros(2, *IMAGE))
        assert len(listed) == number
    with torch.no_grad():
        torch.export.export(network, (torch.zeros(2, *IMAGE),)).run_decompositions({})
    assert len(listed) > 10


def test_an_operator_that_is_defined_later_is_kept_whole() -> None:
    def targets() -> set[str]:
        graph = capture(nn.Sequential(nn.Conv2d(3, 2, 1), _Twice()).eval(), IMAGE).graph_module.graph
        return {str(node.target) for node in graph.nodes}

    capture(nn.Conv2d(3, 2, 1).eval(), IMAGE)
    with torch.library._scoped_library("edgeprune_later", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x + x, "CompositeImplicitAutograd")
        known = {str(op) for op in exported_program._collect_all_valid_cia_ops()}
        assert "edgeprune_later.twice.default" in known
        assert "edgeprune_later.twice.default" in targets()


class _Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled: torch.Tensor = torch.ops.edgeprune_later.twice(x)
        return doubled


def test_onnx_forms_are_read_again_where_operators_were_added(registry: Any) -> None:
    with lookups.onnx_forms_kept():
        first = registry.from_torchlib(opset_version=20)
        assert registry().from_torchlib(opset_version=20) is first
        assert registry.from_torchlib(opset_version=18) is not first
        again = registry.from_torchlib(opset_version=20)
        with torch.library._scoped_library("edgeprune_later", "DEF") as library:
            library.define("thrice(Tensor x) -> Tensor")
            assert registry.from_torchlib(opset_version=20) is not again
    assert set(first.functions) == set(registry.from_torchlib(opset_version=20).functions)


@pytest.mark.parametrize(
    "place",
    [
        ("torch.no_such_module", None, "anything"),
        ("torch._ops", "NoSuchClass", "py_impl"),
        ("torch._ops", "OperatorBase", "no_such_method"),
        ("torch._export.utils", None, "no_such_function"),
    ],
)
def test_what_another_version_lacks_is_left_alone(place: tuple[str, str | None, str]) -> None:
    made = []
    with lookups.replaced(*place, made.append):
        pass
    assert made == []
