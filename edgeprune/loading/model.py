"""``load_model``: load a model from any accepted source, and reject others with one sentence."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeprune.artifacts.model import LoadedModel, ModelFormat
from edgeprune.errors import ModelLoadError
from edgeprune.loading.architectures.building import ACCEPTED, Architecture, Library, library_of
from edgeprune.loading.architectures.timm_models import build_timm_pretrained
from edgeprune.loading.architectures.torchvision_models import build_pretrained, is_torchvision_name
from edgeprune.loading.architectures.transformers_models import CONFIG
from edgeprune.loading.batches import free_batch
from edgeprune.loading.checkpoints.containers import unwrap_checkpoint
from edgeprune.loading.checkpoints.fitting import fit_state
from edgeprune.loading.checkpoints.folders import INDEX, NAMES, read_shards, weights_in
from edgeprune.loading.checkpoints.reading import read_checkpoint
from edgeprune.loading.checkpoints.state import StateDict
from edgeprune.loading.onnx_import import import_onnx
from edgeprune.loading.programs import evaluation_mode, program_input, program_module, read_program
from edgeprune.loading.tensors import check_finite, check_tensors
from edgeprune.notes import Fact
from edgeprune.storage.archives import FileKind, detect_kind
from edgeprune.storage.files import near_path, sha256_file
from edgeprune.storage.zips import MODEL_LIMITS, ZipFaultError, check_zip
from edgeprune.system.imports import ended_in_the_open, first_line, user_code

_log = logging.getLogger("edgeprune.loading")
_ACCEPTED = (
    "accepted are a torch.export program (.pt2), an ONNX file (.onnx), a state_dict (.pt, .pth, "
    ".safetensors) with --arch, and torchvision:NAME, timm:NAME or hf:FOLDER"
)
_SUFFIXES = {".pt", ".pth", ".safetensors"}
_EXPORT_HOW = (
    "torch.export.save(torch.export.export(model.eval(), (torch.rand(1, 3, 224, 224),)), 'model.pt2')"
)


@dataclass(frozen=True)
class _Reading:
    """How a source is read: the options of :func:`load_model`."""

    architecture: Architecture | None
    weights_key: str | None
    trust_pickle: bool
    input_shape: tuple[int, ...] | None
    operators: Collection[str]


def load_model(
    source: str | Path | nn.Module,
    *,
    architecture: str | None = None,
    arch_kwargs: Mapping[str, Any] | None = None,
    weights: str | None = None,
    weights_key: str | None = None,
    trust_pickle: bool = False,
    input_shape: tuple[int, ...] | None = None,
    operators: Collection[str] = (),
) -> LoadedModel:
    """Load a model in evaluation mode, on the CPU, in float32.

    ``source`` is a module (copied, never changed), ``torchvision:NAME``, ``timm:NAME``, ``hf:FOLDER`` (of
    transformers, on this machine) or a file: a torch.export archive, an ONNX file, a state_dict of
    ``architecture`` (such a name, ``package.module:function`` or ``path/to/file.py:function``; called with
    ``arch_kwargs``), or, with ``trust_pickle``, a whole pickled module; or a folder with safetensors files.
    File kinds are detected by content. ``weights`` goes with such a name: a file, ``none`` for random ones,
    or the name of weights to download (``default`` where it is ``None``; of ``hf:FOLDER`` those in it).
    ``weights_key`` says which entry of a checkpoint holds the weights. ``input_shape`` is (channels, height,
    width); where it is ``None`` that of the program, of the ONNX file or of the named model is taken, if any.
    ``operators`` (``namespace::op``)
    are those of other packages that an archive may call.

    Raises:
        ModelLoadError: one sentence on what was given, what is accepted and what to do.
    """
    named = None if isinstance(source, nn.Module) else library_of(str(source))
    name = architecture if named is None or architecture is not None else str(source)
    options = dict(arch_kwargs or {})
    if options and name is None:
        raise ModelLoadError(
            f"--arch-kwargs ({', '.join(options)}) were given without an architecture; give --arch {ACCEPTED}"
        )
    built_as = None if name is None else Architecture(name, options)
    reading = _Reading(built_as, weights_key, trust_pickle, input_shape, operators)
    if isinstance(source, nn.Module):
        _refuse_key(reading, "a module")
        loaded = _from_module(source)
    elif named is not None:
        loaded = _from_name(str(source), weights, reading)
    elif weights is not None:
        raise ModelLoadError(
            f"weights {weights!r} go with torchvision:NAME only (or timm:NAME, hf:FOLDER), and the model "
            f"given is {str(source)!r}; give the file as the model and its class with --arch"
        )
    else:
        loaded = _from_file(str(source), reading)
    return _checked(loaded, input_shape)


def _refuse_key(reading: _Reading, given: str) -> None:
    if reading.weights_key is not None:
        raise ModelLoadError(
            f"--weights-key {reading.weights_key!r} was given, which names an entry of a checkpoint, and the "
            f"model given is {given}; leave it out, or give the checkpoint"
        )


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


def _from_name(source: str, weights: str | None, reading: _Reading) -> LoadedModel:
    named = reading.architecture
    assert named is not None  # the source names one
    if named.name != source or named.library is None:
        raise ModelLoadError(
            f"the model {source!r} names its architecture already and --arch gives {named.name!r}; "
            "leave --arch out"
        )
    choice = weights or "default"
    given = LoadedModel(module=nn.Identity(), format=named.library.format, source=source, architecture=source)
    if choice.lower() == "none":
        _refuse_key(reading, f"{source} with random weights")
        built = named.build()
        note = "weights are random (seed 0), so accuracy figures mean nothing"
        return replace(given, module=built, input_shape=named.input_shape(built), notes=(note,))
    folder = named.bare_name if named.library is Library.TRANSFORMERS and choice == "default" else None
    if folder is not None or Path(choice).exists() or Path(choice).suffix in _SUFFIXES:
        if folder is not None:
            named.build()  # says first what is wrong with the folder itself
        fitted = _from_file(folder or choice, reading)
        told = Fact(f"weights from {folder or choice}")
        shape = named.input_shape(fitted.module)
        return replace(
            given,
            module=fitted.module,
            sha256=fitted.sha256,
            input_shape=shape if named.library is Library.TRANSFORMERS else None,
            notes=(told, *fitted.notes),
        )
    _refuse_key(reading, f"{source} with weights by name")
    return _downloaded(given, named, choice)


def _downloaded(given: LoadedModel, named: Architecture, choice: str) -> LoadedModel:
    if named.library is Library.TRANSFORMERS:
        raise ModelLoadError(
            f"weights {choice!r} of {named.name} are no file; give a file, 'none', or leave --weights out to "
            "take those in the folder"
        )
    make = build_pretrained if named.library is Library.TORCHVISION else build_timm_pretrained
    built, full_name = make(named.bare_name, choice, named.options)
    shape = named.input_shape(built)
    return replace(given, module=built, input_shape=shape, notes=(f"weights {full_name}",))


def _from_file(source: str, reading: _Reading) -> LoadedModel:
    path = Path(source)
    if path.is_dir() and (weights := weights_in(path)) is not None:
        if weights.name == INDEX:
            return _from_shards(path, weights, reading)
        path = weights
    _check_path(path, source)
    kind = detect_kind(path)
    if kind in {FileKind.EXPORTED_PROGRAM, FileKind.CHECKPOINT}:
        _check_archive(path)
    if kind is FileKind.EXPORTED_PROGRAM:
        return _from_program(path, reading)
    if kind is FileKind.ONNX:
        return _from_onnx(path, reading)
    if kind is FileKind.TORCHSCRIPT:
        raise ModelLoadError(
            f"{source!r} is a TorchScript archive, which has no editable graph; export the original model "
            f"instead: {_EXPORT_HOW}"
        )
    if kind not in {FileKind.CHECKPOINT, FileKind.SAFETENSORS}:
        raise ModelLoadError(f"{source!r} is {kind.value}; {_ACCEPTED}")
    content, beside = read_checkpoint(path, kind, trust_pickle=reading.trust_pickle)
    weights_found, notes = unwrap_checkpoint(content, str(path), reading.weights_key)
    notes = [*beside, *notes]
    if isinstance(weights_found, nn.Module):
        kept = type(weights_found)
        return LoadedModel(
            module=weights_found,
            format=ModelFormat.PICKLED_MODULE,
            source=source,
            architecture=f"{kept.__module__}.{kept.__qualname__}",
            sha256=sha256_file(path),
            notes=(*notes, "the file is a pickle and was trusted"),
        )
    return _from_state(str(path), weights_found, reading, notes, sha256_file(path))


def _from_shards(folder: Path, index: Path, reading: _Reading) -> LoadedModel:
    tensors, listed, sha256 = read_shards(index)
    state, notes = unwrap_checkpoint(tensors, str(folder), reading.weights_key)
    assert isinstance(state, StateDict)  # nothing else is in safetensors files
    return _from_state(str(folder), state, reading, [*listed, *notes], sha256)


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
    if path.is_dir() and (path / CONFIG).is_file():
        raise ModelLoadError(
            f"the folder {source!r} has {CONFIG} and no file of weights; accepted beside it are "
            f"{', '.join(NAMES[:-1])} or {NAMES[-1]}: add them (save_pretrained writes both), or give "
            f"hf:{source} with --weights FILE, or with --weights none for random ones"
        )
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
    raise ModelLoadError(f"{source!r} does not exist; {near_path(path, files_only=True)}{_ACCEPTED}")


def _from_program(path: Path, reading: _Reading) -> LoadedModel:
    program = read_program(path, trust_pickle=reading.trust_pickle, operators=reading.operators)
    asked = reading.input_shape
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
    if taken.batch is not None and taken.shape is not None:
        free_batch(module, taken.batch, taken.shape, str(path))
        notes.append(f"the program was exported for a fixed batch of {taken.batch}; it takes any batch here")
    if reading.architecture is not None:
        notes.append("an exported program holds its architecture; --arch was not needed and not used")
    if reading.weights_key is not None:
        notes.append(
            "an exported program holds one set of weights; --weights-key was not needed and not used"
        )
    return LoadedModel(
        module=module,
        format=ModelFormat.EXPORTED_PROGRAM,
        source=str(path),
        input_shape=taken.shape,
        sha256=sha256_file(path),
        notes=tuple(notes),
    )


def _from_onnx(path: Path, reading: _Reading) -> LoadedModel:
    imported = import_onnx(path, reading.input_shape)
    notes: list[str] = [Fact(f"imported from ONNX opset {imported.opset}"), *imported.notes]
    if imported.fixed_batch is not None:
        notes.append(
            f"the file has a fixed batch of {imported.fixed_batch}; the network takes any batch here"
        )
    for option, given in (("--arch", reading.architecture), ("--weights-key", reading.weights_key)):
        if given is not None:
            notes.append(f"an ONNX file holds its network and weights; {option} was not needed and not used")
    return LoadedModel(
        module=imported.module,
        format=ModelFormat.ONNX,
        source=str(path),
        input_shape=imported.input_shape,
        sha256=sha256_file(path),
        notes=tuple(notes),
    )


def _from_state(
    source: str, state: StateDict, reading: _Reading, notes: list[str], sha256: str
) -> LoadedModel:
    named = reading.architecture
    if named is None:
        raise ModelLoadError(
            f"{source!r} is a state_dict: weights without the model; say what they belong to with "
            f"--arch {ACCEPTED.replace(', ', ', --arch ').replace(' or ', ' or --arch ')}"
        )
    check_tensors(state.tensors.items(), source)
    module, fitted = fit_state(named, state, source)
    return LoadedModel(
        module=module,
        format=ModelFormat.STATE_DICT,
        source=source,
        architecture=named.name,
        input_shape=named.input_shape(module) if named.library is Library.TRANSFORMERS else None,
        sha256=sha256,
        notes=(*notes, *fitted),
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
    shape = loaded.input_shape if input_shape is None else tuple(input_shape)
    return replace(loaded, module=module, input_shape=shape, notes=tuple(notes))


def _parallel(module: nn.Module) -> nn.Module | None:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
    return module.module if isinstance(module, wrappers) else None


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(s) for s in shape)
