"""Reading ONNX files, with one sentence about what is wrong with one that cannot be read."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from edgeprune.errors import EdgepruneError
from edgeprune.onnx_io.check import OnnxFaultError, check_model
from edgeprune.onnx_io.external_data import check_external_data
from edgeprune.onnx_io.memory import require_memory
from edgeprune.system.imports import first_line

_REASON_LENGTH = 300
_MOST_BYTES = 2**31 - 1
"""Of a protobuf message."""


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
    """The checked model in a file, with what it keeps in other files unless ``external_data`` is false.

    The one reader of ONNX files of others, with the one set of checks (``check.py``,
    ``external_data.py``, ``memory.py``). Read as protobuf by any name: onnx takes a ``.json`` for a model in
    JSON. Nodes are in the order of calculation, whichever they have in the file.

    Raises:
        EdgepruneError: no file, a file that is no ONNX, that cannot be read, is not as the standard has it,
            without nodes, or too large to run here, of the kind ``raises``.
    """
    require_onnx(path, raises)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise raises(
                f"{path.name} has more than {_MOST_BYTES} bytes, which no ONNX file may have; give one that "
                "keeps its constants in other files"
            )
        model: ModelProto = ModelProto.FromString(path.read_bytes())
        if not model.graph.node:
            raise raises(f"{path.name} is an ONNX file without nodes; give the file of a model")
        check_model(model)
        check_external_data(model, path.parent)
        require_memory(model, path, raises)
        if external_data:
            onnx.load_external_data_for_model(model, str(path.parent))
    except OSError as error:
        raise raises(
            f"{path.name} cannot be read ({error.strerror or first_line(error, _REASON_LENGTH)}); give the "
            "path of a readable .onnx file, its external data beside it"
        ) from error
    except OnnxFaultError as error:
        raise raises(f"{path.name} {first_line(error, _REASON_LENGTH)}; give a valid ONNX file") from error
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise raises(
            f"{path.name} is no valid ONNX file ({first_line(error, _REASON_LENGTH)}); give one that onnx "
            "can load"
        ) from error
    return model
