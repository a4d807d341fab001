"""Run one image through an ONNX model of edgeprune; needs numpy and onnxruntime, and Pillow for image files.

    python infer.py IMAGE [MODEL]

IMAGE is an image file (with Pillow) or an .npy array (height, width[, channels]) of uint8, uint16 or numbers
in [0, 1]. MODEL is model.onnx beside this script where it is left out. The preprocessing is read from the
model itself and applied as edgeprune applied it to the calibration images.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LUMA = (0.299, 0.587, 0.114)
MOST_PIXELS = 100_000_000
RANGE_SLACK = 0.05
SHARES_SLACK = 1e-3
ENTRY, LABELS = "edgeprune.preprocessing", "edgeprune.labels"
STEPS = ("resize", "crop", "letterbox", "pad", "exif", "ground", "mean", "std", "channel_order")
GIVE = "give a model that edgeprune wrote"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the image, print; 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(description="Run one image through a model that edgeprune wrote.")
    parser.add_argument("image", help="an image file (needs Pillow), or an .npy array")
    parser.add_argument("model", nargs="?", default=str(Path(__file__).with_name("model.onnx")))
    parser.add_argument("--threads", type=int, default=1, help="threads of onnxruntime (default: 1)")
    given = parser.parse_args(arguments)
    try:
        for line in run(given.image, given.model, given.threads):
            print(line)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1
    return 0


def reason(error: Exception) -> str:
    """First line of what an error says, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def run(image: str, model: str, threads: int = 1) -> list[str]:
    """Lines to print for one image: the five highest classes, or the shape and range of every output."""
    session = open_session(model, threads)
    facts = session.get_modelmeta().custom_metadata_map
    given = {session.get_inputs()[0].name: model_input(session, image)}
    try:
        outputs = session.run(None, given)
    except Exception as error:  # onnxruntime's own classes have no base in common but this
        raise ValueError(f"{model!r} cannot be run on {image!r}: {reason(error)}") from error
    labels = from_json(facts, LABELS, list) if LABELS in facts else []
    if facts.get("edgeprune.outputs") == "class scores" and len(outputs) == 1 and outputs[0].ndim == 2:
        return top_lines(outputs[0][0], labels)
    names = [output.name for output in session.get_outputs()]
    return [
        f"{name}: shape {'x'.join(map(str, value.shape))}, from {value.min():.6g} to {value.max():.6g}"
        for name, value in zip(names, outputs, strict=True)
    ]


def open_session(model: str, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU.

    Raises:
        ValueError: there is no such file, or onnxruntime cannot read it.
    """
    import onnxruntime

    if not Path(model).is_file():
        raise ValueError(f"there is no model {model!r}; give the .onnx file as the second argument")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{model!r} cannot be read by onnxruntime: {reason(error)}") from error


def top_lines(scores: Array, labels: list[str], count: int = 5) -> list[str]:
    """The highest scores, with softmax shares; names of classes where the model has one for each.

    Scores that are shares already, as those of a network that ends in a softmax, are shown as they are.
    """
    shares = scores.astype(np.float64)
    if not (shares.min() >= 0 and abs(shares.sum() - 1) <= SHARES_SLACK):
        shares = np.exp(shares - shares.max())
        shares /= shares.sum()
    named = len(labels) == len(scores)
    order = np.argsort(-scores, kind="stable")[:count]
    return [f"{labels[i] if named else f'class {i}'}: score {scores[i]:.4f}, {shares[i]:.1%}" for i in order]


def model_input(session: Any, image: str) -> Array:
    """The image as the model takes it: (1, channels, height, width) float32, repeated for a fixed batch.

    Raises:
        ValueError: the model does not say how images become its input, or the image does not fit.
    """
    steps = steps_of(session.get_modelmeta().custom_metadata_map)
    shape = session.get_inputs()[0].shape
    channels = shape[1] if isinstance(shape[1], int) else None
    pixels = read_image(image, steps, channels)
    try:
        single = preprocess(pixels, steps, channels)
    except (TypeError, IndexError) as error:  # values of other kinds than edgeprune writes
        raise ValueError(f"{ENTRY} of the model cannot be applied: {reason(error)}; {GIVE}") from error
    wanted = [size for size in shape[1:] if isinstance(size, int)]
    if len(wanted) == 3 and list(single.shape) != wanted:
        raise ValueError(
            f"{image!r} becomes {'x'.join(map(str, single.shape))}, but the model takes "
            f"{'x'.join(map(str, wanted))}, and its preprocessing does not resize; give an image of that size"
        )
    copies = shape[0] if isinstance(shape[0], int) else 1
    return np.repeat(single[None], copies, axis=0)


def steps_of(facts: dict[str, str]) -> dict[str, Any]:
    """How images become the input, as the model itself says.

    Raises:
        ValueError: it does not say so, or not all of it.
    """
    if ENTRY not in facts:
        raise ValueError(f"the model has no entry {ENTRY}; {GIVE}")
    steps: dict[str, Any] = from_json(facts, ENTRY, dict)
    missing = [step for step in STEPS if step not in steps]
    if missing:
        raise ValueError(f"{ENTRY} of the model lacks {', '.join(missing)}; {GIVE}")
    return steps


def from_json(facts: dict[str, str], entry: str, kind: type[Any]) -> Any:
    """The value of an entry, of the given kind.

    Raises:
        ValueError: it is damaged.
    """
    try:
        value = json.loads(facts[entry])
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise ValueError(f"{entry} of the model is damaged; {GIVE}")
    return value


def preprocess(pixels: Array, steps: dict[str, Any], channels: int | None) -> Array:
    """Input (channels, height, width) float32 of pixels (channels, height, width), uint8 or float32."""
    if pixels.shape[0] == 4 and channels in (1, 3):
        pixels = on_ground(pixels, steps["ground"])
    x = placed(pixels, steps)
    x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
    if channels == 3 and x.shape[0] == 1:
        x = np.repeat(x, 3, axis=0)
    elif channels == 1 and x.shape[0] == 3:
        x = (x * np.array(LUMA, dtype=np.float32).reshape(3, 1, 1)).sum(0, keepdims=True)
    if steps["channel_order"] == "bgr" and x.shape[0] == 3:
        x = x[::-1]
    if steps["mean"] is not None or steps["std"] is not None:
        if x.min() < -RANGE_SLACK or x.max() > 1 + RANGE_SLACK:
            raise ValueError("mean and std apply to pixels in [0, 1]; divide the values by their largest one")
        mean, std = (np.array(steps[k] or v, dtype=np.float32) for k, v in (("mean", [0.0]), ("std", [1.0])))
        x = (x - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1)
    return np.ascontiguousarray(x, dtype=np.float32)


def placed(pixels: Array, steps: dict[str, Any]) -> Array:
    """The pixels resized, then cropped at the center, or with borders around them (letterbox)."""
    height, width = pixels.shape[1:]
    if steps["letterbox"] is not None:
        rows, columns = both(steps["letterbox"])
        ratio = min(rows / height, columns / width)
        sides = ((height, rows), (width, columns))
        inner_rows, inner_columns = (min(max(round(side * ratio), 1), most) for side, most in sides)
        top, left = (rows - inner_rows) // 2, (columns - inner_columns) // 2
        x = resized(pixels, inner_rows, inner_columns)
        grey = steps["pad"] if x.dtype == np.uint8 else steps["pad"] / 255
        bordered = np.full((x.shape[0], rows, columns), grey, dtype=x.dtype)
        bordered[:, top : top + inner_rows, left : left + inner_columns] = x
        return bordered
    size = steps["resize"]
    if isinstance(size, int):
        longer = int(size * max(height, width) / min(height, width))
        size = (longer, size) if height > width else (size, longer)
    x = pixels if size is None else resized(pixels, *size)
    if steps["crop"] is None:
        return x
    rows, columns = both(steps["crop"])
    if x.shape[1] < rows or x.shape[2] < columns:
        raise ValueError(f"the image is {x.shape[1]}x{x.shape[2]}, smaller than the crop {rows}x{columns}")
    top, left = round((x.shape[1] - rows) / 2), round((x.shape[2] - columns) / 2)
    return x[:, top : top + rows, left : left + columns]


def both(size: int | list[int]) -> tuple[int, int]:
    """(height, width) of a size that may be a square's side."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def resized(pixels: Array, rows: int, columns: int) -> Array:
    """Bilinear with antialiasing, first across, then down; in whole steps where the pixels are uint8."""
    if pixels.shape[1:] == (rows, columns):
        return pixels
    if rows * columns > MOST_PIXELS:
        raise ValueError(f"the image would be resized to {rows}x{columns} pixels, more than {MOST_PIXELS:,}")
    x = pixels.astype(np.float32)
    if columns == 1:  # down first, as edgeprune does there
        x = along_last_axis(along_last_axis(x.swapaxes(1, 2), rows).swapaxes(1, 2), columns)
    else:
        x = along_last_axis(along_last_axis(x, columns).swapaxes(1, 2), rows).swapaxes(1, 2)
    return np.rint(x).clip(0, 255).astype(np.uint8) if pixels.dtype == np.uint8 else x


def along_last_axis(x: Array, size: int) -> Array:
    """Resample the last axis to ``size`` values.

    Products are added up in float32 with one rounding each (fused multiply-add), as PyTorch does: otherwise
    values that lie on a half would be rounded to another pixel value.
    """
    source = x.shape[-1]
    if source == size:
        return x
    result = np.empty((*x.shape[:-1], size), dtype=np.float32)
    for position in range(size):
        first, weights = window(source, size, position)
        total = x[..., first] * weights[0]
        for offset in range(1, len(weights)):
            product = x[..., first + offset].astype(np.float64) * np.float64(weights[offset])
            total = (product + total.astype(np.float64)).astype(np.float32)
        result[..., position] = total
    return result


def window(source: int, size: int, position: int) -> tuple[int, Array]:
    """First source value of one resampled value, and the weights (float32) from there on."""
    single = np.float32
    scale = single(source) / single(size)
    support = max(scale, single(1))
    center = single(scale * single(position + 0.5))
    first = max(int(single(center - support) + single(0.5)), 0)
    last = min(int(single(center + support) + single(0.5)), source)
    offsets = np.arange(last - first, dtype=single) + single(first) - center + single(0.5)
    weights = np.maximum(single(1) - np.abs(offsets * (single(1) / support)), single(0))
    total = single(0)
    for weight in weights:
        total = single(total + weight)
    return first, weights / total


def read_image(path: str, steps: dict[str, Any], channels: int | None) -> Array:
    """Pixels (channels, height, width), uint8 or float32, upright and opaque.

    Raises:
        ValueError: no image, one that is damaged or too large, Pillow is missing, or an array of another
            shape or type.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path!r}; give an image or an .npy array")
    if path.endswith(".npy"):
        return from_array(loaded(path), channels)
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError("Pillow is not installed; install it (pip install pillow), or give .npy") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is raised
            with Image.open(path) as image:
                return from_pillow(image, steps, channels)
    except Exception as error:  # decoders of damaged files raise far more than OSError
        raise ValueError(f"{path!r} cannot be read as an image: {reason(error)}") from error


def loaded(path: str) -> Array:
    """The array of an .npy file.

    Raises:
        ValueError: the file is damaged, or another one by that name.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # headers of damaged files are read as Python, sizes in them are reserved
        raise ValueError(f"{path!r} cannot be read as an .npy array: {reason(error)}") from error
    if not isinstance(values, np.ndarray):
        values.close()
        raise ValueError(f"{path!r} holds several arrays (.npz); give one as .npy")
    return values


def from_array(values: Array, channels: int | None) -> Array:
    """Pixels of an array (height, width), (height, width, channels) or (channels, height, width)."""
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or not values.size:
        raise ValueError(f"the array has the shape {values.shape}; accepted are two or three axes")
    ends = (values.shape[0], values.shape[-1])
    first = ends[0] == channels if channels in ends and ends[0] != ends[1] else ends[0] in (1, 3, 4)
    values = values if first else values.transpose(2, 0, 1)
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return values.astype(np.float32) / np.float32(65535)
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError(
            f"the array is {values.dtype}; accepted are uint8, uint16 and finite numbers in 0..1"
        )
    return values.astype(np.float32)


def from_pillow(image: Any, steps: dict[str, Any], channels: int | None) -> Array:
    """Pixels of an image as Pillow decodes it, turned upright where the preprocessing says so."""
    before = orientation(image)
    image.load()
    after = orientation(image)
    pixels = decoded(image, steps, channels)
    if steps["exif"]:
        return turned(pixels, after)
    return turned(pixels, {6: 8, 8: 6}.get(before, before) if after != before else 1)


def orientation(image: Any) -> int:
    """EXIF orientation, 1 where there is none that can be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(pixels: Array, direction: int) -> Array:
    """An image (channels, height, width) with an EXIF orientation, as it is seen upright."""
    if direction in (5, 6, 7, 8):
        pixels = pixels.transpose(0, 2, 1)
    flips = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}
    return np.flip(pixels, flips[direction]) if direction in flips else pixels


def decoded(image: Any, steps: dict[str, Any], channels: int | None) -> Array:
    """Pixels as they are stored; transparent parts are laid on the ground unless the model takes them."""
    if image.mode.startswith("I"):
        return whole_numbers(image)
    if image.mode == "F":
        return np.array(image, dtype=np.float32)[None]
    grey = image.mode in ("1", "L", "LA", "La")
    image = image.convert("LA") if image.mode == "La" else image
    palette = image.palette is not None and image.palette.mode.endswith("A")
    if image.mode not in ("LA", "PA", "RGBA", "RGBa") and "transparency" not in image.info and not palette:
        values = np.array(image.convert("L" if grey else "RGB"))
        return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    planes = np.array(image.convert("RGBA")).transpose(2, 0, 1)
    if channels == 4:
        return planes
    return on_ground(planes[[0, 3]] if grey else planes, steps["ground"])


def whole_numbers(image: Any) -> Array:
    """Gray of more than 8 bits in [0, 1]."""
    values, tags = np.array(image), getattr(image, "tag_v2", {})
    bits, signed = int(tags.get(258, (16,))[0]), int(tags.get(339, (1,))[0]) == 2
    if bits > 16 and not signed:
        values = values.astype(np.int32).view(np.uint32)
    most = float(2 ** (bits - signed) - 1)
    return np.asarray(values.astype(np.float64) / most, dtype=np.float32)[None]


def on_ground(pixels: Array, ground: str) -> Array:
    """Pixels without their last channel, transparency, laid on a black or white ground."""
    values = pixels.astype(np.float32) / np.float32(255 if pixels.dtype == np.uint8 else 1)
    laid: Array = values[:-1] * values[-1:] + (1 - values[-1:]) * np.float32(ground == "white")
    return np.rint(laid * 255).astype(np.uint8) if pixels.dtype == np.uint8 else laid


if __name__ == "__main__":
    sys.exit(main())
