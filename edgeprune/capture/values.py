"""Check that a network's outputs and weights are finite, not too large, and depend on the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeprune.errors import CaptureError

MOST = 1e18
"""Squares of larger numbers are infinite in single precision, and ranking reckons with squares."""


def check_values(module: nn.Module, outputs: Sequence[Tensor]) -> None:
    """Reject a network with unusable weights or ``outputs`` for random images in [0, 1).

    Raises:
        CaptureError: an output is empty, not finite or too large; or weights are too large.
    """
    for index, output in enumerate(outputs):
        if not output.numel():
            sizes = " x ".join(["batch", *(str(size) for size in output.shape[1:])])
            raise CaptureError(
                f"output {index} of the model has no values: it is of the shape {sizes}; accepted is at "
                "least one in every dimension: build the model with the classes that it was trained for"
            )
        told = _bad_values(output)
        if told is not None:
            raise CaptureError(
                f"output {index} of the model {told} for images of values between 0 and 1 "
                f"({_largest(module)}); accepted are finite outputs: give a checkpoint from before the "
                "training diverged, or mend the division, root or logarithm in its forward pass"
            )
    name, largest = _largest_weight(module)
    if largest > MOST:
        raise CaptureError(
            f"the model has weights as large as {largest:.1e}, in {name!r}, whose squares are infinite in "
            f"single precision; accepted are weights up to {MOST:.0e}: give a checkpoint from before "
            "the training diverged"
        )


def constant_notes(outputs: Sequence[Tensor]) -> tuple[str, ...]:
    """A note if the outputs do not depend on the image, as with all-zero weights."""
    if len(outputs[0]) < 2 or any(not torch.equal(o, o[:1].expand_as(o)) for o in outputs):
        return ()
    return (
        "the model gives the same outputs for every random image: unless it differs on real ones, no channel "
        "is of any worth to it, and values, accuracy and agreement tell nothing",
    )


def _bad_values(output: Tensor) -> str | None:
    bad = ~output.isfinite()
    if bool(bad.any()):
        kind = "NaN" if bool(output.isnan().any()) else "infinite values"
        where = "everywhere" if bool(bad.all()) else f"in {int(bad.sum())} of {output.numel()} places"
        return f"has {kind} {where}"
    largest = float(output.abs().max())
    if largest > MOST:
        return f"has values as large as {largest:.1e}, whose squares are infinite in single precision,"
    return None


def _largest(module: nn.Module) -> str:
    name, largest = _largest_weight(module)
    return f"its largest weight is {largest:.2g}, in {name!r}" if name else "it has no weights"


def _largest_weight(module: nn.Module) -> tuple[str, float]:
    """Name and magnitude of the largest parameter; buffers such as masks may hold huge values on purpose."""
    named = module.named_parameters()
    magnitudes = [(float(t.detach().abs().max()), n) for n, t in named if t.is_floating_point() and t.numel()]
    largest, name = max(magnitudes, default=(0.0, ""))
    return name, largest
