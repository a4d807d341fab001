"""ONNX models of any exporter in the form that edgeprune calculates with; the function stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
    RemoveUnusedNodesPass,
)

from edgeprune.errors import EdgepruneError
from edgeprune.limits import RUN_TIMEOUT_S
from edgeprune.onnx_io.memory import require_memory
from edgeprune.onnx_io.passes.base import Checked, rewritten
from edgeprune.onnx_io.passes.normal_form import (
    ConstantsWithoutIdentity,
    FixInputSizes,
    ForgetShapes,
    Sizes,
)
from edgeprune.onnx_io.session import in_a_sentence, within

_LEAST_IR_VERSION = 8
"""Older ones want constants among the inputs."""


def normal_form(
    model: ModelProto, path: Path, raises: type[EdgepruneError], sizes: Mapping[str, Sizes] | None = None
) -> ModelProto:
    """A copy of a checked model with its constants as initializers and no inputs, functions unfolded, nothing
    unused, shapes of calculated values inferred anew; ``sizes`` of inputs are written first.

    Raises:
        EdgepruneError: it cannot be brought to that form, or its sizes then ask for more memory than there
            is, of the kind ``raises``; names ``path``.
    """
    if model.graph.sparse_initializer:
        raise raises(
            f"{path.name} keeps {model.graph.sparse_initializer[0].values.name!r} as a sparse tensor; "
            "accepted are dense ones: export it with dense constants"
        )

    def failed(reason: str) -> str:
        return f"{path.name} cannot be brought to a plain form ({reason}); give a valid ONNX file"

    passes = (
        Checked(
            InlinePass(),
            RemoveInitializersFromInputsPass(),
            LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        ),
        ConstantsWithoutIdentity(),
        Checked(RemoveUnusedNodesPass()),
        ForgetShapes(),
        FixInputSizes(sizes or {}),
    )
    limit_s = RUN_TIMEOUT_S if model.functions else None  # a small file may unfold to a million nodes
    with in_a_sentence(raises, failed, name=path.name):
        plain = within(lambda: rewritten(model, *passes), limit_s, what="unfolding its functions")
        plain.ir_version = max(plain.ir_version, _LEAST_IR_VERSION)
        inferred: ModelProto = onnx.shape_inference.infer_shapes(plain, data_prop=True)
    if sizes:
        require_memory(inferred, path, raises)
    return inferred
