"""Feature maps and saliency maps of LeNet-1 on MNIST, as in the thesis' figures 3.3 and 5.2 and its outlook.

Run as ``python tests/benchmarks/bench_lenet_maps.py --scratch FOLDER``; writes
``docs/benchmarks/lenet-maps.md`` and the two figures that it shows. What a picture suggests is measured
besides, over several networks.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, folder_or_scratch, header, research_data, write_result
from lenet import Images, LeNet1, load_mnist, split_test_set, trained
from PIL import Image, ImageDraw

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.games.layer_game import LayerGame
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.storage.files import atomic_write_bytes

LAYERS = ("conv1", "conv2")
TILE, GAP, LABEL = 56, 4, 190
KEPT = 6
"""Of the second convolution's 12 filters, behind the saliency maps of the cut network."""
MAPS, SALIENCY = "lenet-feature-maps.png", "lenet-saliency.png"


@dataclass(frozen=True)
class Layer:
    """Exact Shapley values (p,) of a layer's filters with their standard errors over images, the best set of
    ``KEPT``, and how far each filter's map resembles the image (p,): the mean size of their correlation."""

    values: np.ndarray
    errors: np.ndarray
    best: np.ndarray
    likeness: np.ndarray


def main() -> None:
    """Train or load every network, value its filters, draw those of the first, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, help="keeps trained networks (default: a scratch folder)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = research_data()
    train_set, test_set = load_mnist(data, "train"), load_mnist(data, "test")
    found, agreements = [], []
    with folder_or_scratch(options.scratch) as folder:
        for seed in range(options.seeds):
            network = trained(folder, train_set, seed, options.epochs)
            images = split_test_set(test_set, seed).shapley
            layers = {name: valued(network, images, name) for name in LAYERS}
            found.append(layers)
            agreements.append(saliency_likeness(network, layers["conv2"].best, images))
            if seed == 0:
                shown = one_of_each(images)
                draw_maps(network, layers, shown)
                draw_saliency(network, layers["conv2"].best, shown)
            print(f"seed {seed}: conv1 {np.round(layers['conv1'].values, 3)}", flush=True)
    command = "python tests/benchmarks/bench_lenet_maps.py --scratch FOLDER"
    seeds = ", ".join(map(str, range(options.seeds)))
    text = header("LeNet-1's filters in pictures, and what the pictures show", command, seeds, 1)
    write_result("lenet-maps.md", text + render(found, agreements))


def valued(network: LeNet1, images: Images, name: str) -> Layer:
    """The filters of a layer, valued by the table of all their coalitions."""
    captured = capture(network, (1, 28, 28))
    coupling = couple(captured)
    players = next(g.players for g in coupling.groups if g.layers == (name,))
    with torch.no_grad():
        reference = [network(images.pixels)]
    batch = ImageBatch(images=images.pixels, labels=images.labels)
    table = CoalitionTable.of(LayerGame(captured, coupling, players, batch, reference))
    by_image = table.shapley()
    sizes = np.array([bin(code).count("1") for code in range(len(table.values))])
    means = np.where(sizes == min(KEPT, len(by_image)), table.means(), -np.inf)
    best = (int(means.argmax()) >> np.arange(len(by_image))) & 1 == 1
    return Layer(
        values=by_image.mean(axis=1),
        errors=by_image.std(axis=1, ddof=1) / by_image.shape[1] ** 0.5,
        best=best,
        likeness=likeness(maps_of(network, images.pixels)[name], images.pixels),
    )


def maps_of(network: LeNet1, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs of both convolutions behind tanh: (n, 4, 24, 24) and (n, 12, 8, 8)."""
    with torch.no_grad():
        first = torch.tanh(network.conv1(pixels))
        return {"conv1": first, "conv2": torch.tanh(network.conv2(torch.nn.functional.avg_pool2d(first, 2)))}


def likeness(maps: torch.Tensor, pixels: torch.Tensor) -> np.ndarray:
    """Mean size of the correlation (p,) of each filter's map (n, p, h, w) with the image in its place."""
    size = maps.shape[-1]
    edge = 2 if size == 24 else 6
    inner = pixels[:, :, edge:-edge, edge:-edge]
    pooled = torch.nn.functional.interpolate(inner, size=(size, size), mode="area")
    return correlation(maps, pooled.expand_as(maps)).abs().mean(0).numpy()


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's, over the last two dimensions; 0 where one is constant."""
    a, b = (x.flatten(-2) - x.flatten(-2).mean(-1, keepdim=True) for x in (a, b))
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp_min(1e-12)


def saliency(network: LeNet1, pixels: torch.Tensor, kept: np.ndarray | None = None) -> torch.Tensor:
    """Size of the gradient of the original's answer by every pixel (n, 1, 28, 28) (Simonyan et al., 2014)."""
    with torch.no_grad():
        answers = network(pixels).argmax(1)
    shown = pixels.clone().requires_grad_(True)
    first = torch.nn.functional.avg_pool2d(torch.tanh(network.conv1(shown)), 2)
    second = torch.tanh(network.conv2(first))
    if kept is not None:
        second = second * torch.from_numpy(kept).view(1, -1, 1, 1)
    scores = network.linear(torch.nn.functional.avg_pool2d(second, 2).flatten(1))
    (gradient,) = torch.autograd.grad(scores.gather(1, answers[:, None]).sum(), shown)
    return gradient.abs()


def saliency_likeness(network: LeNet1, best: np.ndarray, images: Images) -> tuple[float, float]:
    """Correlation of saliency before and after the cut: with the best filters kept, with the others kept."""
    before = saliency(network, images.pixels)
    after = [saliency(network, images.pixels, kept) for kept in (best, ~best)]
    kept, others = (float(correlation(before, each).mean()) for each in after)
    return kept, others


def one_of_each(images: Images) -> torch.Tensor:
    """The first image of each digit."""
    return torch.stack([images.pixels[int((images.labels == digit).nonzero()[0])] for digit in range(10)])


def draw_maps(network: LeNet1, layers: dict[str, Layer], shown: torch.Tensor) -> None:
    """Images, then the maps of every filter, each layer's from the highest value to the lowest."""
    rows = [("image", shown[:, 0])]
    maps = maps_of(network, shown)
    for name, layer in layers.items():
        for place in np.argsort(-layer.values):
            rows.append((f"{name}, filter {place}: {layer.values[place]:.3f}", maps[name][:, int(place)]))
    atomic_write_bytes(RESULTS / MAPS, montage(rows))


def draw_saliency(network: LeNet1, best: np.ndarray, shown: torch.Tensor) -> None:
    """Images and saliency maps: of the network, with the best half of its filters, with the other half."""
    rows = [("image", shown[:, 0]), ("all 12 filters", saliency(network, shown)[:, 0])]
    rows.append((f"the best {KEPT} of conv2", saliency(network, shown, best)[:, 0]))
    rows.append((f"the other {len(best) - KEPT}", saliency(network, shown, ~best)[:, 0]))
    atomic_write_bytes(RESULTS / SALIENCY, montage(rows))


def montage(rows: list[tuple[str, torch.Tensor]]) -> bytes:
    """PNG of labelled rows of tiles (k, h, w), each scaled to its own range."""
    columns = len(rows[0][1])
    picture = Image.new("L", (LABEL + columns * (TILE + GAP), len(rows) * (TILE + GAP)), 255)
    pen = ImageDraw.Draw(picture)
    for row, (label, tiles) in enumerate(rows):
        top = row * (TILE + GAP)
        pen.text((4, top + TILE // 2 - 6), label, fill=0)
        for column, tile in enumerate(tiles.numpy()):
            scaled = (tile - tile.min()) / max(float(tile.max() - tile.min()), 1e-12)
            small = Image.fromarray(np.rint(255 * scaled).astype(np.uint8))
            picture.paste(
                small.resize((TILE, TILE), Image.Resampling.NEAREST), (LABEL + column * (TILE + GAP), top)
            )
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def render(found: list[dict[str, Layer]], agreements: list[tuple[float, float]]) -> str:
    """The figures with captions, and what was measured over all networks."""
    text = (
        "LeNet-1 (filters of 5x5, tanh, average pooling, linear 192-10) trained on MNIST. Values are exact "
        "Shapley values of a layer's\nfilters (minus the cross-entropy on 1,000 test images, from the table "
        "of all coalitions), the other layer whole. Every tile is\nscaled to its own range, as in the "
        "thesis.\n\n## Feature maps\n\n"
        f"![maps of every filter]({MAPS})\n\n"
        "Network of seed 0: one image of each digit, then what every filter makes of it behind tanh, "
        "from the highest value to\nthe lowest, with the value.\n\n## Saliency\n\n"
        f"![saliency maps]({SALIENCY})\n\n"
        "The size of the gradient of the answer's score by every pixel (Simonyan et al., 2014, section 3): "
        f"of the network, with\nthe best {KEPT} of the second convolution's 12 filters (the set of highest "
        "value among all of that size), and with the others\nalone.\n\n## Measured over networks\n\n"
        "*likeness*: mean size of the correlation of a filter's map with the image in the same place.\n\n"
        "| seed | layer | values, highest first | likeness in that order | rank correlation |\n"
        "|---|---|---|---|---|\n"
    )
    ranks: dict[str, list[float]] = {name: [] for name in LAYERS}
    for seed, layers in enumerate(found):
        for name, layer in layers.items():
            order = np.argsort(-layer.values)
            ranks[name].append(rank_correlation(layer.values, layer.likeness))
            values = ", ".join(f"{layer.values[i]:.3f} ± {layer.errors[i]:.3f}" for i in order)
            alike = ", ".join(f"{layer.likeness[i]:.2f}" for i in order)
            text += f"| {seed} | {name} | {values} | {alike} | {ranks[name][-1]:+.2f} |\n"
    text += "\n" + "".join(
        f"- {name}: rank correlation of value and likeness {np.mean(r):+.2f} on average ({min(r):+.2f} to "
        f"{max(r):+.2f} over {len(r)} networks)\n"
        for name, r in ranks.items()
    )
    kept, others = (np.array(each) for each in zip(*agreements, strict=True))
    return text + (
        f"- saliency: correlation with the whole network's {kept.mean():.2f} ({kept.min():.2f} to "
        f"{kept.max():.2f}) with the best {KEPT} filters, {others.mean():.2f} ({others.min():.2f} to "
        f"{others.max():.2f}) with the other {KEPT}\n"
    )


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(x)).astype(float) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
