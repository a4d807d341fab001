"""``load_model``: load a model from any accepted source, and reject others with one sentence."""

from __future__ import annotations

import contextlib
import copy
import difflib
import logging
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeprune.artifacts.model import LoadedModel, ModelFormat
from edgeprune.errors import ModelLoadError
from edgeprune.loading.architectures import (
    TORCHVISION_PREFIX,
    build,
    build_pretrained,
    check_torchvision_name,
    is_torchvision_name,
    nominal_input_shape,
)
from edgeprune.loading.batches import free_batch
from edgeprune.loading.checkpoints import fit_state, read_checkpoint, strip_prefixes, unwrap_checkpoint
from edgeprune.loading.onnx_import import import_onnx
from edgeprune.loading.programs import evaluation_mode, program_input, program_module, read_program
from edgeprune.loading.tensors import check_finite, check_tensors
from edgeprune.storage.archives import FileKind, detect_kind
from edgeprune.storage.files import sha256_file
from edgeprune.storage.zips import MODEL_LIMITS, ZipFaultError, check_zip
from edgeprune.system.imports import ended_in_the_open, first_line, user_code

_log = logging.getLogger("edgeprune.loading")
_ACCEPTED = (
    "accepted are a torch.export program (.pt2), an ONNX file (.onnx), a state_dict (.pt, .pth, "
    ".safetensors) with --arch, and torchvision:NAME"
)
_EXPORT_HOW = (
    "torch.export.save(torch.export.export(model.eval(), (torch.rand(1, 3, 224, 224),)), 'model.pt2')"
)


def load_model(
    source: str | Path | nn.Module,
    *,
    architecture: str | None = None,
    weights: str | None = None,
    trust_pickle: bool = False,
    input_shape: tuple[int, ...] | None = None,
    operators: Collection[str] = (),
) -> LoadedModel:
    """Load a model in evaluation mode, on the CPU, in float32.

    ``source`` is a module (copied, never changed), ``torchvision:NAME`` or a file: a torch.export
    archive, an ONNX file, a state_dict of ``architecture`` (``torchvision:NAME``,
    ``package.module:function`` or ``path/to/file.py:function``), or, with ``trust_pickle``, a whole pickled
    module. File kinds are detected by content. ``weights`` goes with ``torchvision:NAME``: a file, ``none``
    for random ones, or the name of weights to download (``default`` where it is ``None``). ``input_shape`` is
    (channels, height, width); where it is ``None`` that of the program, of the ONNX file or of torchvision's
    own weights is taken, if any.
    ``operators`` (``namespace::op``) are those of other packages that an archive may call.

    Raises:
        ModelLoadError: one sentence on what was given, what is accepted and what to do.
    """
    if isinstance(source, nn.Module):
        loaded = _from_module(source)
    elif str(source).startswith(TORCHVISION_PREFIX):
        loaded = _from_torchvision(str(source), architecture, weights, trust_pickle)
    elif weights is not None:
        raise ModelLoadError(
            f"weights {weights!r} go with torchvision:NAME only, and the model given is {str(source)!r}; "
            "give the file as the model and its class with --arch"
        )
    else:
        loaded = _from_file(str(source), architecture, trust_pickle, input_shape, operators)
    return _checked(loaded, input_shape)


def _from_module(source: nn.Module) -> LoadedModel:
    if isinstance(source, torch.jit.ScriptModule):
        raise ModelLoadError(
            f"a TorchScript module was given; give the nn.Module itself, or export it: {_EXPORT_HOW}"
        )
    try:
        with ended_in_the_open():
            module = copy.deepcopy(source)
    except Exception as error:
        raise ModelLoadError(
            f"the module {type(source).__name__} cannot be copied ({first_line(error)}); "
            "detach the tensors kept on it, or give its state_dict and architecture"
        ) from error
    name = f"{type(source).__module__}.{type(source).__qualname__}"
    return LoadedModel(module=module, format=ModelFormat.MODULE, source=name)


def _from_torchvision(
    source: str, architecture: str | None, weights: str | None, trust_pickle: bool
) -> LoadedModel:
    if architecture is not None and architecture != source:
        raise ModelLoadError(
            f"the model {source!r} names its architecture already and --arch gives {architecture!r}; "
            "leave --arch out"
        )
    name = source.removeprefix(TORCHVISION_PREFIX)
    check_torchvision_name(name)
    choice = weights or "default"
    if choice.lower() == "none":
        module, _ = build(source)
        return LoadedModel(
            module=module,
            format=ModelFormat.TORCHVISION,
            source=source,
            architecture=source,
            input_shape=nominal_input_shape(name),
            notes=("weights are random (seed 0), so accuracy figures mean nothing",),
        )
    if Path(choice).exists() or Path(choice).suffix in {".pt", ".pth", ".safetensors"}:
        fitted = _from_file(choice, source, trust_pickle)
        return LoadedModel(
            module=fitted.module,
            format=ModelFormat.TORCHVISION,
            source=source,
            architecture=source,
            sha256=fitted.sha256,
            notes=(f"weights from {choice}", *fitted.notes),
        )
    module, full_name = build_pretrained(name, choice)
    return LoadedModel(
        module=module,
        format=ModelFormat.TORCHVISION,
        source=source,
        architecture=source,
        input_shape=nominal_input_shape(name),
        notes=(f"weights {full_name}",),
    )


def _from_file(
    source: str,
    architecture: str | None,
    trust_pickle: bool,
    input_shape: tuple[int, ...] | None = None,
    operators: Collection[str] = (),
) -> LoadedModel:
    path = Path(source)
    _check_path(path, source)
    kind = detect_kind(path)
    if kind in {FileKind.EXPORTED_PROGRAM, FileKind.CHECKPOINT}:
        _check_archive(path)
    if kind is FileKind.EXPORTED_PROGRAM:
        return _from_program(path, architecture, trust_pickle, input_shape, operators)
    if kind is FileKind.ONNX:
        return _from_onnx(path, architecture, input_shape)
    if kind is FileKind.TORCHSCRIPT:
        raise ModelLoadError(
            f"{source!r} is a TorchScript archive, which has no editable graph; export the original model "
            f"instead: {_EXPORT_HOW}"
        )
    if kind not in {FileKind.CHECKPOINT, FileKind.SAFETENSORS}:
        raise ModelLoadError(f"{source!r} is {kind.value}; {_ACCEPTED}")
    content = read_checkpoint(path, kind, trust_pickle=trust_pickle)
    weights, notes = unwrap_checkpoint(content, source)
    if isinstance(weights, nn.Module):
        return LoadedModel(
            module=weights,
            format=ModelFormat.PICKLED_MODULE,
            source=source,
            architecture=f"{type(weights).__module__}.{type(weights).__qualname__}",
            sha256=sha256_file(path),
            notes=(*notes, "the file is a pickle and was trusted"),
        )
    return _from_state(path, weights, architecture, notes)


def _check_archive(path: Path) -> None:
    """Check what torch does not: checksums, and the unpacked sizes that an archive declares."""
    try:
        with path.open("rb") as stream:
            zipped = stream.read(2) == b"PK"
        if zipped:
            check_zip(path, MODEL_LIMITS)
    except ZipFaultError as fault:
        raise ModelLoadError(
            f"{str(path)!r} {fault}; copy or download the model again, or save it again"
        ) from fault
    except OSError as error:
        raise ModelLoadError(f"{str(path)!r} cannot be read ({error.strerror})") from error


def _check_path(path: Path, source: str) -> None:
    if path.is_dir():
        raise ModelLoadError(f"{source!r} is a folder; give the model file in it; {_ACCEPTED}")
    if path.is_file():
        return
    if path.exists():
        raise ModelLoadError(f"{source!r} is no regular file; {_ACCEPTED}")
    if ":" in source:
        raise ModelLoadError(
            f"{source!r} is no file; {_ACCEPTED}; a function that builds the model goes into --arch"
        )
    if source.isidentifier() and is_torchvision_name(source):
        raise ModelLoadError(f"{source!r} does not exist; did you mean torchvision:{source}?")
    raise ModelLoadError(f"{source!r} does not exist; {_nearest(path)}{_ACCEPTED}")


def _nearest(path: Path) -> str:
    """Suggest the file with the most similar name, as the user could have typed it."""
    with contextlib.suppress(OSError):
        files = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
        near = difflib.get_close_matches(path.name, files, n=1, cutoff=0.75)
        if near:
            return f"did you mean {str(path.with_name(near[0]))!r}? "
    return ""


def _from_program(
    path: Path,
    architecture: str | None,
    trust_pickle: bool,
    asked: tuple[int, ...] | None,
    operators: Collection[str],
) -> LoadedModel:
    program = read_program(path, trust_pickle=trust_pickle, operators=operators)
    module = program_module(program, str(path))
    taken = program_input(program)
    if asked is not None and taken.fixed and taken.shape is not None and tuple(asked) != taken.shape:
        raise ModelLoadError(
            f"{str(path)!r} was exported for images of {_by(taken.shape)} and the input shape given is "
            f"{_by(asked)}; leave it out, or export the model again for that shape"
        )
    if taken.dtype not in {None, torch.float32}:
        raise ModelLoadError(
            f"{str(path)!r} takes inputs of {taken.dtype}; export model.float() with a float32 example"
        )
    notes = []
    if taken.batch is not None:
        if taken.shape is not None:
            free_batch(module, taken.batch, taken.shape, str(path))
        notes.append(f"the program was exported for a fixed batch of {taken.batch}; it takes any batch here")
    if architecture is not None:
        notes.append("an exported program holds its architecture; --arch was not needed and not used")
    return LoadedModel(
        module=module,
        format=ModelFormat.EXPORTED_PROGRAM,
        source=str(path),
        input_shape=taken.shape,
        sha256=sha256_file(path),
        notes=tuple(notes),
    )


def _from_onnx(path: Path, architecture: str | None, asked: tuple[int, ...] | None) -> LoadedModel:
    imported = import_onnx(path, asked)
    notes = [f"imported from ONNX opset {imported.opset}"]
    if imported.fixed_batch is not None:
        notes.append(
            f"the file has a fixed batch of {imported.fixed_batch}; the network takes any batch here"
        )
    if architecture is not None:
        notes.append("an ONNX file holds its architecture; --arch was not needed and not used")
    return LoadedModel(
        module=imported.module,
        format=ModelFormat.ONNX,
        source=str(path),
        input_shape=imported.input_shape,
        sha256=sha256_file(path),
        notes=tuple(notes),
    )


def _from_state(
    path: Path, state: dict[str, Tensor], architecture: str | None, notes: list[str]
) -> LoadedModel:
    if architecture is None:
        raise ModelLoadError(
            f"{str(path)!r} is a state_dict: weights without the model; say what they belong to with "
            "--arch torchvision:NAME, --arch package.module:function or --arch path/to/file.py:function"
        )
    check_tensors(state.items(), str(path))
    module, _ = build(architecture)
    state, removed = strip_prefixes(state, set(module.state_dict()))
    built: tuple[str, ...] = ()
    if architecture.startswith(TORCHVISION_PREFIX):
        module, built = build(architecture, state)
    fitted = fit_state(module, state, str(path), architecture)
    return LoadedModel(
        module=module,
        format=ModelFormat.STATE_DICT,
        source=str(path),
        architecture=architecture,
        sha256=sha256_file(path),
        notes=(*notes, *removed, *built, *fitted),
    )


def _checked(loaded: LoadedModel, input_shape: tuple[int, ...] | None) -> LoadedModel:
    """Final steps for all sources: unwrap, CPU, float32, finite values, evaluation mode, input shape."""
    module, notes = loaded.module, list(loaded.notes)
    while isinstance(inner := getattr(module, "_orig_mod", None) or _parallel(module), nn.Module):
        notes.append(f"the model was taken out of its wrapper {type(module).__name__}")
        module = inner
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    check_tensors(tensors.items(), loaded.source)
    if not any(tensor.is_floating_point() for tensor in tensors.values()):
        raise ModelLoadError(f"{loaded.source!r} has no floating-point weights; give a trained network")
    other = {str(t.dtype) for t in tensors.values() if t.is_floating_point()} - {"torch.float32"}
    if other:
        notes.append(f"weights of {', '.join(sorted(other))} were converted to float32")
    remedy = "repair its methods 'eval' and 'to'"
    with user_code(f"the model {loaded.source!r}, put into evaluation mode,", ModelLoadError, remedy):
        module = evaluation_mode(module, loaded.source).to(device="cpu").float()
    check_finite([*module.named_parameters(), *module.named_buffers()], loaded.source)
    for note in notes:
        _log.info("%s: %s", loaded.source, note)
    return LoadedModel(
        module=module,
        format=loaded.format,
        source=loaded.source,
        architecture=loaded.architecture,
        input_shape=loaded.input_shape if input_shape is None else tuple(input_shape),
        sha256=loaded.sha256,
        notes=tuple(notes),
    )


def _parallel(module: nn.Module) -> nn.Module | None:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
    return module.module if isinstance(module, wrappers) else None


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(s) for s in shape)
