"""Image files of every mode, depth and orientation, and what is told of their conversion."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import noise, save_as
from PIL import Image, ImageOps

from edgeprune.artifacts.calibration import CalibrationSet, Ground, Preprocessing
from edgeprune.calibration import load_calibration
from edgeprune.calibration.sources.folders import opened_image
from edgeprune.calibration.sources.pictures import from_pil, turned
from edgeprune.calibration.sources.source import RawImage, ReadOptions
from edgeprune.errors import CalibrationError

PLAIN = Preprocessing(mean=(0.0,), std=(1.0,))
FORMATS = {
    ".jpg": {"quality": 95}, ".png": {}, ".webp": {"lossless": True}, ".tif": {},
    ".tiff": {"compression": "tiff_lzw"},
}  # fmt: skip


def read(path: Path, options: ReadOptions | None = None) -> RawImage:
    return opened_image(path, lambda image: from_pil(image, options or ReadOptions()))


def as_tensor(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def notes_on(found: CalibrationSet, word: str) -> list[str]:
    return [note for note in found.warnings if word in note]


def folder_of(folder: Path, images: list[Image.Image], suffix: str = ".png", **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        image.save(folder / f"{i:03d}{suffix}", **options)
    return folder


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_that_of_pillow(orientation: int) -> None:
    image = Image.fromarray(noise(5, 7))
    image.getexif()[0x0112] = orientation
    expected = as_tensor(np.asarray(ImageOps.exif_transpose(image)))
    assert torch.equal(turned(as_tensor(noise(5, 7)), orientation), expected)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_of_every_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    plain = read(save_as(tmp_path / f"plain{suffix}", noise(12, 16), **FORMATS[suffix])).pixels
    path = save_as(tmp_path / f"turned{suffix}", noise(12, 16), orientation, **FORMATS[suffix])
    upright, stored = read(path), read(path, ReadOptions(exif=False))
    assert torch.equal(upright.pixels, turned(plain, orientation))
    assert torch.equal(stored.pixels, plain)
    assert (upright.stored.orientation, stored.stored.orientation) == (orientation, orientation)


def test_what_was_turned_is_counted(tmp_path: Path) -> None:
    for i in range(6):
        save_as(tmp_path / f"{i}.png", noise(8, 8, seed=i), (1, 6, 3, None, 8, 1)[i])
    found = load_calibration(tmp_path, preprocessing=PLAIN)
    assert notes_on(found, "EXIF") == [
        "3 of 6 images were turned upright by their EXIF orientation; --no-exif leaves images as they are "
        "stored"
    ]
    as_stored = load_calibration(tmp_path, preprocessing=Preprocessing(mean=(0.0,), std=(1.0,), exif=False))
    assert notes_on(as_stored, "EXIF") == [
        "3 of 6 images have an EXIF orientation and were not turned (--no-exif)"
    ]
    assert found.fingerprint_sha256 != as_stored.fingerprint_sha256


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_told(tmp_path: Path, orientation: int) -> None:
    for i in range(2):
        save_as(tmp_path / f"{i}.jpg", noise(8, 8, seed=i), orientation)
    found = load_calibration(tmp_path, preprocessing=PLAIN)
    assert "2 of 2 images have an EXIF orientation that cannot be read" in notes_on(found, "EXIF")[0]


@given(st.binary(max_size=60))
def test_any_bytes_as_exif_are_an_image_still(data: bytes) -> None:
    image = Image.fromarray(noise(4, 6))
    image.info["exif"] = b"Exif\x00\x00" + data
    assert sorted(from_pil(image, ReadOptions()).pixels.shape) == [3, 4, 6]


@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
@given(st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), min_size=1, max_size=4))
def test_files_with_changed_bytes_are_images_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, changes: list[tuple[int, int]]
) -> None:
    path = save_as(tmp_path_factory.mktemp("changed") / f"a{suffix}", noise(6, 5), 6)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[-1 - place % len(data)] = value
    path.write_bytes(data)
    with contextlib.suppress(CalibrationError):
        assert read(path).pixels.dim() == 3


def test_a_dataset_decides_on_the_orientation_of_its_images() -> None:
    images = [Image.fromarray(noise(8, 10, seed=i)) for i in range(4)]
    images[0].getexif()[0x0112] = 6
    found = load_calibration(images, preprocessing=PLAIN)  # type: ignore[arg-type]
    assert found.input_shape == (3, 8, 10)
    assert "were not turned: the Dataset decides" in notes_on(found, "EXIF")[0]


# Modes

MODES = {
    "1": 1, "L": 1, "LA": 1, "P": 3, "RGB": 3, "RGBA": 3, "CMYK": 3, "YCbCr": 3, "HSV": 3, "I": 1, "F": 1,
    "I;16": 1, "PA": 3, "RGBa": 3, "La": 1, "RGBX": 3,
}  # fmt: skip


def in_mode(mode: str, pixels: np.ndarray[Any, Any]) -> Image.Image:
    image = Image.fromarray(pixels)
    through = {"La": ["LA"], "RGBa": ["RGBA"], "PA": ["P"], "I;16": ["L"]}.get(mode, [])
    for step in [*through, mode]:
        image = image.convert(step)
    return image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_the_channels_of_the_model(mode: str, channels: int) -> None:
    images = [in_mode(mode, noise(8, 9, seed=i)) for i in range(4)]
    assert from_pil(images[0], ReadOptions()).pixels.shape == (MODES[mode], 8, 9)
    found = load_calibration(images, preprocessing=Preprocessing(), input_shape=(channels, 8, 9))  # type: ignore[arg-type]
    assert found.input_shape == (channels, 8, 9)
    converted = mode not in {"L", "RGB", "I", "F", "I;16"} or channels != MODES[mode]
    assert bool(notes_on(found, "4 of 4 images were converted to")) == converted


def test_conversions_are_counted_by_kind(tmp_path: Path) -> None:
    for i, mode in enumerate(("CMYK", "CMYK", "RGB", "L", "RGB")):
        in_mode(mode, noise(8, 8, seed=i)).save(tmp_path / f"{i}.tiff")
    found = load_calibration(tmp_path, preprocessing=PLAIN)
    assert notes_on(found, "converted") == [
        "3 of 5 images were converted to colour, 3 channel(s): 2 CMYK, 1 greyscale"
    ]


@pytest.mark.parametrize("ground", Ground)
@given(st.integers(0, 255), st.lists(st.integers(0, 255), min_size=3, max_size=3))
def test_transparency_shows_the_ground(ground: Ground, opacity: int, colour: list[int]) -> None:
    image = Image.new("RGBA", (3, 2), (*colour, opacity))
    found = from_pil(image, ReadOptions(ground=ground))
    below = 255 if ground is Ground.WHITE else 0
    expected = torch.tensor(colour) * (opacity / 255) + below * (1 - opacity / 255)
    assert (found.pixels[:, 0, 0].float() - expected).abs().max() <= 0.51
    assert found.stored.transparent == (opacity < 255)
    grey = from_pil(Image.new("LA", (3, 2), (colour[0], opacity)), ReadOptions(ground=ground))
    assert abs(float(grey.pixels[0, 0, 0]) - float(expected[0])) <= 0.51


@pytest.mark.parametrize(("mode", "key"), [("P", 0), ("L", 0), ("RGB", (0, 0, 0))])
def test_a_transparent_colour_shows_the_ground(tmp_path: Path, mode: str, key: Any) -> None:
    path = tmp_path / "a.png"
    Image.new(mode, (4, 4), key).save(path, transparency=key)
    assert (read(path, ReadOptions(ground=Ground.WHITE)).pixels == 255).all()
    assert (read(path, ReadOptions(ground=Ground.BLACK)).pixels == 0).all()


def test_transparent_images_are_counted_and_the_ground_is_said(tmp_path: Path) -> None:
    images = [Image.fromarray(noise(8, 8, seed=i)).convert("RGBA") for i in range(4)]
    images[1].putalpha(9)
    folder = folder_of(tmp_path / "images", images)
    found = load_calibration(folder, preprocessing=PLAIN)
    assert notes_on(found, "transparent parts") == [
        "1 of 4 images have transparent parts, which were laid on black (--ground)"
    ]
    white = Preprocessing(mean=(0.0,), std=(1.0,), ground=Ground.WHITE)
    assert notes_on(load_calibration(folder, preprocessing=white), "laid on white")


def test_a_model_of_four_channels_gets_transparency(tmp_path: Path) -> None:
    images = [Image.fromarray(noise(8, 8, seed=i)).convert("RGBA") for i in range(4)]
    folder = folder_of(tmp_path / "images", images)
    found = load_calibration(folder, preprocessing=PLAIN, input_shape=(4, 8, 8))
    assert found.input_shape == (4, 8, 8)
    assert not notes_on(found, "converted")


def test_arrays_of_four_channels_are_laid_on_the_ground(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 4), dtype=np.uint8)
    images[..., 3] = 0
    np.savez(tmp_path / "a.npz", images=images)
    white = Preprocessing(mean=(0.0,), std=(1.0,), ground=Ground.WHITE)
    found = load_calibration(tmp_path / "a.npz", preprocessing=white, input_shape=(3, 8, 8))
    assert (found.fitting.images == 1).all()


# Depth


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_grey_of_sixteen_bits_is_scaled_by_its_type(tmp_path: Path, suffix: str) -> None:
    values = np.arange(0, 65536, 65535 // 15, dtype=np.uint16).reshape(4, 4)
    found = read(save_as(tmp_path / f"a{suffix}", values))
    assert found.stored.bits == 16
    assert torch.allclose(found.pixels[0], torch.from_numpy(values.astype(np.float32)) / 65535)


def test_grey_of_thirty_two_bits_is_scaled_by_its_type(tmp_path: Path) -> None:
    values = np.array([[0, 2**30], [2**31 - 1, 7]], dtype=np.int32)
    found = read(save_as(tmp_path / "a.tif", values))
    assert found.stored.bits == 32
    assert torch.allclose(found.pixels[0], torch.from_numpy(values / (2**31 - 1)).float())


@given(
    st.sampled_from([np.uint8, np.uint16, np.float16, np.float32, np.float64]), st.booleans(), st.booleans()
)
def test_arrays_of_every_type_are_the_same_pixels(dtype: Any, swapped: bool, last: bool) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6))
    scale = {np.uint8: 1, np.uint16: 257}.get(dtype)
    images = (levels * scale if scale else levels / 255).astype(dtype)
    images = images.transpose(0, 2, 3, 1) if last else images
    images = images.astype(images.dtype.newbyteorder(">")) if swapped else images
    found = load_calibration(list(images), preprocessing=PLAIN)  # type: ignore[arg-type]
    seen = torch.cat([found.fitting.images, found.held_out.images])
    expected = torch.from_numpy(levels).float() / 255
    assert torch.allclose(
        seen.flatten(1).sum(1).sort().values, expected.flatten(1).sum(1).sort().values, rtol=1e-3
    )


def test_an_npz_of_sixteen_bits(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (40, 5, 6), dtype=np.uint16)
    for name, images in (("a", values), ("b", values.astype(">u2"))):
        np.savez(tmp_path / f"{name}.npz", images=images)
        found = load_calibration(tmp_path / f"{name}.npz", preprocessing=PLAIN)
        assert found.warnings == ()
        seen = torch.cat([found.fitting.images, found.held_out.images])
        assert torch.allclose(seen.sum(), torch.from_numpy(values / 65535).float().sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.arange(4000, dtype=np.uint16), "the images of 16 bits have only values from 0 to 3999 of"),
        (np.arange(16, dtype=np.uint8), "the images of 8 bits have only values from 0 to 15 of 0 to 255"),
        (np.linspace(0.5, 0.55, 40), "the floating-point images have only values from 0.5 to 0.55 of 0 to 1"),
    ],
)
def test_little_of_the_range_is_told(tmp_path: Path, images: np.ndarray[Any, Any], words: str) -> None:
    np.savez(tmp_path / "a.npz", images=np.resize(images, (40, 10, 10)))
    found = load_calibration(tmp_path / "a.npz", preprocessing=PLAIN)
    assert words in notes_on(found, "less than a tenth of the range")[0]


@pytest.mark.parametrize(
    ("sample_format", "words"),
    [
        (1, "the images of 32 bits have only values from 0 to 65535 of 0 to 4294967295"),
        (2, "the signed images of 32 bits have only values from 0 to 65535 of 0 to 2147483647"),
    ],
)
def test_values_of_signed_numbers_are_told_as_they_are(
    tmp_path: Path, sample_format: int, words: str
) -> None:
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 65536, (6, 6)).astype(np.int32)
        values[0, :2] = 0, 65535
        path = save_as(tmp_path / f"{i}.tif", values)
        before, after = (struct.pack("<HHIH", 339, 3, 1, form) for form in (2, sample_format))
        assert before in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(before, after))
    assert words in notes_on(load_calibration(tmp_path, preprocessing=PLAIN), "a tenth")[0]


def test_a_tenth_of_the_range_is_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.resize(np.arange(27, dtype=np.uint8), (40, 10, 10)))
    assert not notes_on(load_calibration(tmp_path / "a.npz", preprocessing=PLAIN), "range")


def test_twelve_bits_among_eight_are_told_apart(tmp_path: Path) -> None:
    for i in range(3):
        save_as(tmp_path / f"{i}.png", noise(6, 6, seed=i)[..., 0])
        save_as(tmp_path / f"deep{i}.png", noise(6, 6, seed=i)[..., 0].astype(np.uint16) * 16)
    assert "16 bits have only" in notes_on(load_calibration(tmp_path, preprocessing=PLAIN), "a tenth")[0]


def test_colours_of_sixteen_bits_are_read_in_eight_and_that_is_said(tmp_path: Path) -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for i in range(2):
        values = np.random.default_rng(i).integers(0, 65536, (4, 5, 3)).astype(">u2")
        rows = b"".join(b"\x00" + row.tobytes() for row in values)
        header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
        parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (tmp_path / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert torch.equal(read(tmp_path / "1.png").pixels, as_tensor((values >> 8).astype(np.uint8)))
    found = load_calibration(tmp_path, preprocessing=PLAIN)
    assert notes_on(found, "2 of 2 images have colours of 16 bits, of which the upper 8 were read")


# Names


def test_file_names_in_no_known_encoding(tmp_path: Path) -> None:
    names = [b"caf\xe9.png", b"\xff\xfe.png", b"a\x1b[31m.png", "日本.png".encode()]
    for i, name in enumerate(names):
        save_as(tmp_path / "x.png", noise(8, 8, seed=i))
        os.rename(tmp_path / "x.png", os.path.join(os.fsencode(tmp_path), name))
    assert len(load_calibration(tmp_path, preprocessing=PLAIN).fitting) == 3
    with open(os.path.join(os.fsencode(tmp_path), b"\xff\xfe.png"), "wb") as stream:
        stream.write(b"no image")
    with pytest.raises(CalibrationError) as caught:
        load_calibration(tmp_path, preprocessing=PLAIN)
    assert "\\udcff\\udcfe.png" in str(caught.value)
    str(caught.value).encode()


def test_class_folders_in_no_known_encoding(tmp_path: Path) -> None:
    for i, name in enumerate((b"ant", b"caf\xe9")):
        folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
        for k in range(4):
            save_as(folder / f"{k}.png", noise(8, 8, seed=10 * i + k))
    found = load_calibration(tmp_path, preprocessing=PLAIN)
    assert found.class_names == ("ant", os.fsdecode(b"caf\xe9"))


def test_the_same_seed_gives_the_same_images(tmp_path: Path) -> None:
    for i in range(12):
        save_as(tmp_path / f"{i}.jpg", noise(9 + i, 14, seed=i), 1 + i % 8)
    first, second, other = (
        load_calibration(tmp_path, preprocessing=Preprocessing(letterbox=(8, 12)), max_images=8, seed=seed)
        for seed in (3, 3, 4)
    )
    assert torch.equal(first.fitting.images, second.fitting.images)
    assert torch.equal(first.held_out.images, second.held_out.images)
    assert first.fingerprint_sha256 == second.fingerprint_sha256
    assert not torch.equal(first.fitting.images, other.fitting.images)
