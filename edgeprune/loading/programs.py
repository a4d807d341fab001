"""Read torch.export archives."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgeprune.errors import ModelLoadError
from edgeprune.loading.program_archive import unsafe_part
from edgeprune.plain_names import NameFaultError, make_names_plain
from edgeprune.system.imports import ended_in_the_open, first_line
from edgeprune.system.quiet import quiet_loggers, quiet_streams

_FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORCE_NO_WEIGHTS_ONLY = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_TELLING_LOGGER = "torch.export"
_EXPORT_LOGGERS = ("torch._export.serde.serialize", "torch.export.pt2_archive._package")


def read_program(path: Path, *, trust_pickle: bool, operators: Collection[str] = ()) -> ExportedProgram:
    """Load a torch.export archive; unless trusted, nothing in it may be Python code.

    ``operators`` (``namespace::op``) are accepted beside those of torch.

    Raises:
        ModelLoadError: damaged, of another version of torch, or it would run code when read.
    """
    name = str(path)
    reason = None if trust_pickle else unsafe_part(path, operators)
    if reason is not None:
        raise _refused(name, reason)
    causes: list[BaseException] = []
    try:
        with (
            quiet_streams(),
            _logged_causes(causes),
            quiet_loggers(*_EXPORT_LOGGERS),
            _weights_only(not trust_pickle),
            path.open("rb") as stream,
            ended_in_the_open(),
        ):
            program = torch.export.load(stream)
            make_names_plain(program)
    except NameFaultError as fault:
        raise ModelLoadError(f"{name!r} has tensors whose names cannot be told apart: {fault}") from fault
    except pickle.UnpicklingError as error:
        raise _refused(name, "pickled objects") from error
    except Exception as error:
        raise ModelLoadError(
            f"{name!r} is a torch.export archive that torch {torch.__version__} cannot load "
            f"({first_line(causes[0] if causes else error)}); export it again with this version of torch"
        ) from error
    # Input guards are Python source; they were checked, and nothing here evaluates them.
    program._guards_code = []
    return program


def _refused(name: str, reason: str) -> ModelLoadError:
    return ModelLoadError(
        f"{name!r} is a torch.export archive that runs code, or could, when it is read ({reason}); export "
        "the model again with plain tensors and names, or pass --trust-pickle if you trust its maker"
    )


@contextlib.contextmanager
def _weights_only(force: bool) -> Iterator[None]:
    """Forbid, by a variable of torch, that torch.export.load falls back to unrestricted pickles.

    torch rejects this variable together with its opposite, so the opposite is unset meanwhile.
    """
    before = {name: os.environ.get(name) for name in (_FORCE_WEIGHTS_ONLY, _FORCE_NO_WEIGHTS_ONLY)}
    if force:
        os.environ[_FORCE_WEIGHTS_ONLY] = "1"
        os.environ.pop(_FORCE_NO_WEIGHTS_ONLY, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _logged_causes(causes: list[BaseException]) -> Iterator[None]:
    """Collect exceptions that torch.export only logs, in warnings that are silenced here."""

    def gather(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            causes.append(record.exc_info[1])
        return False

    logger = logging.getLogger(_TELLING_LOGGER)
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addFilter(gather)
    try:
        yield
    finally:
        logger.removeFilter(gather)
        logger.setLevel(level)


def program_module(program: ExportedProgram, source: str) -> nn.Module:
    """The program as a module in evaluation mode, without input guards.

    Raises:
        ModelLoadError: it was captured in training mode, or its parts do not fit together.
    """
    try:
        module: nn.Module = program.module(check_guards=False)
    except Exception as error:
        raise ModelLoadError(
            f"{source!r} is a torch.export archive of which torch {torch.__version__} cannot make a module "
            f"({first_line(error)}); export it again with this version of torch"
        ) from error
    return evaluation_mode(module, source)


def evaluation_mode(module: nn.Module, source: str) -> nn.Module:
    """Put a module into evaluation mode (in place), including one from ``torch.export``.

    Raises:
        ModelLoadError: a captured graph holds operators in training mode.
    """
    if isinstance(module, GraphModule):
        operator = _training_operator(module)
        if operator is not None:
            raise ModelLoadError(
                f"{source!r} was exported in training mode ({operator} with training=True); call "
                "model.eval() before torch.export.export and export it again"
            )
        # torch.export overrides both to raise; the graph holds its mode, so the plain ones are harmless.
        for method in ("train", "eval"):
            module.__dict__.pop(method, None)
    return module.eval()


def _training_operator(module: GraphModule) -> str | None:
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        given = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
        keeps_none = "running_mean" in given and given["running_mean"] is None  # in evaluation, too
        if (given.get("training") is True or given.get("train") is True) and not keeps_none:
            return str(node.target)
    return None


@dataclass(frozen=True, kw_only=True)
class ProgramInput:
    """The only tensor input of a program; sizes are ``None`` if dynamic or unknown.

    ``shape`` excludes the batch: ``fixed`` or, with dynamic image sizes, that of the stored example.
    """

    shape: tuple[int, ...] | None = None
    fixed: bool = False
    dtype: torch.dtype | None = None
    batch: int | None = None


def program_input(program: ExportedProgram) -> ProgramInput:
    """Input of the program; of several inputs only their fixed batch is told, of what is no batch nothing."""
    names = set(program.graph_signature.user_inputs)
    values = [n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    if len(values) > 1 and all(isinstance(value, Tensor) and value.dim() for value in values):
        first, *others = (value.shape[0] for value in values)
        fixed = isinstance(first, int) and all(type(size) is int and size == first for size in others)
        return ProgramInput(batch=first if fixed else None)
    if len(values) != 1 or not isinstance(values[0], Tensor) or values[0].dim() < 2:
        return ProgramInput()
    value = values[0]
    batch = value.shape[0] if isinstance(value.shape[0], int) else None
    fixed = all(isinstance(size, int) for size in value.shape[1:])
    shape = tuple(int(size) for size in value.shape[1:]) if fixed else _example_shape(program)
    return ProgramInput(shape=shape, fixed=fixed, dtype=value.dtype, batch=batch)


def _example_shape(program: ExportedProgram) -> tuple[int, ...] | None:
    arguments = (program.example_inputs or ((), {}))[0]
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    return tuple(int(s) for s in tensors[0].shape[1:]) if len(tensors) == 1 else None
