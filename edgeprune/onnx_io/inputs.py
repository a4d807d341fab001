"""What an ONNX model takes: its inputs, and which of their sizes are dynamic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from edgeprune.errors import EdgepruneError
from edgeprune.onnx_io.passes.normal_form import Sizes

_IMAGE_DIMENSIONS = 4
_EXAMPLE = (3, 224, 224)


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """An input that is no constant: ``sizes`` with the batch, ``None`` where the file tells no rank.

    ``symbols``: what the file calls each size, empty where it has no name.
    """

    name: str
    elem_type: int
    sizes: Sizes | None
    symbols: tuple[str, ...] = ()

    @property
    def batch(self) -> int | None:
        """Fixed size of a batch; ``None`` where it is dynamic."""
        return self.sizes[0] if self.sizes else None

    @property
    def image(self) -> Sizes:
        """Sizes of one image, (channels, height, width), as far as they are known."""
        return self.sizes[1:] if self.sizes else (None,) * (_IMAGE_DIMENSIONS - 1)

    @property
    def may_be_image(self) -> bool:
        """Whether it has the rank of a batch of images, or none that is told."""
        return self.sizes is None or len(self.sizes) == _IMAGE_DIMENSIONS

    @property
    def dynamic(self) -> tuple[int, ...]:
        """Positions of dynamic sizes beyond the batch."""
        return tuple(place for place, size in enumerate(self.image, start=1) if size is None)


def model_inputs(model: ModelProto) -> tuple[ModelInput, ...]:
    """The inputs of a model that are no constants, in their order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = []
    for value in model.graph.input:
        if value.name not in constants:
            kind = value.type.tensor_type
            dims = list(kind.shape.dim)
            known = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)
            inputs.append(
                ModelInput(
                    name=value.name,
                    elem_type=kind.elem_type,
                    sizes=known if kind.HasField("shape") else None,
                    symbols=tuple(dim.dim_param for dim in dims),
                )
            )
    return tuple(inputs)


def only_input(model: ModelProto, path: Path, raises: type[EdgepruneError]) -> ModelInput:
    """The one input of a model.

    Raises:
        EdgepruneError: there are none or several, of the kind ``raises``.
    """
    inputs = model_inputs(model)
    if len(inputs) != 1:
        raise raises(
            f"{path.name} has {len(inputs)} inputs; accepted is one, an image tensor: make the others "
            "constants"
        )
    return inputs[0]


def sizes_with(
    model: ModelProto,
    path: Path,
    raises: type[EdgepruneError],
    image: tuple[int, ...] | None,
    batch: int | None = None,
) -> dict[str, Sizes]:
    """Sizes by name of input that ``image`` (channels, height, width) and ``batch`` settle; empty where none.

    Raises:
        EdgepruneError: no input, or more than one, takes images; or the file has other fixed sizes.
    """
    if image is None and batch is None:
        return {}
    if image is not None and (len(image) != _IMAGE_DIMENSIONS - 1 or min(image) < 1):
        raise raises(
            f"--input-shape {_shown(image)} was given; accepted are the channels, height and width of one "
            "image, such as 3x224x224"
        )
    inputs = model_inputs(model)
    images = [each for each in inputs if each.may_be_image] if len(inputs) > 1 else list(inputs)
    if len(images) != 1 or not images[0].may_be_image:
        told = ", ".join(f"{each.name!r} of {_shown(each.sizes)}" for each in inputs) or "none"
        raise raises(
            f"the sizes of an image were given, and {path.name} has the inputs {told}; accepted is one input "
            "of four dimensions (batch, channels, height, width): export it with fixed sizes"
        )
    own = images[0]
    wanted: Sizes = (batch, *(image or (None,) * len(own.image)))
    stated = own.sizes or (None,) * _IMAGE_DIMENSIONS
    if any(a is not None and b is not None and a != b for a, b in zip(stated, wanted, strict=True)):
        option = f"--batch-size {batch}" if batch not in (None, stated[0]) and own.batch else "--input-shape"
        shown = option if image is None or option != "--input-shape" else f"{option} {_shown(image)}"
        raise raises(
            f"{path.name} takes inputs of {_shown(stated)} (batch, channels, height, width), and {shown} was "
            "given, which is another size; leave it out where the file has a size, or export it anew"
        )
    return {} if all(b is None or a == b for a, b in zip(stated, wanted, strict=True)) else {own.name: wanted}


def dynamic_sentence(taken: ModelInput, where: str) -> str:
    """What to do about an input whose sizes are not all known."""
    place = taken.dynamic[0]
    symbol = taken.symbols[place] if place < len(taken.symbols) else ""
    begins = f"{where}: dimension {place} of input {taken.name!r} is dynamic ({symbol or 'unnamed'}); "
    if not taken.may_be_image:
        return f"{begins}only the batch may be: export it with a fixed size"
    example = (size or usual for size, usual in zip(taken.image, _EXAMPLE, strict=True))
    return (
        f"{begins}give the size of its images, such as --input-shape {'x'.join(map(str, example))}, or "
        "export it with a fixed size"
    )


def _shown(sizes: Sizes | tuple[int, ...] | None) -> str:
    return "unknown rank" if sizes is None else "x".join("?" if size is None else str(size) for size in sizes)
