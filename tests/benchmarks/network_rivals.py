"""A closer look at ours and the best other of each cut: answers kept, errors righted, images nobody used."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from network_report import ROUNDS, Rivals, mean, table_row
from torch.fx import GraphModule
from trained_network import IMAGES, TrainedNetwork, packed, unpacked

Row = dict[str, Any]


def look(bench: TrainedNetwork, method: tuple[str, str], ratio: float, seed: int) -> dict[str, object]:
    """Agreement with the original on test images, and accuracy on training images that were not drawn."""
    name, mode = method
    if mode == ROUNDS:
        removed, _ = bench.plan_in_rounds(ratio, seed)
    else:
        removed = bench.plan(name, ratio, seed, uniform=mode == "uniform")
    images = bench.context(seed, ratio).images.images
    network: GraphModule = bench.recover(removed, images, seed).recovered
    outputs, original = bench.outputs(network), bench.original_outputs()
    was_right, is_right = bench.hits(original), bench.hits(outputs)
    return {
        "lost": int((was_right & ~is_right).sum()),
        "righted": int((is_right & ~was_right).sum()),
        "cross_entropy": float(torch.nn.functional.cross_entropy(outputs, bench.labels)),
        "same": packed((outputs.argmax(1) == original.argmax(1)).numpy()),
        "unused": packed(bench.unused(seed)),
        "right_in_training": packed(bench.hits_in_training(network)),
    }


def render_rivals(looks: list[tuple[Rivals, dict[tuple[str, int], Row]]], images: int = IMAGES) -> str:
    """The section below the verdict. Keys of the rows: criterion and seed."""
    text = (
        "\n## The same two, looked at more closely\n\n"
        "*Lost*: test images that the original tells rightly and the recovered network does not;\n"
        "*righted*: the other way round, which a network that differs more from the original does by\n"
        "chance on more images. *Same answer*: share of the test images on which both say the same.\n"
        f"*Unused training images*: accuracy on those of 10,000 that are not among the {images:,} drawn;\n"
        "the original was trained on them, but nothing that was chosen or recovered here has seen them.\n"
        "Means over seeds; differences in points, ours minus the other, seed by seed, then their mean\n"
        "with the standard error that the draw of images leaves.\n\n"
    )
    titles = ["cut", "criterion", "lost", "righted", "cross-entropy", "same answer", "unused training images"]
    text += table_row(titles) + table_row(["---"] * len(titles))
    for pair, found in looks:
        for name, mode in (pair.ours, pair.best):
            rows = [found[name, seed] for seed in pair.seeds]
            text += table_row(
                [
                    f"{pair.ratio:.0%}",
                    f"{name}, {mode}",
                    f"{mean(rows, 'lost'):.0f}",
                    f"{mean(rows, 'righted'):.0f}",
                    f"{mean(rows, 'cross_entropy'):.3f}",
                    f"{100 * np.mean([unpacked(r['same']).mean() for r in rows]):.2f}%",
                    f"{100 * np.mean([_unused_hits(r)[unpacked(r['unused'])].mean() for r in rows]):.2f}%",
                ]
            )
    text += "\n" + table_row(["cut", "same answer", "mean", "unused training images", "mean"])
    text += table_row(["---"] * 5)
    for pair, found in looks:
        pairs = [(found[pair.ours[0], seed], found[pair.best[0], seed]) for seed in pair.seeds]
        same = np.array([100.0 * (unpacked(a["same"]).astype(float) - unpacked(b["same"])) for a, b in pairs])
        training = np.array([100 * (_unused_hits(a) - _unused_hits(b)) for a, b in pairs])
        text += table_row([f"{pair.ratio:.0%}", *_difference(same), *_difference(training)])
    return text


def _difference(values: np.ndarray) -> list[str]:
    """Of values (seeds, images), not a number where an image does not count: by seed, and mean with error."""
    by_image = np.nanmean(values[:, ~np.isnan(values).all(0)], axis=0)
    error = by_image.std(ddof=1) / len(by_image) ** 0.5
    return [
        ", ".join(f"{x:+.2f}" for x in np.nanmean(values, axis=1)),
        f"{by_image.mean():+.2f} ± {error:.2f}",
    ]


def _unused_hits(row: Row) -> np.ndarray:
    hits = unpacked(row["right_in_training"]).astype(float)
    hits[~unpacked(row["unused"])] = np.nan
    return hits
