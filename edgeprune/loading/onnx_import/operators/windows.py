"""Windows that move over an image: their attributes in convolutions and pools."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.loading.onnx_import.site import Site
from edgeprune.loading.onnx_import.values import UnknownFormError


@dataclass(frozen=True)
class Window:
    """Size, step and padding, each for every spatial dimension; padding in front and behind."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def even(self) -> bool:
        """Whether both sides are padded alike."""
        return self.before == self.after

    @property
    def pads(self) -> list[int]:
        """As ``torch.nn.functional.pad`` takes it."""
        return torch_pads(self.before, self.after)


def torch_pads(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """Padding as ``torch.nn.functional.pad`` takes it: pairs from the last dimension on."""
    return [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]


def window(site: Site, kernel: tuple[int, ...] | None = None) -> Window:
    """The window of a node; ``kernel`` is that of its weights."""
    given = site.attribute("kernel_shape", kernel)
    if given is None:
        raise UnknownFormError("has no kernel_shape")
    if kernel is not None and tuple(given) != kernel:
        raise UnknownFormError(f"has a kernel_shape {tuple(given)} and weights of {kernel}")
    size, rank = tuple(map(int, given)), len(given)
    if not 1 <= rank <= 3 or site.rank() != rank + 2:
        raise UnknownFormError(f"has {rank} spatial dimensions, and accepted are 1 to 3")
    strides = _per_dimension(site, "strides", 1, rank)
    dilations = _per_dimension(site, "dilations", 1, rank)
    pads = tuple(map(int, site.attribute("pads", (0,) * (2 * rank))))
    how = site.attribute("auto_pad", "NOTSET")
    if how in ("NOTSET", ""):
        if len(pads) != 2 * rank or min(pads) < 0:
            raise UnknownFormError(f"has pads {pads}, and accepted are two from 0 for each dimension")
    elif how == "VALID":
        pads = (0,) * (2 * rank)
    elif how in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same(site.shape(0)[2:], size, strides, dilations, upper=how == "SAME_UPPER")
    else:
        raise UnknownFormError(f"has auto_pad={how}, which is not known")
    return Window(size, strides, dilations, pads[:rank], pads[rank:])


def _per_dimension(site: Site, name: str, default: int, rank: int) -> tuple[int, ...]:
    given = tuple(map(int, site.attribute(name, (default,) * rank)))
    if len(given) != rank or min(given) < 1:
        raise UnknownFormError(f"has {name} {given}, and accepted is one from 1 for each dimension")
    return given


def _same(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    upper: bool,
) -> tuple[int, ...]:
    """Padding with which the result has the size of the input, by the strides."""
    totals = [
        max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return tuple(less + more) if upper else tuple(more + less)
