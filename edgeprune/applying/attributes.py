"""Attributes of the user's own modules that repeat a pruned size, such as the width of an attention head.

Candidates are proposed here and accepted only if the model then gives the outputs of the rewritten graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from torch import nn

Sizes = Mapping[str, Mapping[int, Sequence[int]]]
"""Module -> size in its own forward pass -> what it has become, wherever it occurs."""

MOST_ATTEMPTS = 48
FUSED, SCALE = "fused_attn", "scale"
"""timm's attention either calls a fused operator, whose scale follows the smaller width, or uses its own."""

_LAYERS = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.PReLU,
)
"""Their sizes were taken from their tensors already."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A new value of a module's attribute."""

    module: str
    attribute: str
    value: object


class _Take(Enum):
    """Which new value to use for a size that has several."""

    LARGEST = "largest"
    SMALLEST = "smallest"
    OLD = "old"

    def of(self, old: int, new: Sequence[int]) -> int:
        """The selected new value of the size ``old``."""
        changed = [size for size in new if size != old] or [old]
        if self is _Take.OLD and old in new:
            return old
        return min(changed) if self is _Take.SMALLEST else max(changed)


def attempts(model: nn.Module, sizes: Sizes) -> Iterator[tuple[Change, ...]]:
    """Sets of changes to try, likeliest first; an attribute is treated alike in all modules of a class."""
    candidates = [
        (path, module, attribute, old)
        for path, module in model.named_modules()
        if path in sizes and not isinstance(module, _LAYERS)
        for attribute, old in vars(module).items()
        if not attribute.startswith("_") and set(_numbers(old)) & sizes[path].keys()
    ]
    doubtful: dict[tuple[type, str], list[_Take]] = {}
    for path, module, attribute, old in candidates:
        options = doubtful.setdefault((type(module), attribute), [])
        for size in set(_numbers(old)) & sizes[path].keys():
            options += [take for take in _options(size, sizes[path][size]) if take not in options]
    scaled = [
        Change(module=path, attribute=FUSED, value=False)
        for path, module in model.named_modules()
        if path in sizes and getattr(module, FUSED, None) is True and hasattr(module, SCALE)
    ]
    choices = itertools.product(*doubtful.values())
    for chosen in itertools.islice(choices, MOST_ATTEMPTS // 2):
        takes = dict(zip(doubtful, chosen, strict=True))
        changes = tuple(
            Change(
                module=path,
                attribute=attribute,
                value=_renewed(old, sizes[path], takes[type(module), attribute]),
            )
            for path, module, attribute, old in candidates
        )
        if changes:
            yield changes
        if scaled:
            yield (*changes, *scaled)


def put(model: nn.Module, changes: Sequence[Change]) -> tuple[Change, ...]:
    """Apply the changes; returns those that undo them."""
    undo = []
    for change in changes:
        module = model.get_submodule(change.module)
        undo.append(
            Change(
                module=change.module,
                attribute=change.attribute,
                value=getattr(module, change.attribute),
            )
        )
        setattr(module, change.attribute, change.value)
    return tuple(undo)


def _options(old: int, new: Sequence[int]) -> list[_Take]:
    options = [_Take.LARGEST]
    if len([size for size in new if size != old]) > 1:
        options.append(_Take.SMALLEST)
    return options + [_Take.OLD] * (old in new)


def _numbers(value: object) -> tuple[int, ...]:
    """An attribute's sizes: an integer itself, or all integers of a tuple or list (``nn.Unflatten``)."""
    if type(value) is int:
        return (value,)
    plain = isinstance(value, tuple | list) and all(type(v) is int for v in value)
    return tuple(value) if plain else ()  # type: ignore[arg-type]


def _renewed(value: object, sizes: Mapping[int, Sequence[int]], take: _Take) -> object:
    new = [take.of(v, sizes[v]) if v in sizes else v for v in _numbers(value)]
    return new[0] if isinstance(value, int) else type(value)(new)  # type: ignore[call-arg]
