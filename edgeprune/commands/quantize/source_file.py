"""The ONNX file to be quantized as it comes, and the copy of it that can be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto, TensorProto
from torch import Tensor

from edgeprune import parity
from edgeprune.artifacts.calibration import CalibrationSet
from edgeprune.artifacts.quantization import Precision
from edgeprune.artifacts.report import Verdict
from edgeprune.commands.run.stages import PARITY_TOLERANCE
from edgeprune.errors import QuantizationError, UsageError
from edgeprune.onnx_io.inputs import only_input, sizes_with
from edgeprune.onnx_io.opset import opset_of
from edgeprune.onnx_io.passes.normal_form import Sizes
from edgeprune.onnx_io.read import read_onnx
from edgeprune.onnx_io.working_copy import write_working_copy
from edgeprune.options.runs import QuantizeOptions
from edgeprune.quantization.passes.half_constants import LEAST_VALUES
from edgeprune.quantization.preparation import (
    MIN_OPSET,
    WEIGHTED_OPS,
    float_input,
    load_float,
    load_plain,
    load_simplified,
)
from edgeprune.reporting.formatting import count_words
from edgeprune.system.garbage import give_back_memory

_COMPARED_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file whose 8-bit form needs known sizes and opset 13; in 16 bits it needs neither.

    ``image``: (channels, height, width) as far as the file and the options tell; ``path``: the file, or its
    copy once one is written; ``notes`` say what is other in that.
    """

    options: QuantizeOptions
    folder: Path
    image: Sizes
    path: Path
    notes: tuple[str, ...] = ()

    @classmethod
    def opened(cls, options: QuantizeOptions, folder: Path) -> SourceFile:
        """Check the file as far as can be before images are read; the memory of it is freed.

        Raises:
            QuantizationError: it cannot be quantized.
            UsageError: it has no node of a name to keep in 32 bits.
        """
        path = options.source
        model = load_plain(path)
        taken = float_input(model, path)
        sizes = sizes_with(model, path, QuantizationError, options.input_shape, options.batch_size)
        image = taken.image if options.input_shape is None else options.input_shape
        opened = cls(options=options, folder=folder / "source", image=image, path=options.source)
        opened.folder.mkdir()
        if not taken.may_be_image or not opened._is_open:
            opened = opened._written(model, sizes)
        del model
        give_back_memory(path.stat().st_size)
        return opened

    def prepared(self, calibration: CalibrationSet) -> SourceFile:
        """With all that was left open settled by the images, and what was rewritten held against the file.

        Raises:
            QuantizationError: it cannot be quantized, or the copy calculates something else.
        """
        made = self
        if self._is_open:
            model = load_plain(self.path)
            shape = calibration.input_shape
            sizes = sizes_with(model, self.path, QuantizationError, shape, self.options.batch_size)
            made = replace(self, image=shape)._written(model, sizes)
            del model
            give_back_memory(self.path.stat().st_size)
        if made.path != self.options.source:
            made._check_function(calibration.fitting.images[:_COMPARED_IMAGES])
        return made

    def outputs(self, path: Path, images: Tensor) -> parity.Outputs:
        """Of a file on images, in batches of the size that was asked for."""
        batch = self.options.batch_size
        return parity.run_onnx(
            path, images,
            threads=self.options.threads or 1, timeout_s=self.options.timeout_s, batch=batch or 64,
        )  # fmt: skip

    def sized(self, calibration: CalibrationSet, made: Path) -> tuple[Path, Path]:
        """The file and what was made of it, with their dynamic sizes fixed at those of the images."""
        pair = [
            self._of_size(path, calibration.input_shape, self.folder / str(place))
            for place, path in enumerate((self.path, made))
        ]
        return pair[0], pair[1]

    def _of_size(self, path: Path, image: tuple[int, ...], folder: Path) -> Path:
        model = read_onnx(path, QuantizationError)
        if not only_input(model, path, QuantizationError).dynamic:
            return path
        folder.mkdir()
        sizes = sizes_with(model, path, QuantizationError, image)
        return write_working_copy(model, path, folder, QuantizationError, sizes)

    @property
    def _is_open(self) -> bool:
        """Whether 8 bits need sizes that only the images tell."""
        return self.options.precision is not Precision.FP16 and None in self.image

    def _written(self, model: ModelProto, sizes: dict[str, Sizes]) -> SourceFile:
        """With a copy where one is needed, whose nodes are checked."""
        notes, least = [], 0 if self.options.precision is Precision.FP16 else MIN_OPSET
        path = copy = self.options.source
        opset = opset_of(model)
        if sizes:
            shown = "x".join(str(size) for size in self.image)
            batch = self.options.batch_size
            of_batch = "" if batch is None else f", in batches of {batch}"
            notes.append(
                f"the file that is written takes images of {shown}{of_batch} alone; {path.name} "
                "takes others too"
            )
        if opset < least:
            notes.append(f"{path.name} is of opset {opset} and was converted to opset {least}")
        if notes:
            copy = write_working_copy(model, path, self.folder, QuantizationError, sizes, least)
        if self.options.precision is Precision.FP16:
            notes += _note_of_halves(model, path)
            proto = load_simplified(copy, self.options.timeout_s)
        else:
            _check_weights(model, path)
            proto = load_float(copy, timeout_s=self.options.timeout_s).proto
        _check_names(self.options.kept_float, proto)
        return replace(self, path=copy, notes=tuple(notes))

    def _check_function(self, images: Tensor) -> None:
        """Hold the copy against the file on these images.

        Raises:
            QuantizationError: it calculates something else.
        """
        name = self.path.name
        before, after = (self.outputs(path, images) for path in (self.options.source, self.path))
        if [each.shape for each in before] != [each.shape for each in after]:
            apart = "outputs of other sizes"
        else:
            figure = parity.compare(before, after, names=(name, name), tolerance=PARITY_TOLERANCE)
            if figure.verdict is not Verdict.FAILED:
                return
            apart = f"other outputs (by {figure.relative_error:.2e} of the largest)"
        raise QuantizationError(
            f"{name} gives {apart} once it is rewritten for 8 bits ({'; '.join(self.notes)}); export it with "
            f"fixed sizes and opset {MIN_OPSET} or later, or store it with --precision fp16"
        )


def _note_of_halves(model: ModelProto, path: Path) -> list[str]:
    """What of a file is in 16 bits before it is stored in 16.

    Raises:
        QuantizationError: all of it.
    """
    large = [each for each in model.graph.initializer if math.prod(each.dims) >= LEAST_VALUES]
    halves = sum(each.data_type == TensorProto.FLOAT16 for each in large)
    if halves and not any(each.data_type == TensorProto.FLOAT for each in large):
        raise QuantizationError(
            f"{path.name} has its weights in 16 bits already, so there is nothing to store in 16; use it as "
            "it is, or give the 32-bit file that it was made from"
        )
    return [f"{count_words(halves, 'constant')} of {path.name} in 16 bits already"] if halves else []


def _check_weights(model: ModelProto, path: Path) -> None:
    """Check that a file does not calculate in 16 bits alone.

    Raises:
        QuantizationError: the constant weights of all layers are 16-bit numbers.
    """
    types = {each.name: each.data_type for each in model.graph.initializer}
    cast = any(node.op_type == "Cast" and node.input[0] in types for node in model.graph.node)
    weights = [n.input[1] for n in model.graph.node if n.op_type in WEIGHTED_OPS and len(n.input) > 1]
    given = {types[name] for name in weights if name in types}
    if given == {TensorProto.FLOAT16} and not cast:
        raise QuantizationError(
            f"{path.name} has its weights in 16 bits and calculates with them there; accepted for 8 bits are "
            "weights in 32: give the 32-bit file that it was made from"
        )


def _check_names(names: tuple[str, ...], model: ModelProto) -> None:
    known = {node.name for node in model.graph.node}
    unknown = [name for name in names if name not in known]
    if unknown:
        shown = ", ".join(sorted(known)[:8])
        raise UsageError(
            f"--keep-float {unknown[0]} was given, and the simplified file has no such node; it has "
            f"{shown} ..."
        )
