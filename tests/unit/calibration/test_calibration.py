"""Calibration: what is read from each source, how it is split, and one sentence for every bad input."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from edgeprune.artifacts.calibration import CalibrationSet, ChannelOrder, Preprocessing
from edgeprune.calibration import limits, load_calibration
from edgeprune.calibration.build import put_in_order
from edgeprune.calibration.split import draw, held_out_count
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.system.compat import import_torchvision

PLAIN = Preprocessing(mean=(0.0,), std=(1.0,))


def pictures(n: int, *, channels: int = 3, size: int = 8, seed: int = 0) -> np.ndarray[Any, Any]:
    """(n, size, size, channels) uint8, all different."""
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def save_npz(path: Path, images: Any, **more: Any) -> Path:
    np.savez(path, images=images, **more)
    return path


def save_images(
    folder: Path, n: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB", seed: int = 0
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i:03d}.png")
    return folder


def labelled_folder(root: Path, per_class: int = 20) -> Path:
    for seed, name in enumerate(("cat", "ant", "bee")):
        save_images(root / name, per_class, seed=seed)
    return root


def all_images(found: CalibrationSet) -> torch.Tensor:
    return torch.cat([found.fitting.images, found.held_out.images])


def all_labels(found: CalibrationSet) -> torch.Tensor:
    assert found.fitting.labels is not None
    assert found.held_out.labels is not None
    return torch.cat([found.fitting.labels, found.held_out.labels])


def same_images(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal as sets of images, in any order."""
    return sorted(x.numpy().tobytes() for x in a) == sorted(x.numpy().tobytes() for x in b)


def noted(found: CalibrationSet, text: str) -> bool:
    return any(text in note for note in found.warnings)


class Items(Dataset[Any]):
    """A Dataset of given items."""

    def __init__(self, items: list[Any]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


# Folders


def test_class_folders_give_labels_in_alphabetical_order(tmp_path: Path) -> None:
    found = load_calibration(labelled_folder(tmp_path), preprocessing=PLAIN)
    assert found.class_names == ("ant", "bee", "cat")
    assert found.labelled
    assert all_labels(found).bincount().tolist() == [20, 20, 20]
    assert found.held_out.labels is not None
    assert found.held_out.labels.bincount().tolist() == [5, 5, 5]
    assert found.warnings == ()
    ants = all_images(found)[all_labels(found) == 0]
    first = np.array(Image.open(tmp_path / "ant" / "000.png"))
    expected = torch.from_numpy(first).permute(2, 0, 1).float() / 255
    assert any(torch.equal(expected, ant) for ant in ants)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    found = load_calibration(save_images(tmp_path, 40), preprocessing=PLAIN)
    assert (found.fitting.labels, found.held_out.labels, found.class_names) == (None, None, None)
    assert (len(found.fitting), len(found.held_out)) == (30, 10)
    assert found.input_shape == (3, 8, 8)
    assert found.fitting.images.dtype == torch.float32


def test_images_deeper_in_a_class_folder_count(tmp_path: Path) -> None:
    save_images(tmp_path / "a" / "day", 2)
    save_images(tmp_path / "a" / "night", 2, seed=1)
    save_images(tmp_path / "b", 2, seed=2)
    found = load_calibration(tmp_path, preprocessing=PLAIN)
    assert all_labels(found).bincount().tolist() == [4, 2]


def test_hidden_files_and_the_card_are_ignored_without_a_word(tmp_path: Path) -> None:
    labelled_folder(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "ant" / "._000.png").write_bytes(b"no image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "card.toml").write_text("mean = 0\nstd = 1\n")
    found = load_calibration(tmp_path)
    assert found.warnings == ()
    assert len(all_images(found)) == 60


def test_an_empty_class_folder_is_named_and_keeps_its_label(tmp_path: Path) -> None:
    labelled_folder(tmp_path)
    (tmp_path / "asp").mkdir()
    found = load_calibration(tmp_path, preprocessing=PLAIN)
    assert noted(found, "'asp' has no images; it keeps its label, 1")
    assert all_labels(found).bincount().tolist() == [20, 0, 20, 20]


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    save_images(tmp_path, 3)
    (tmp_path / "notes.txt").write_text("x")
    assert noted(load_calibration(tmp_path, preprocessing=PLAIN), "'notes.txt'")


def test_numbered_class_folders_out_of_numeric_order_are_remarked(tmp_path: Path) -> None:
    for name in ("1", "2", "10"):
        save_images(tmp_path / name, 2, seed=int(name))
    assert noted(load_calibration(tmp_path, preprocessing=PLAIN), "1, 10, 2")


def test_images_at_the_top_and_in_class_folders_are_refused(tmp_path: Path) -> None:
    labelled_folder(tmp_path)
    save_images(tmp_path, 1)
    with pytest.raises(CalibrationError, match=r"both at its top \('000\.png'\)"):
        load_calibration(tmp_path)


def test_a_folder_without_images_says_what_counts_as_one(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"is empty; accepted are .*\.png"):
        load_calibration(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CalibrationError, match=r"no images among its 1 files; .*\.jpg"):
        load_calibration(tmp_path)


@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
def test_a_damaged_image_is_named(tmp_path: Path, damage: str) -> None:
    save_images(tmp_path, 3)
    path = tmp_path / "001.png"
    path.write_bytes({"text": b"not an image", "cut": path.read_bytes()[:120], "empty": b""}[damage])
    with pytest.raises(CalibrationError, match=r"001\.png"):
        load_calibration(tmp_path)


def test_different_sizes_ask_for_resize_and_crop(tmp_path: Path) -> None:
    save_images(tmp_path, 2)
    save_images(tmp_path, 1, size=(12, 8))
    with pytest.raises(CalibrationError, match=r"000\.png.*\(3, 8, 12\).*001\.png.*--resize and --crop"):
        load_calibration(tmp_path)
    found = load_calibration(tmp_path, preprocessing=Preprocessing(resize=6, crop=6))
    assert found.input_shape == (3, 6, 6)


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("P", 3), ("RGBA", 3), ("LA", 1), ("CMYK", 3)]
)
def test_image_modes(tmp_path: Path, mode: str, channels: int) -> None:
    suffix = ".tiff" if mode == "CMYK" else ".png"
    for i, pixels in enumerate(pictures(2)):
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{i}{suffix}")
    assert load_calibration(tmp_path, preprocessing=PLAIN).input_shape == (channels, 8, 8)


def test_a_transparent_palette_raises_no_warning(tmp_path: Path) -> None:
    for i, pixels in enumerate(pictures(2)):
        Image.fromarray(pixels).convert("P").save(tmp_path / f"{i}.png", transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_calibration(tmp_path, preprocessing=PLAIN).input_shape == (3, 8, 8)


def test_sixteen_bit_grey_is_scaled_to_one(tmp_path: Path) -> None:
    for i, value in enumerate((0, 65535)):
        Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(tmp_path / f"{i}.png")
    images = all_images(load_calibration(tmp_path, preprocessing=PLAIN))
    assert sorted(images.mean((1, 2, 3)).tolist()) == [0.0, 1.0]


def test_grey_among_colour_becomes_colour(tmp_path: Path) -> None:
    save_images(tmp_path, 6, mode="L")
    save_images(tmp_path, 4)
    found = load_calibration(tmp_path, preprocessing=PLAIN)
    assert found.input_shape == (3, 8, 8)
    assert noted(found, "2 of 6 images were converted to colour")


# Arrays


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((40, 8, 9), (1, 8, 9)),
        ((40, 8, 9, 1), (1, 8, 9)),
        ((40, 8, 9, 3), (3, 8, 9)),
        ((40, 3, 8, 9), (3, 8, 9)),
        ((40, 1, 8, 9), (1, 8, 9)),
    ],
)
def test_layouts_of_arrays(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = load_calibration(save_npz(tmp_path / "a.npz", values), preprocessing=PLAIN)
    assert found.input_shape == expected
    moved = values[:, None] if values.ndim == 3 else values
    if values.ndim == 4 and shape[1] not in {1, 3}:
        moved = values.transpose(0, 3, 1, 2)
    assert same_images(all_images(found), torch.from_numpy(moved.astype(np.float32)) / 255)


def test_the_model_decides_an_unusual_layout(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", np.random.default_rng(0).random((4, 6, 6, 2), dtype=np.float32))
    assert load_calibration(path, input_shape=(2, 6, 6)).input_shape == (2, 6, 6)
    with pytest.raises(CalibrationError, match=r"\(4, 6, 6, 2\)"):
        load_calibration(path)


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    images = np.zeros((60, 4, 4), dtype=np.uint8)
    images[:, 0, 0] = np.arange(60)
    labels = np.arange(60) % 6
    found = load_calibration(save_npz(tmp_path / "a.npz", images, labels=labels), preprocessing=PLAIN)
    numbers = (all_images(found)[:, 0, 0, 0] * 255).round().long()
    assert sorted(numbers.tolist()) == list(range(60))
    assert torch.equal(all_labels(found), numbers % 6)


def test_float_images_in_range_are_pixels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((40, 3, 4, 4))
    options = Preprocessing(mean=(0.5,), std=(0.25,))
    found = load_calibration(save_npz(tmp_path / "a.npz", values), preprocessing=options)
    expected = (torch.from_numpy(values.astype(np.float32)) - 0.5) / 0.25
    assert same_images(all_images(found), expected)


@pytest.mark.parametrize("scale", [255.0, -2.0])
def test_floats_outside_of_the_range_of_pixels(tmp_path: Path, scale: float) -> None:
    path = save_npz(tmp_path / "a.npz", np.random.default_rng(0).random((40, 3, 4, 4)) * scale)
    with pytest.raises(CalibrationError, match=r"normalised already.*divide them by 255"):
        load_calibration(path, preprocessing=Preprocessing(mean=(0.5,), std=(0.5,)))
    found = load_calibration(path)
    assert noted(found, "taken as they are")
    assert float(all_images(found).abs().max()) == pytest.approx(abs(scale), rel=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": pictures(4)}, r"no array 'images'; it has 'x'"),
        ({"images": np.zeros((4, 8), np.uint8)}, r"has the shape \(4, 8\)"),
        ({"images": np.zeros((4, 7, 8, 9), np.uint8)}, r"has the shape \(4, 7, 8, 9\)"),
        ({"images": np.zeros((4, 0, 8), np.uint8)}, r"has the shape \(4, 0, 8\)"),
        ({"images": np.zeros((4, 8, 8), np.int64)}, r"type int64.*astype\(numpy\.uint8\)"),
        ({"images": np.full((4, 8, 8), np.nan)}, r"NaN or infinite"),
        ({"images": np.full((4, 8, 8), np.inf)}, r"NaN or infinite"),
        ({"images": np.full((4, 8, 8), 1e300)}, r"NaN or infinite"),
        ({"images": np.array([None, "x"], dtype=object)}, r"Python objects, which are not loaded"),
        ({"images": pictures(1)}, r"has 1 images; at least 2"),
        ({"images": pictures(0)}, r"has 0 images; at least 2"),
        ({"images": pictures(4), "labels": np.zeros(3, int)}, r"'labels'.*shape \(3,\), 'images' has 4"),
        ({"images": pictures(4), "labels": np.zeros((4, 10), int)}, r"'labels'.*shape \(4, 10\)"),
        ({"images": pictures(4), "labels": np.array([0, 1, -1, 2])}, r"negative label -1"),
        ({"images": pictures(4), "labels": np.zeros(4)}, r"'labels'.*type float64"),
        ({"images": pictures(4), "labels": np.array(list("abcd"))}, r"'labels'.*type <U1"),
        ({"images": pictures(4), "labels": np.array(list("abcd"), dtype=object)}, r"Python objects"),
    ],
)
def test_bad_arrays(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(CalibrationError, match=message) as caught:
        load_calibration(tmp_path / "a.npz")
    assert caught.value.exit_status == 4


def test_pickled_arrays_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    np.savez(tmp_path / "a.npz", images=np.array([Trap(), Trap()], dtype=object))
    with pytest.raises(CalibrationError, match="Python objects"):
        load_calibration(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_files_of_another_kind(tmp_path: Path) -> None:
    whole = save_npz(tmp_path / "whole.npz", pictures(40)).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    cases = {
        "empty.npz": (b"", "an empty file"),
        "cut.npz": (whole[: len(whole) // 2], "damaged"),
        "flipped.npz": (bytes(flipped), "is a damaged archive"),
        "text.npz": (b"hello", "a text file"),
        "one.png": (b"", "is a single image"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CalibrationError, match=message):
            load_calibration(tmp_path / name)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(
        CalibrationError, match=r"do not exist; accepted are a folder.*\.npz.*module:function"
    ):
        load_calibration(tmp_path / "nothing")


# Datasets


def test_float_tensors_of_a_dataset_are_taken_as_they_are() -> None:
    images = torch.randn(40, 3, 8, 8)
    found = load_calibration(TensorDataset(images, torch.arange(40) % 4))
    assert same_images(all_images(found), images)
    assert found.labelled
    assert found.warnings == ()


def test_a_dataset_of_pixels_is_scaled() -> None:
    pixels = pictures(40)
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    forms = [
        [Image.fromarray(p) for p in pixels],
        list(pixels),
        [(torch.from_numpy(p).permute(2, 0, 1), None) for p in pixels],
    ]
    for items in forms:
        found = load_calibration(Items(items), preprocessing=PLAIN)
        assert not found.labelled
        assert same_images(all_images(found), expected)


def test_options_apply_to_float_tensors_when_given() -> None:
    images = torch.rand(40, 3, 8, 8)
    found = load_calibration(
        Items(list(images)), preprocessing=Preprocessing(crop=4, mean=(0.5,), std=(0.5,))
    )
    assert same_images(all_images(found), ((images[:, :, 2:6, 2:6] - 0.5) / 0.5).contiguous())


def test_class_names_of_a_dataset() -> None:
    dataset = Items([(image, i % 2) for i, image in enumerate(torch.rand(40, 1, 4, 4))])
    dataset.classes = ["no", "yes"]  # type: ignore[attr-defined]
    assert load_calibration(dataset).class_names == ("no", "yes")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "has 0 images"),
        ([torch.rand(1, 4, 4)], "has 1 images"),
        ([{"image": 1}] * 2, "holds a int where the image should be"),
        (["a.png"] * 2, "holds a str"),
        ([torch.rand(2, 3, 4, 4)] * 2, r"shape \(2, 3, 4, 4\)"),
        ([torch.rand(7, 8, 9)] * 2, r"shape \(7, 8, 9\)"),
        ([torch.zeros(3, 4, 4, dtype=torch.int64)] * 2, "type int64"),
        ([torch.full((3, 4, 4), torch.nan)] * 2, "NaN or infinite"),
        ([torch.rand(3, 4, 4), torch.rand(3, 4, 5)], "differ in shape: item 0 .* item 1"),
        ([(torch.rand(3, 4, 4), -1)] * 2, "negative"),
        ([(torch.rand(3, 4, 4), torch.tensor([-1]))] * 2, "negative"),
        ([(torch.rand(3, 4, 4), 0.5)] * 2, "float 0.5; accepted is a whole number"),
        ([(torch.rand(3, 4, 4), "cat")] * 2, "str 'cat'"),
        ([(torch.rand(3, 4, 4), torch.zeros(10))] * 2, r"Tensor of shape \(10,\)"),
        ([(torch.rand(3, 4, 4), 1), torch.rand(3, 4, 4)], "1 of the 2 images .* have labels"),
    ],
)
def test_bad_datasets(items: list[Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        load_calibration(Items(items))


def test_a_dataset_that_raises() -> None:
    class Broken(Items):
        def __getitem__(self, index: int) -> Any:
            raise FileNotFoundError("no such file: x.jpg")

    with pytest.raises(CalibrationError, match=r"item 0 .*FileNotFoundError \(no such file: x\.jpg\)"):
        load_calibration(Broken([1, 2]))


def test_what_is_no_map_style_dataset() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([])

    for source in (Stream(), 7, {"images": 1}):
        with pytest.raises(CalibrationError, match="accepted is a torch Dataset with a length"):
            load_calibration(source)  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match=r"DataLoader; return the Dataset inside it"):
        load_calibration(DataLoader(Items([1])))  # type: ignore[arg-type]


def test_random_augmentation_is_remarked_and_seeded() -> None:
    class Noisy(Items):
        def __getitem__(self, index: int) -> Any:
            return torch.rand(1, 4, 4)

    before = torch.random.get_rng_state()
    found, again = (load_calibration(Noisy([0] * 40)) for _ in range(2))
    assert noted(found, "random augmentation?")
    assert torch.equal(found.fitting.images, again.fitting.images)
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random state has changed"


FUNCTIONS = """
import torch
from torch.utils.data import TensorDataset
def data(): return TensorDataset(torch.rand(40, 1, 4, 4))
def broken(): raise RuntimeError("disk on fire")
def number(): return 7
"""


def test_a_function_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_calibration_data.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    for spec in ("my_calibration_data:data", f"{tmp_path / 'my_calibration_data.py'}:data"):
        found = load_calibration(spec)
        assert (found.input_shape, found.source) == ((1, 4, 4), spec)
    for name, message in (
        ("broken", r"raised RuntimeError \(disk on fire\)"),
        ("number", "is of type int; accepted is a torch Dataset"),
        ("dta", "did you mean data"),
    ):
        with pytest.raises(CalibrationError, match=message):
            load_calibration(f"my_calibration_data:{name}")
    with pytest.raises(CalibrationError, match="cannot be imported"):
        load_calibration("no_such_module_of_mine:data")


# Preprocessing


@pytest.mark.parametrize("size", [(50, 37), (37, 50), (24, 24), (20, 31)])
def test_resize_and_crop_agree_with_torchvision(tmp_path: Path, size: tuple[int, int]) -> None:
    import_torchvision()
    from torchvision import transforms

    # A picture with edges but not of pure noise, like a photograph.
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    for i in range(2):
        small.rotate(90 * i).resize(size, Image.Resampling.BICUBIC).save(tmp_path / f"{i}.png")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    options = Preprocessing(resize=24, crop=20, mean=mean, std=std)
    found = load_calibration(tmp_path, preprocessing=options)
    steps = transforms.Compose(
        [
            transforms.Resize(24),
            transforms.CenterCrop(20),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    expected = [steps(Image.open(tmp_path / f"{i}.png")) for i in range(2)]
    level = 1 / 255 / min(std)
    for image in all_images(found):
        differences = [float((image - other).abs().max()) for other in expected]
        assert min(differences) <= 1.01 * level


def test_bgr_is_turned_before_normalisation(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", pictures(40))
    rgb = load_calibration(path, preprocessing=PLAIN)
    mean = (0.1, 0.2, 0.3)
    turned = Preprocessing(mean=mean, std=(1.0,), channel_order=ChannelOrder.BGR)
    bgr = load_calibration(path, preprocessing=turned)
    torch.testing.assert_close(
        bgr.fitting.images, rgb.fitting.images.flip(1) - torch.tensor(mean).view(1, 3, 1, 1)
    )


def test_grey_images_for_a_colour_model_and_back(tmp_path: Path) -> None:
    grey = save_npz(tmp_path / "grey.npz", pictures(40, channels=1))
    found = load_calibration(grey, preprocessing=PLAIN, input_shape=(3, 8, 8))
    assert noted(found, "40 of 40 images were converted to colour")
    assert torch.equal(found.fitting.images[:, 0], found.fitting.images[:, 2])
    assert load_calibration(grey, preprocessing=Preprocessing(mean=(0.1, 0.2, 0.3))).input_shape == (3, 8, 8)
    colour = save_npz(tmp_path / "colour.npz", pictures(40))
    found = load_calibration(colour, preprocessing=PLAIN, input_shape=(1, 8, 8))
    assert found.input_shape == (1, 8, 8)
    assert noted(found, "converted to grey")
    pillow = torch.stack(
        [torch.from_numpy(np.array(Image.fromarray(p).convert("L"))).float() / 255 for p in pictures(40)]
    )
    ours = all_images(found)[:, 0].flatten(1).sort(0).values
    assert float((ours - pillow.flatten(1).sort(0).values).abs().max()) <= 1 / 255


@pytest.mark.parametrize(
    ("wanted", "remedy"),
    [
        ((3, 16, 16), r"--resize 16 --crop 16, or --input-shape 3x8x8"),
        ((3, 8, 16), r"--input-shape 3x8x8"),
        ((6, 8, 8), r"give images with 6 channels"),
    ],
)
def test_images_that_do_not_fit_the_model(tmp_path: Path, wanted: tuple[int, ...], remedy: str) -> None:
    path = save_npz(tmp_path / "a.npz", pictures(4))
    with pytest.raises(
        CalibrationError, match=rf"\(3, 8, 8\) .* takes \({', '.join(map(str, wanted))}\).*{remedy}"
    ):
        load_calibration(path, input_shape=wanted)


def test_a_model_whose_input_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"\(10,\), which is no image"):
        load_calibration(save_npz(tmp_path / "a.npz", pictures(4)), input_shape=(10,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Preprocessing(crop=9), "8x8 pixels, smaller than --crop 9; give --resize 9"),
        (Preprocessing(resize=0), "--resize 0"),
        (Preprocessing(crop=-1), "--crop -1"),
        (Preprocessing(mean=(0.1, 0.2)), "--mean has 2 values, but .* has 3 channels"),
        (Preprocessing(mean=(0.1,), std=(1.0, 1.0)), "--std has 2 values"),
        (Preprocessing(std=(1.0, 0.0, 1.0)), "--std .* from 1e-06 to"),
        (Preprocessing(mean=(float("nan"),)), "--mean .* from -8 to"),
        (Preprocessing(mean=()), "--mean .* from -8 to"),
    ],
)
def test_preprocessing_that_cannot_be_applied(tmp_path: Path, options: Preprocessing, message: str) -> None:
    kind = CalibrationError if options.crop == 9 else UsageError
    with pytest.raises(kind, match=message):
        load_calibration(save_npz(tmp_path / "a.npz", pictures(4)), preprocessing=options)


def test_the_card_beside_the_data_is_used_unless_options_are_given(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", pictures(40))
    (tmp_path / "a.toml").write_text("mean = [0.5, 0.4, 0.3]\nstd = 0.2\n")
    found = load_calibration(path)
    assert found.preprocessing == Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2,))
    assert found.warnings == ()
    assert load_calibration(path, preprocessing=PLAIN).preprocessing == PLAIN


def test_missing_normalisation_is_remarked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save_npz(tmp_path / "a.npz", pictures(40))
    with caplog.at_level(logging.WARNING, logger="edgeprune.calibration"):
        found = load_calibration(path, preprocessing=None)
    assert noted(found, "no normalisation was given")
    assert "no normalisation was given" in caplog.text
    assert found.preprocessing == Preprocessing()
    assert noted(
        load_calibration(path, preprocessing=Preprocessing(mean=(0.5,))), "--mean was given without --std"
    )


# Advice


def test_advice(tmp_path: Path) -> None:
    images = pictures(40)
    images[1] = images[0]
    images[2] = 7
    labels = np.array([0] * 38 + [1] * 2)
    labels[1] = 1
    found = load_calibration(save_npz(tmp_path / "a.npz", images, labels=labels), preprocessing=PLAIN)
    assert noted(found, "1 of the 40 images are exact copies")
    assert len(found.fitting) + len(found.held_out) in (39, 40)
    assert noted(found, "copies of an image have different labels")
    assert noted(found, "1 images have a single value everywhere, such as image 2")
    assert noted(found, "strongly unbalanced: 37 images of label 0, 3 of label 1")
    found = load_calibration(
        save_npz(tmp_path / "b.npz", pictures(31), labels=np.full(31, 5)), preprocessing=PLAIN
    )
    assert noted(found, "only 31 calibration images")
    assert noted(found, "a single class (label 5)")


def test_too_many_images_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_npz(tmp_path / "a.npz", pictures(40))
    monkeypatch.setattr(limits, "MEMORY_LIMIT_BYTES", 20 * 3 * 8 * 8 * 4)
    with pytest.raises(CalibrationError, match=r"GiB of memory.*--max-images"):
        load_calibration(path, preprocessing=PLAIN)
    assert len(all_images(load_calibration(path, preprocessing=PLAIN, max_images=20))) == 20


# Splitting


def test_parts_are_disjoint_complete_and_seeded(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", pictures(41))
    found, again, other = (load_calibration(path, preprocessing=PLAIN, seed=s) for s in (0, 0, 1))
    assert (len(found.fitting), len(found.held_out)) == (31, 10)
    expected = torch.from_numpy(pictures(41)).permute(0, 3, 1, 2).float() / 255
    assert same_images(all_images(found), expected)
    assert torch.equal(found.fitting.images, again.fitting.images)
    assert torch.equal(found.held_out.images, again.held_out.images)
    assert not same_images(found.held_out.images, other.held_out.images)
    assert found.fingerprint_sha256 == again.fingerprint_sha256 == other.fingerprint_sha256


@pytest.mark.parametrize(("fraction", "kept"), [(0.001, 1), (0.25, 1), (0.5, 2), (0.999, 3)])
def test_both_parts_have_an_image(tmp_path: Path, fraction: float, kept: int) -> None:
    path = save_npz(tmp_path / "a.npz", pictures(4), labels=np.array([0, 0, 1, 1]))
    found = load_calibration(path, preprocessing=PLAIN, held_out_fraction=fraction)
    assert (len(found.fitting), len(found.held_out)) == (4 - kept, kept)


def test_max_images_draws_each_class_in_proportion(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    path = save_npz(tmp_path / "a.npz", pictures(100), labels=labels)
    found = load_calibration(path, preprocessing=PLAIN, max_images=20)
    assert all_labels(found).bincount().tolist() == [12, 6, 2]
    whole = load_calibration(path, preprocessing=PLAIN, max_images=1000)
    assert len(all_images(whole)) == 100
    assert found.fingerprint_sha256 != whole.fingerprint_sha256


@pytest.mark.parametrize(
    "options",
    [
        {"held_out_fraction": 0.0},
        {"held_out_fraction": 1.0},
        {"held_out_fraction": float("nan")},
        {"max_images": 1},
        {"seed": -1},
    ],
)
def test_options_out_of_range(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="was given"):
        load_calibration(save_npz(tmp_path / "a.npz", pictures(4)), **options)


def test_drawing_leaves_a_class_its_last_image() -> None:
    labels = [0] * 10 + [1]
    for seed in range(20):
        assert 10 not in draw(3, 11, labels, np.random.default_rng(seed))
    assert draw(2, 3, [0, 1, 2], np.random.default_rng(0)) == sorted(
        draw(2, 3, [0, 1, 2], np.random.default_rng(0))
    )
    assert [held_out_count(n, 0.25) for n in (2, 3, 4, 100)] == [1, 1, 1, 25]


# Fingerprint


def test_the_fingerprint_covers_pixels_labels_and_preprocessing(tmp_path: Path) -> None:
    images, labels = pictures(40), np.arange(40) % 2
    changed, relabelled = images.copy(), labels.copy()
    changed[3, 0, 0, 0] ^= 1
    relabelled[3] ^= 1

    def print_of(images: Any, options: Preprocessing = PLAIN, **more: Any) -> str:
        path = save_npz(tmp_path / "a.npz", images, **more)
        return load_calibration(path, preprocessing=options).fingerprint_sha256

    reference = print_of(images, labels=labels)
    others = {
        print_of(changed, labels=labels),
        print_of(images, labels=relabelled),
        print_of(images),
        print_of(images, Preprocessing(mean=(0.0,), std=(2.0,)), labels=labels),
    }
    assert len(others | {reference}) == 5
    assert print_of(images, labels=labels) == reference


def test_the_fingerprint_does_not_depend_on_names(tmp_path: Path) -> None:
    prints = []
    for folder in (save_images(tmp_path / "a", 5), save_images(tmp_path / "b", 5)):
        if folder.name == "b":
            for path in folder.iterdir():
                path.rename(path.with_name(f"renamed-{path.name}"))
        prints.append(load_calibration(folder, preprocessing=PLAIN).fingerprint_sha256)
    assert prints[0] == prints[1]


@given(st.permutations(range(9)))
def test_images_are_put_in_order_in_place(order: list[int]) -> None:
    images = torch.arange(18.0).view(9, 2)
    expected, place = images[order], images.data_ptr()
    put_in_order(images, order)
    assert torch.equal(images, expected)
    assert images.data_ptr() == place


@pytest.mark.parametrize("seed", range(5))
def test_held_out_images_are_distinct_and_no_copies_of_those_to_fit_with(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = pictures(30, seed=seed)[rng.integers(0, 30, 120)]
    found = load_calibration(save_npz(tmp_path / "copies.npz", chosen), preprocessing=PLAIN, seed=seed)
    fitting, held = ({i.numpy().tobytes() for i in part.images} for part in (found.fitting, found.held_out))
    assert len(held) == len(found.held_out)
    assert len(held) == 1 or not held & fitting
    left_out = 120 - len(found.fitting) - len(found.held_out)
    assert len(found.fitting) == 90
    assert noted(
        found, f"{left_out} held-out images are copies of others and do not count: {len(held)} judge"
    )


def test_of_copies_alone_one_is_held_out(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "copies.npz", np.repeat(pictures(1), 40, axis=0))
    found = load_calibration(path, preprocessing=PLAIN)
    assert (len(found.fitting), len(found.held_out)) == (30, 1)
