"""Read checkpoints without running code from them."""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from edgeprune.errors import ModelLoadError
from edgeprune.loading.weights import read_safetensors
from edgeprune.showing import first_few
from edgeprune.storage.archives import FileKind, foreign_globals_text, names_bytearray, pickled_globals
from edgeprune.system.compat import torchvision_repaired
from edgeprune.system.imports import ended_in_the_open, first_line, importable

_BESIDE_WEIGHTS = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|datetime\.\w+|pathlib\.\w+|(builtins|__builtin__)\.getattr"
    r"|numpy\.(ndarray|dtype|dtypes\.\w+)|numpy\.(core|_core)\.multiarray\.(_reconstruct|scalar)"
    r"|mmengine\.logging\.history_buffer\.HistoryBuffer"
)
"""Classes whose objects trainers save beside weights: settings, dates, paths and histories."""
_RENAMED = {"__builtin__.getattr": "builtins.getattr"}
"""Names of Python 2 in pickles, as torch's reader has them."""
_SHOWN = 3


class NotRead:
    """Stands for an object that was not read: takes what its class would get, and keeps none of it."""

    def __new__(cls, *_: object) -> NotRead:
        """An empty one, of any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        """Keep nothing of ``state``."""


def read_checkpoint(path: Path, kind: FileKind, *, trust_pickle: bool) -> tuple[Any, tuple[str, ...]]:
    """Content of a checkpoint: tensors and plain containers only, unless the pickle is trusted; and notes.

    Settings and histories of trainers, which are no plain containers, are :class:`NotRead` in it.

    Raises:
        ModelLoadError: damaged, or it holds objects whose loading would run code.
    """
    name = str(path)
    if kind is FileKind.SAFETENSORS:
        return read_safetensors(path), ()
    if not trust_pickle:
        _check_pickle(path)
    try:
        if not trust_pickle:
            return _read_plain(path)
        # The current folder is importable only for the classes of a trusted pickle.
        with importable(Path.cwd()), torchvision_repaired(), _quietly(), ended_in_the_open():
            return torch.load(path, map_location="cpu", weights_only=False), ()
    except pickle.UnpicklingError as error:
        foreign = foreign_globals_text(path)
        if trust_pickle or not foreign:
            raise _damaged(name, error) from error
        raise ModelLoadError(
            f"{name!r} holds pickled Python objects ({foreign}), which run code when they are read; "
            "save model.state_dict() and give it with --arch, or pass --trust-pickle if you trust its maker"
        ) from error
    except (AttributeError, ModuleNotFoundError) as error:
        if not trust_pickle:  # no classes are imported then
            raise _damaged(name, error) from error
        raise ModelLoadError(
            f"{name!r} needs a class that cannot be imported here ({first_line(error)}); run where that "
            "module is importable, or save model.state_dict() and give it with --arch"
        ) from error
    except Exception as error:
        raise _damaged(name, error) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_plain(path: Path) -> tuple[Any, tuple[str, ...]]:
    """With torch's restricted reader, which makes :class:`NotRead` of settings and the like."""
    beside = [name for name in pickled_globals(path) if _BESIDE_WEIGHTS.fullmatch(name)]
    stand_ins: list[Any] = [(NotRead, _RENAMED.get(name, name)) for name in beside]
    with torch.serialization.safe_globals(stand_ins), _quietly(), ended_in_the_open():
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not beside:
        return content, ()
    shown = [name for name in beside if name not in _RENAMED] or beside
    return content, (f"objects beside the weights were not read: {first_few(shown, _SHOWN)}",)


def _check_pickle(path: Path) -> None:
    with path.open("rb") as stream:
        if names_bytearray(stream):
            raise ModelLoadError(
                f"{str(path)!r} makes a bytearray when it is read, which can fill the memory; save "
                "model.state_dict() and give it with --arch, or pass --trust-pickle if you trust its maker"
            )


def _damaged(name: str, error: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"{name!r} cannot be read as a PyTorch checkpoint ({first_line(error)}); "
        "copy it again, or save it again with torch.save(model.state_dict(), path)"
    )
