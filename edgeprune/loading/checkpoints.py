"""Read checkpoints without running code from them, find their weights and load them into a module."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelLoadError
from edgeprune.loading.tensors import check_conversion
from edgeprune.loading.weights import read_safetensors
from edgeprune.showing import first_few, in_short, shown_in_cell
from edgeprune.storage.archives import FileKind, foreign_globals_text, names_bytearray
from edgeprune.system.imports import ended_in_the_open, first_line, importable, user_code

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
_AVERAGED_WRAPPERS = ("ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_LISTED = 5
_DEEPEST = 8
_LONGEST_KEY = 100


def read_checkpoint(path: Path, kind: FileKind, *, trust_pickle: bool) -> Any:
    """Content of a checkpoint: tensors and plain containers only, unless the pickle is trusted.

    Raises:
        ModelLoadError: damaged, or it holds objects whose loading would run code.
    """
    name = str(path)
    if kind is FileKind.SAFETENSORS:
        return read_safetensors(path)
    if not trust_pickle:
        _check_pickle(path)
    try:
        # The current folder is importable only for the classes of a trusted pickle.
        classes = importable(Path.cwd()) if trust_pickle else contextlib.nullcontext()
        with classes, warnings.catch_warnings(), ended_in_the_open():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
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


def unwrap_checkpoint(content: Any, source: str) -> tuple[nn.Module | dict[str, Tensor], list[str]]:
    """The module or the state_dict inside a checkpoint, and notes on where it was.

    Raises:
        ModelLoadError: it contains neither.
    """
    notes: list[str] = []
    place = "the file"
    for _ in range(_DEEPEST):
        if isinstance(content, nn.Module):
            return content, notes
        if not isinstance(content, Mapping):
            break
        if content and _is_state_dict(content):
            return {_key(k): v for k, v in content.items() if isinstance(v, Tensor)}, notes
        key = next((k for k in (*_WRAPPERS, *_AVERAGED_WRAPPERS) if _holds_weights(content.get(k))), None)
        if key is None:
            break
        notes.append(f"weights taken from the entry {key!r} of {place}")
        others = [k for k in _AVERAGED_WRAPPERS if k != key and _holds_weights(content.get(k))]
        if others:
            notes.append(f"averaged weights under {others[0]!r} were not used")
        content, place = content[key], f"the entry {key!r}"
    else:
        raise ModelLoadError(
            f"{source!r} holds dictionaries within dictionaries, {_DEEPEST} and more deep; save "
            "model.state_dict() and give it with --arch"
        )
    raise ModelLoadError(
        f"{source!r} holds {_describe(content)} and no weights; accepted are a state_dict (also under "
        "'state_dict', 'model', 'model_state_dict' or 'ema'), a torch.export program or a whole module"
    )


def _holds_weights(value: Any) -> bool:
    return isinstance(value, nn.Module) or (isinstance(value, Mapping) and len(value) > 0)


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    tensors = sum(isinstance(v, Tensor) for v in content.values())
    containers = any(_holds_weights(v) for v in content.values())
    return tensors > 0 and not containers and 2 * tensors > len(content)


def _key(key: Any) -> str:
    """A key as text; of a key that is neither text nor a number (it may be nested deeply) only the type."""
    return str(key) if isinstance(key, (str, int, float)) else f"a key of type {type(key).__name__}"


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = ", ".join(in_short(_key(k), _LONGEST_KEY) for k in list(content)[:_LISTED])
        return f"a dictionary with the entries {keys}" if keys else "an empty dictionary"
    return f"an object of type {type(content).__name__}"


def fit_state(module: nn.Module, state: dict[str, Tensor], source: str, architecture: str) -> list[str]:
    """Load every tensor of ``state`` into ``module`` (changed in place) and return notes.

    Raises:
        ModelLoadError: keys are missing or unexpected, sizes differ, or types that cannot be converted.
    """
    expected = module.state_dict()
    problems = _missing_and_unexpected(module, expected, state)
    sizes = [
        f"{key} is {_shape(state[key])} instead of {_shape(reference)}"
        for key, reference in expected.items()
        if key in state and state[key].shape != reference.shape
    ]
    if sizes:
        problems.append(f"{len(sizes)} of another size: {_listed(sizes)}")
    if problems:
        raise ModelLoadError(
            f"the weights in {source!r} do not fit {architecture!r}: {'; '.join(problems)}; "
            "give the architecture that they were trained with"
        )
    for key, reference in expected.items():
        if key in state:
            check_conversion(key, state[key], reference, source)
    notes = []
    if any(
        state[key].is_floating_point() and state[key].dtype != expected[key].dtype
        for key in expected
        if key in state
    ):
        notes.append("weights of another floating-point type were converted to that of the architecture")
    remedy = "repair its methods and hooks that load weights"
    with user_code(f"{architecture!r}, given the weights in {source!r},", ModelLoadError, remedy):
        module.load_state_dict(state, strict=False)
    return notes


def strip_prefixes(state: dict[str, Tensor], keys: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Remove prefixes that wrappers add to every key, unless the model's ``keys`` have them."""
    notes: list[str] = []
    if "n_averaged" in state and "n_averaged" not in keys:
        state = {k: v for k, v in state.items() if k != "n_averaged"}
    while True:
        prefix = next((p for p in _PREFIXES if state and all(k.startswith(p) for k in state)), None)
        if prefix is None or len(keys & set(state)) > 0:
            return state, notes
        state = {k.removeprefix(prefix): v for k, v in state.items()}
        notes.append(f"the prefix {prefix!r} was removed from all keys")


def _missing_and_unexpected(
    module: nn.Module, expected: Mapping[str, Any], state: dict[str, Tensor]
) -> list[str]:
    # safetensors saves a tensor with two names once.
    loaded = {id(t) for name, t in _all_tensors(module) if name in state}
    tied = {name for name, t in _all_tensors(module) if id(t) in loaded}
    # Older files lack the counters of batch normalisation, which evaluation does not use.
    missing = [
        key
        for key in expected
        if key not in state and key not in tied and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in expected]
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing: {_listed(missing)}")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected: {_listed(unexpected)}")
    return problems


def _all_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]


def _listed(items: list[str]) -> str:
    return first_few([shown_in_cell(item) for item in items], _LISTED)


def _shape(tensor: Tensor) -> str:
    return "x".join(str(s) for s in tensor.shape) or "a scalar"
