"""One weight of a file that several nodes read, transposed by some of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import compare, make_case
from onnx_graphs import check, write
from torch import nn

from edgeprune.loading.model import load_model
from edgeprune.loading.onnx_import import import_onnx

SIZE = 12
FORMS = {
    "as it is": ("Gemm", {}),
    "transposed": ("Gemm", {"transB": 1}),
    "halved": ("Gemm", {"alpha": 0.5}),
    "halved and transposed": ("Gemm", {"alpha": 0.5, "transB": 1}),
    "product": ("MatMul", {}),
}
SAME = {"product": "as it is"}
SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def chain(path, forms, biases):
    """Layers one behind another that read one square weight, and a head."""
    rng = np.random.default_rng(len(forms))
    nodes, last = [("Flatten", ["x"], ["h"], {"axis": 1})], "h"
    for number, (form, bias) in enumerate(zip(forms, biases, strict=True)):
        op, attributes = FORMS[form]
        read = [last, "w", "b"] if bias and op == "Gemm" else [last, "w"]
        nodes += [(op, read, [f"p{number}"], attributes), ("Tanh", [f"p{number}"], [f"t{number}"], {})]
        last = f"t{number}"
    nodes.append(("Gemm", [last, "head"], ["y"], {"transB": 1}))
    constants = {
        "w": rng.standard_normal((SIZE, SIZE)).astype(np.float32) / 2,
        "b": rng.standard_normal(SIZE).astype(np.float32),
        "head": rng.standard_normal((5, SIZE)).astype(np.float32),
    }
    return write(path, nodes, constants, shape=(SIZE,))


@SETTINGS
@given(data=st.data(), forms=st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=5))
def test_each_form_has_its_own_layer(tmp_path, data, forms):
    biases = [data.draw(st.booleans()) and FORMS[form][0] == "Gemm" for form in forms]
    path = chain(tmp_path / "m.onnx", forms, biases)
    module = check(path, (SIZE,))
    kinds = {(SAME.get(form, form), bias) for form, bias in zip(forms, biases, strict=True)}
    assert sum(isinstance(m, nn.Linear) for m in module.modules()) == len(kinds) + 1
    notes = import_onnx(path, (SIZE,)).notes
    assert len(notes) == (len(kinds) > 1)
    assert all("'w' is read in different ways" in note for note in notes)


@pytest.mark.parametrize(
    "forms",
    [
        ("transposed", "as it is"),
        ("transposed", "product"),
        ("as it is", "product"),
        ("transposed", "transposed", "as it is"),
        ("halved", "as it is", "halved and transposed"),
    ],
)
def test_masked_and_pruned_agree(tmp_path, forms):
    module = check(chain(tmp_path / "m.onnx", forms, [False] * len(forms)), (SIZE,))
    case = make_case(module, (SIZE,), trained=True)
    assert case.coupling.unruled_ops == ()
    behind_itself = SAME.get(forms[1], forms[1]) == SAME.get(forms[0], forms[0])
    assert case.coupling.groups or behind_itself
    rng = np.random.default_rng(0)
    for group in case.coupling.groups:
        removed = rng.choice(group.players, max(1, len(group.players) // 4), replace=False)
        (row,) = compare(case, [tuple(sorted(map(int, removed)))])
        assert row.deviation < 1e-10


def test_a_loaded_model_says_so(tmp_path):
    loaded = load_model(chain(tmp_path / "m.onnx", ("transposed", "product"), (False, False)))
    assert sum("each has a copy of its own" in note for note in loaded.notes) == 1
    assert all(torch.isfinite(p).all() for p in loaded.module.parameters())
