"""Rendered text for the networks of a text reader, and how far two readings of it agree."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from shipped_answers import Detections, f1_of

SCENE, LINE = (320, 320), (48, 320)
"""Height and width of a scene and of a line."""
_WORDS = (
    *("invoice", "total", "amount", "2026", "street", "number", "47", "return", "exit", "platform", "river"),
    *("Monday", "18:30", "coffee", "3.50", "EUR", "ticket", "window", "garden", "model", "serial", "A7-311"),
    *("bread", "open", "closed", "north", "sugar", "paper", "light", "sale", "20%", "kilo", "station"),
)
_TEXT_FROM = 0.3


def text_lines(count: int, seed: int, size: tuple[int, int], *, turned: bool) -> list[Image.Image]:
    """Lines of text; where ``turned`` every other one is upside down."""
    rng, (height, width) = np.random.default_rng(seed), size
    found = []
    for number in range(count):
        picture, draw = _canvas(rng, size)
        text = " ".join(rng.choice(_WORDS, rng.integers(2, 5)))
        font = ImageFont.load_default(float(rng.uniform(0.45, 0.75) * height))
        draw.text((rng.uniform(2, 12), rng.uniform(0, 0.2) * height), text, _ink(rng), font=font)
        found.append(picture.rotate(180) if turned and number % 2 else picture)
        assert picture.size == (width, height)
    return found


def text_scenes(count: int, seed: int) -> list[Image.Image]:
    """Pictures with two to five lines of text."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        picture, draw = _canvas(rng, SCENE)
        for row in range(rng.integers(2, 6)):
            font = ImageFont.load_default(float(rng.uniform(14, 30)))
            text = " ".join(rng.choice(_WORDS, rng.integers(1, 4)))
            draw.text((rng.uniform(5, 120), 12 + 60 * row + rng.uniform(0, 15)), text, _ink(rng), font=font)
        found.append(picture)
    return found


def _canvas(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A light ground with a slope and noise."""
    height, width = size
    slope = np.linspace(0, 1, width)[None, :, None] * rng.uniform(-40, 40, 3)
    noise = rng.normal(0, 4, (height, width, 3))
    pixels = np.clip(rng.uniform(170, 255, 3) + slope + noise, 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    return picture, ImageDraw.Draw(picture)


def _ink(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 90, 3))
    return red, green, blue


def similarity(kind: str, before: NDArray[Any], after: NDArray[Any]) -> float:
    """Agreement of boxes (F1), of angles, or of characters (share of matching ones)."""
    if kind == "cls":
        return float((before.argmax(1) == after.argmax(1)).mean())
    if kind == "rec":
        pairs = [(_read(a), _read(b)) for a, b in zip(before, after, strict=True)]
        matched = [
            sum(m.size for m in difflib.SequenceMatcher(None, a, b, False).get_matching_blocks())
            for a, b in pairs
        ]
        return 2 * sum(matched) / max(1, sum(len(a) + len(b) for a, b in pairs))
    boxes = [[_boxes(image[0]) for image in maps] for maps in (before, after)]
    return float(f1_of(*boxes)["agreement"])


def _read(scores: NDArray[Any]) -> list[int]:
    """Characters of scores (steps, characters): the best of each step, repeats once, without blanks (0)."""
    best = scores.argmax(1)
    changes = np.concatenate([[True], best[1:] != best[:-1]])
    return [int(c) for c in best[changes & (best > 0)]]


def _boxes(text: NDArray[Any]) -> Detections:
    """Boxes around connected pixels that are text."""
    from scipy import ndimage

    numbered, _ = ndimage.label(text > _TEXT_FROM)
    places = [p for p in ndimage.find_objects(numbered) if (p[0].stop - p[0].start) > 3]
    corners = [(p[1].start, p[0].start, p[1].stop, p[0].stop) for p in places]
    count = len(corners)
    return Detections(
        np.array(corners, np.float32).reshape(-1, 4), np.ones(count, np.float32), np.zeros(count, np.int64)
    )
