"""A copy of an ONNX file with what a command needs: sizes fixed, operators of a later version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto

from edgeprune.errors import EdgepruneError
from edgeprune.onnx_io.check import bytes_of, tensors_of
from edgeprune.onnx_io.inputs import dynamic_sentence, model_inputs, sizes_with
from edgeprune.onnx_io.normalize import normal_form
from edgeprune.onnx_io.opset import with_opset
from edgeprune.onnx_io.passes.normal_form import Sizes
from edgeprune.onnx_io.read import read_onnx

_MOST_BYTES_INSIDE = 2**31 - 2**24
"""Of constants in the file itself; protobuf takes 2 GiB in all."""


def with_image_size(
    path: Path, image: tuple[int, ...] | None, folder: Path, raises: type[EdgepruneError]
) -> Path:
    """The file, or a copy in the new ``folder`` whose dynamic sizes are those of ``image``.

    Raises:
        EdgepruneError: a size beyond the batch stays dynamic, or is another in the file.
    """
    model = read_onnx(path, raises, external_data=image is not None)
    sizes = sizes_with(model, path, raises, image)
    for taken in model_inputs(model):
        if taken.dynamic and taken.name not in sizes:
            raise raises(dynamic_sentence(taken, path.name))
    if not sizes:
        return path
    folder.mkdir()
    return write_working_copy(model, path, folder, raises, sizes)


def write_working_copy(
    model: ModelProto,
    path: Path,
    folder: Path,
    raises: type[EdgepruneError],
    sizes: Mapping[str, Sizes],
    least_opset: int = 0,
) -> Path:
    """Write the model that was read from ``path`` under the same name into ``folder``, in normal form.

    Raises:
        EdgepruneError: as :func:`normal_form` and :func:`with_opset`.
    """
    made = with_opset(normal_form(model, path, raises, sizes), least_opset, path, raises)
    written = folder / path.name
    outside = sum(bytes_of(tensor) for tensor in tensors_of(made)) > _MOST_BYTES_INSIDE
    onnx.save_model(
        made, str(written), format="protobuf", save_as_external_data=outside, location=f"{path.name}.data"
    )
    return written
