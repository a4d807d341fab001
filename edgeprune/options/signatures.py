"""Functions of one options object that are called with its fields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_type_hints

from edgeprune.options.argument_types import check_types, plain_number
from edgeprune.showing import did_you_mean

Parameters = ParamSpec("Parameters")
Options = TypeVar("Options")
Result = TypeVar("Result")


def called_with(
    kind: Callable[Parameters, Options],
) -> Callable[[Callable[[Options], Result]], Callable[Parameters, Result]]:
    """Decorator that lets a function of an options object be called with the arguments of ``kind``.

    Type checkers and ``inspect.signature`` see the signature of ``kind``.
    """

    def decorate(function: Callable[[Options], Result]) -> Callable[Parameters, Result]:
        from torch import nn  # needed for annotations only, and already loaded when functions are decorated

        hints = get_type_hints(kind, localns={"nn": nn})
        hints |= {"return": get_type_hints(function)["return"]}
        given = inspect.signature(kind)

        @functools.wraps(function)
        def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
            _check_names(function.__name__, kind, options)
            named = {name: plain_number(value) for name, value in options.items()}
            placed = dict(zip(given.parameters, arguments, strict=False))
            check_types(function.__name__, kind, hints, placed | named)
            return function(kind(*arguments, **named))

        call.__signature__ = given.replace(  # type: ignore[attr-defined]
            parameters=[p.replace(annotation=hints[p.name]) for p in given.parameters.values()],
            return_annotation=hints["return"],
        )
        call.__annotations__ = {**{name: hints[name] for name in given.parameters}, "return": hints["return"]}
        return call

    return decorate


def _check_names(function: str, kind: Callable[..., Any], options: dict[str, Any]) -> None:
    known = list(inspect.signature(kind).parameters)
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known).strip() or f"accepted are {', '.join(known)}"
            raise TypeError(f"{function}() has no option {name!r}; {hint}")
