"""Reading ONNX files, with one sentence about what is wrong with one that cannot be read."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from edgeprune.errors import EdgepruneError
from edgeprune.imports import first_line

_REASON_LENGTH = 300


def require_onnx(path: Path, raises: type[EdgepruneError]) -> None:
    """Check that there is a file.

    Raises:
        EdgepruneError: there is none, of the kind ``raises``.
    """
    if path.is_dir():
        raise raises(f"{str(path)!r} is a folder; give the path of an .onnx file, such as one in it")
    if not path.is_file():
        raise raises(f"no ONNX file at {str(path)!r}; give the path of an .onnx file")


def read_onnx(path: Path, raises: type[EdgepruneError], *, external_data: bool = True) -> ModelProto:
    """The model in a file, with what it keeps in other files unless ``external_data`` is false.

    Read as protobuf by any name: onnx takes a ``.json`` for a model in JSON.

    Raises:
        EdgepruneError: no file, a file that is no ONNX, that cannot be read or without nodes, of the kind
            ``raises``.
    """
    require_onnx(path, raises)
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=external_data)
    except OSError as error:
        raise raises(
            f"{path.name} cannot be read ({error.strerror or first_line(error, _REASON_LENGTH)}); give the "
            "path of a readable .onnx file, its external data beside it"
        ) from error
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise raises(
            f"{path.name} is no valid ONNX file ({first_line(error, _REASON_LENGTH)}); give one that onnx "
            "can load"
        ) from error
    if not model.graph.node:
        raise raises(f"{path.name} is an ONNX file without nodes; give the file of a model")
    return model
