"""Load and run ONNX models so that a limit on time, or Ctrl-C, ends what may never end by itself.

Python cannot stop a thread inside onnxruntime, and a signal waits until the main thread is back in Python.
So the call is made in a thread beside it. ``RunOptions.terminate`` then ends a run between two nodes, those
of a ``Loop`` included, on every system and without a second process that loads the model again. A single
operator, a ``Loop`` without nodes or a model that is still being loaded does not look at it: such a thread is
left behind, and ends with the process.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeprune.artifacts.model import places_in_a_row
from edgeprune.errors import EdgepruneError
from edgeprune.system.imports import first_line

_REASON_LENGTH = 300
_LOOK_S = 0.1
"""Waiting without end would be deaf to Ctrl-C on Windows."""
_GRACE_S = 2.0
_FATAL = 4

Result = TypeVar("Result")

_EXACT, _UNFUSED = "session.x64quantprecision", "session.disable_quant_qdq"
_SHARED_WEIGHTS = "replace the existing tensor"


class TooLongError(Exception):
    """A limit on time was exceeded; the text begins a sentence's reason."""


@contextlib.contextmanager
def in_a_sentence(
    error: type[EdgepruneError], sentence: Callable[[str], str], *, name: str = ""
) -> Iterator[None]:
    """Whatever onnxruntime raises becomes what ``sentence`` makes of its reason; limits on time have theirs.

    Raises:
        EdgepruneError: of class ``error``; on a limit behind ``name``, that of the file.
    """
    try:
        yield
    except EdgepruneError:
        raise
    except TooLongError as reason:
        raise error(f"{name}: {reason}" if name else str(reason)) from reason
    except Exception as reason:  # onnxruntime's own exceptions share no base but Exception
        raise error(sentence(first_line(reason, _REASON_LENGTH))) from reason


@functools.cache
def _quiet_default_logger() -> None:
    """Allocations and the like are logged by the process's logger, coloured, whatever a session says.

    It is onnxruntime's only one, so this holds for sessions of the caller, too: what fails is raised.
    """
    onnxruntime.set_default_logger_severity(_FATAL)


def open_session(
    model: Path | bytes,
    options: onnxruntime.SessionOptions,
    *,
    timeout_s: float | None = None,
    without: Sequence[str] = (),
) -> onnxruntime.InferenceSession:
    """A session on the CPU of a file or of serialized bytes, which also calculates what is constant.

    ``without`` names optimizers of onnxruntime that are left out.

    Raises:
        TooLongError: that took longer than ``timeout_s`` seconds.
        Exception: onnxruntime cannot load the model; its own exceptions share no other base.
    """
    _quiet_default_logger()
    given = model if isinstance(model, bytes) else str(model)
    more: dict[str, Any] = {"disabled_optimizers": list(without)} if without else {}
    return within(
        lambda: onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"], **more),
        timeout_s,
        what="loading the model",
    )


def open_exact_session(
    model: Path | bytes, options: onnxruntime.SessionOptions, *, timeout_s: float | None = None
) -> onnxruntime.InferenceSession:
    """:func:`open_session` for what is judged: products of 8 bits are exact on x86 without VNNI, too.

    onnxruntime's usual ones saturate there, and those of boards do not; latencies are of the usual kernels.
    Where two nodes share a weight, onnxruntime (1.31) cannot load a model so: operators then
    calculate in 32 bits between their roundings, which is exact as well.

    Raises:
        Exception: as :func:`open_session`.
    """
    options.add_session_config_entry(_EXACT, "1")
    try:
        return open_session(model, options, timeout_s=timeout_s)
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        if _SHARED_WEIGHTS not in str(error):
            raise
    options.add_session_config_entry(_EXACT, "0")
    options.add_session_config_entry(_UNFUSED, "1")
    return open_session(model, options, timeout_s=timeout_s)


def run_session(
    session: onnxruntime.InferenceSession,
    names: Sequence[str] | None,
    feeds: Mapping[str, Any],
    timeout_s: float | None = None,
) -> list[Any]:
    """The outputs of these names, all where ``names`` is ``None``.

    Raises:
        TooLongError: one run took longer than ``timeout_s`` seconds.
        Exception: onnxruntime cannot run the model; its own exceptions share no other base.
    """
    options = onnxruntime.RunOptions()

    def stop() -> None:
        options.terminate = True

    return within(
        lambda: session.run(names, feeds, options), timeout_s, stop=stop, what="one run of the model"
    )


def run_filled(
    session: onnxruntime.InferenceSession,
    names: Sequence[str] | None,
    images: NDArray[Any],
    timeout_s: float | None,
) -> list[Any]:
    """Outputs of a session for images (n, ...), no more than its batch where it is fixed.

    Where they do not fill such a batch the last one is repeated; tensors are cut to what the images gave. A
    session of several inputs takes rows (n, values) that join them.

    Raises:
        As :func:`run_session`.
    """
    count = len(images)
    missing = (fixed_batch(session) or count) - count
    filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing > 0 else images
    outputs = run_session(session, names, _feeds(session, filled), timeout_s)
    return [out[:count] if isinstance(out, np.ndarray) and out.ndim else out for out in outputs]


def _feeds(session: onnxruntime.InferenceSession, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The input, or the inputs that the rows join."""
    given = session.get_inputs()
    if len(given) == 1:
        return {given[0].name: images}
    places = places_in_a_row(tuple(each.shape[1:]) for each in given)
    return {
        each.name: np.ascontiguousarray(images[:, start:end]).reshape(-1, *each.shape[1:])
        for each, (start, end) in zip(given, places, strict=True)
    }


def fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """The size of a batch that the first input of a session is fixed to; ``None`` where it is dynamic."""
    shape = session.get_inputs()[0].shape
    return shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else None


def within(
    action: Callable[[], Result],
    timeout_s: float | None,
    *,
    what: str,
    stop: Callable[[], None] | None = None,
) -> Result:
    """What ``action`` returns or raises, unless it takes too long; without a limit it is just called.

    ``stop`` asks it to end, after the limit and on Ctrl-C; where nothing can, it is left behind at once.

    Raises:
        TooLongError: names ``what`` took too long.
    """
    if timeout_s is None:
        return action()
    results: list[Result] = []
    failed: list[BaseException] = []
    ended = threading.Event()

    def call() -> None:
        try:
            results.append(action())
        except BaseException as error:
            failed.append(error)
        finally:
            ended.set()

    until = time.monotonic() + timeout_s
    threading.Thread(target=call, daemon=True).start()
    try:
        while not ended.wait(max(0.0, min(_LOOK_S, until - time.monotonic()))):
            if time.monotonic() >= until:
                raise TooLongError(
                    f"{what} took longer than {timeout_s:g} s; allow more with --timeout if it ends at all"
                )
    except BaseException:
        if stop is not None:
            stop()
            ended.wait(_GRACE_S)
        raise
    if failed:
        raise failed[0]
    return results[0]
