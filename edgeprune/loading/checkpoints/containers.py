"""Find the weights inside a checkpoint: state_dicts within dictionaries, or a whole module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from edgeprune.errors import ModelLoadError
from edgeprune.loading.checkpoints.reading import NotRead
from edgeprune.loading.checkpoints.state import StateDict, is_extra_state, versions_of
from edgeprune.showing import did_you_mean, first_few, in_short, shown_in_cell

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
_AVERAGED_WRAPPERS = ("ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema")
_LISTED = 5
_DEEPEST = 8
_LONGEST_KEY = 100


def unwrap_checkpoint(
    content: Any, source: str, weights_key: str | None = None
) -> tuple[nn.Module | StateDict, list[str]]:
    """The module or the state_dict inside a checkpoint, and notes on where it was.

    ``weights_key`` names the entry to take: a dotted path through dictionaries, or a prefix of keys.

    Raises:
        ModelLoadError: it contains neither, or has no such entry.
    """
    notes: list[str] = []
    place = "the file"
    if weights_key is not None:
        content = _entry(content, weights_key, source)
        place = f"the entry {weights_key!r}"
        notes.append(f"weights taken from the entry {weights_key!r} of the file, as asked")
    for _ in range(_DEEPEST):
        if isinstance(content, StateDict | nn.Module):
            return content, notes
        if not isinstance(content, Mapping):
            break
        if content and _is_state_dict(content):
            return _state_dict(content, source, notes), notes
        key = next((k for k in (*_WRAPPERS, *_AVERAGED_WRAPPERS) if _holds_weights(content.get(k))), None)
        if key is None:
            break
        notes.append(f"weights taken from the entry {key!r} of {place}")
        others = [k for k in _AVERAGED_WRAPPERS if k != key and _holds_weights(content.get(k))]
        if others:
            notes.append(
                f"averaged weights under {others[0]!r} were not used (--weights-key {others[0]} takes them)"
            )
        content, place = content[key], f"the entry {key!r}"
    else:
        raise ModelLoadError(
            f"{source!r} holds dictionaries within dictionaries, {_DEEPEST} and more deep; save "
            "model.state_dict() and give it with --arch"
        )
    where = f" under {weights_key!r}" if weights_key is not None else ""
    raise ModelLoadError(
        f"{source!r} holds {_describe(content)}{where} and no weights; accepted are a state_dict (also under "
        "'state_dict', 'model', 'model_state_dict' or 'ema'), a torch.export program or a whole module"
    )


def _entry(content: Any, path: str, source: str) -> Any:
    """What lies under a dotted path; keys may have dots, too, and the end may be a prefix of keys.

    Raises:
        ModelLoadError: nothing does; names the keys that are there.
    """
    rest = path
    while rest:
        if not isinstance(content, Mapping):
            break
        parts = rest.split(".")
        heads = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        head = next((h for h in heads if h in content), None)
        if head is None:
            if any(isinstance(key, str) and key.startswith(rest + ".") for key in content):
                return _state_dict(content, source, []).below(rest + ".")
            break
        content, rest = content[head], rest[len(head) + 1 :]
    if path and not rest:
        return content
    keys = _first_parts(content) if isinstance(content, Mapping) else []
    told = first_few([in_short(key, _LONGEST_KEY) for key in keys], 2 * _LISTED)
    has = f"it has {told}" if keys else f"there is {_describe(content)}"
    before = path[: len(path) - len(rest)].rstrip(".")
    there = f" under {before!r}" if before else ""
    raise ModelLoadError(
        f"--weights-key {path!r} was given and {source!r} has no entry {rest!r}{there}; {has}; "
        f"{did_you_mean(rest, keys)}give one that holds weights"
    )


def _first_parts(content: Mapping[Any, Any]) -> list[str]:
    """Keys of a dictionary; of a state_dict only what its keys begin with."""
    keys: Iterable[str] = (_key(key) for key in content)
    if content and _is_state_dict(content):
        keys = (key.partition(".")[0] for key in keys)
    return list(dict.fromkeys(keys))


def _state_dict(content: Mapping[Any, Any], source: str, notes: list[str]) -> StateDict:
    entries = {_key(k): v for k, v in content.items()}
    kept = {k: v for k, v in entries.items() if isinstance(v, Tensor) or is_extra_state(k)}
    for key, value in kept.items():
        if not isinstance(value, Tensor) and _has_not_read(value):
            raise ModelLoadError(
                f"{source!r} holds a pickled object in {shown_in_cell(key)!r}, which the model would be "
                "given; save plain values there, or pass --trust-pickle if you trust its maker"
            )
    if others := [shown_in_cell(key) for key in entries if key not in kept]:
        notes.append(f"{left_out_as(others, 'no tensor')}: {first_few(others, _LISTED)}")
    return StateDict(entries=kept, versions=versions_of(content))


def _has_not_read(value: Any) -> bool:
    """Whether a value of plain containers, which may contain itself, has something that was not read."""
    pending, seen = [value], set()
    while pending:
        item = pending.pop()
        if isinstance(item, NotRead):
            return True
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Mapping):
            pending.extend([*item.keys(), *item.values()])
        elif isinstance(item, list | tuple | set):
            pending.extend(item)
    return False


def left_out_as(keys: list[str], what: str, several: str | None = None) -> str:
    """``3 entries, which are no tensors, were left out``, as the beginning of a note."""
    if len(keys) == 1:
        return f"1 entry, which is {what}, was left out"
    return f"{len(keys)} entries, which are {several or what + 's'}, were left out"


def _holds_weights(value: Any) -> bool:
    return isinstance(value, nn.Module) or (isinstance(value, Mapping) and len(value) > 0)


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    values = [value for key, value in content.items() if not is_extra_state(_key(key))]
    tensors = sum(isinstance(value, Tensor) for value in values)
    wrapped = any(_holds_weights(content.get(key)) for key in (*_WRAPPERS, *_AVERAGED_WRAPPERS))
    return tensors > 0 and not wrapped and 2 * tensors > len(values)


def _key(key: Any) -> str:
    """A key as text; of a key that is neither text nor a number (it may be nested deeply) only the type."""
    return str(key) if isinstance(key, (str, int, float)) else f"a key of type {type(key).__name__}"


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = ", ".join(in_short(_key(k), _LONGEST_KEY) for k in list(content)[:_LISTED])
        return f"a dictionary with the entries {keys}" if keys else "an empty dictionary"
    return f"an object of type {type(content).__name__}"
