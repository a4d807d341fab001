"""MTCNN's three networks with their weights (facenet-pytorch), cut by a quarter: do face boxes agree?

Calibration data are what each network is given when MTCNN looks at photographs; other photographs judge, each
network by itself in the place of its original, and all three together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Jobs, NotMeasuredError
from imagenet_data import FITTING, TEST
from models_shipped import Row, command, pictures
from numpy.typing import NDArray
from PIL import Image
from shipped_answers import Detections, f1_of, kept_boxes
from torch import Tensor, nn

from edgeprune import apply_surgery
from edgeprune.system.compat import import_torchvision

HERE = Path(__file__).resolve().parent
NETS = {"pnet": 48, "rnet": 24, "onet": 48}
"""The side of a network's input; P-Net takes any size."""
LOOKED_AT, MOST_CROPS = 250, 600
RATIO = 0.25
ALL = "all three"


def jobs(threads: int, photographs: Path | None) -> Jobs:
    """All in one job, since the last row needs the three networks."""
    return {"mtcnn": lambda work: faces(work, threads, photographs)}


def pnet() -> nn.Module:
    """The first network, which proposes."""
    return _network("PNet")


def rnet() -> nn.Module:
    """The second one, which sorts out."""
    return _network("RNet")


def onet() -> nn.Module:
    """The last one, which places the boxes."""
    return _network("ONet")


def _network(name: str) -> nn.Module:
    import_torchvision()
    try:
        from facenet_pytorch.models import mtcnn
    except ImportError as error:
        raise NotMeasuredError(str(error)) from error
    network: nn.Module = getattr(mtcnn, name)().eval()
    return network


def faces(work: Path, threads: int, photographs: Path | None) -> Row:
    """F1 of face boxes with each network cut, and with all of them."""
    detector = _detector()
    _keep_inputs(detector, work)
    cut, rows = {}, []
    for name in NETS:
        out = work / name
        seconds, said = command(
            "compress", _weights(detector, name, work), "--arch", f"{HERE / 'models_faces.py'}:{name}",
            "--calibration", str(work / f"{name}.npz"), "--ratio", f"{RATIO}", "-o", str(out), "--json",
            threads=threads,
        )  # fmt: skip
        share = json.loads(said)["pruning"]["macs_removed_share"]
        cut[name] = apply_surgery(getattr(detector, name), out / "surgery.json", out / "weights.safetensors")
        rows.append({"network": name, "macs_removed": share, **seconds})
    judged = [*list(pictures(FITTING))[LOOKED_AT:], *pictures(TEST), *_photographs(photographs)]
    whole = [_boxes(detector, picture) for picture in judged]
    rows.append({"network": ALL})
    rows = [row | _agreement(detector, cut, row["network"], judged, whole) for row in rows]
    with_faces = sum(len(found.scores) > 0 for found in whole)
    return {"rows": rows, "pictures": len(judged), "with_faces": with_faces}


def _agreement(
    detector: Any, cut: dict[str, nn.Module], network: str, judged: list[Image.Image], whole: list[Detections]
) -> Row:
    """F1 with the cut networks in place of the originals, which are put back."""
    own = {name: getattr(detector, name) for name in NETS if network in (name, ALL)}
    for name in own:
        setattr(detector, name, cut[name])
    found = f1_of(whole, [_boxes(detector, picture) for picture in judged])
    for name, original in own.items():
        setattr(detector, name, original)
    return found


def _detector() -> Any:
    """MTCNN with a suppression in Python: the compiled one is not in every torchvision."""
    _network("PNet")
    from facenet_pytorch.models import mtcnn
    from facenet_pytorch.models.utils import detect_face

    detect_face.batched_nms = _suppressed
    return mtcnn.MTCNN(keep_all=True, device=torch.device("cpu"), min_face_size=24)


def _suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, overlap: float) -> Tensor:
    order = torch.argsort(scores, descending=True, stable=True)
    kept = kept_boxes(boxes[order].numpy(), groups[order].numpy(), overlap)
    return order[torch.tensor(kept, dtype=torch.long)]


def _boxes(detector: Any, picture: Image.Image) -> Detections:
    with torch.no_grad():
        boxes, scores = detector.detect(picture)
    if boxes is None:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    return Detections(boxes.astype(np.float32), scores.astype(np.float32), np.zeros(len(boxes), np.int64))


def _keep_inputs(detector: Any, work: Path) -> None:
    """Write what each network is given for photographs, as calibration data; of P-Net's maps, crops."""
    rng, seen = np.random.default_rng(0), {name: [] for name in NETS}
    hooks = [
        getattr(detector, name).register_forward_pre_hook(
            lambda _module, given, n=name: seen[n].extend(_crops(given[0], NETS[n], rng))
        )
        for name in NETS
    ]
    for picture in list(pictures(FITTING))[:LOOKED_AT]:
        _boxes(detector, picture)
    for hook in hooks:
        hook.remove()
    for name, found in seen.items():
        order = rng.permutation(len(found))[:MOST_CROPS]
        np.savez(work / f"{name}.npz", images=np.stack([found[place] for place in order]))


def _crops(given: Tensor, side: int, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """Every input of that size, or one place of a larger one."""
    for image in given.numpy():
        height, width = image.shape[1:]
        if min(height, width) >= side:
            top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
            yield image[:, top : top + side, left : left + side].copy()


def _weights(detector: Any, name: str, work: Path) -> str:
    path = work / f"{name}.pt"
    torch.save(getattr(detector, name).state_dict(), path)
    return str(path)


def _photographs(folder: Path | None) -> list[Image.Image]:
    """Pictures of a folder, at most 640 pixels wide or high."""
    found = []
    for path in [] if folder is None else sorted(folder.iterdir()):
        with Image.open(path) as image:
            picture = image.convert("RGB")
        picture.thumbnail((640, 640))
        found.append(picture)
    return found


def render(rows: list[Row]) -> str:
    """One line a network."""
    row = rows[0]
    text = (
        f"Each of MTCNN's networks cut by {RATIO:.0%} of its MACs (`compress --ratio {RATIO}`, no training), "
        f"calibrated with what it\nis given for {LOOKED_AT} photographs. *F1* of face boxes (IoU .5) in "
        f"{row['pictures']} other photographs, of which {row['with_faces']}\nhave faces for the original, "
        "against those of the original.\n\n"
        "| cut | MACs removed | faces of the original | faces | F1 | s |\n|---|---|---|---|---|---|\n"
    )
    for each in row["rows"]:
        share = f"{each['macs_removed']:.1%}" if "macs_removed" in each else ""
        seconds = f"{each['seconds']:.0f}" if "seconds" in each else ""
        text += (
            f"| {each['network']} | {share} | {each['objects']} | {each['given']} | {each['agreement']:.3f} "
            f"| {seconds} |\n"
        )
    return text


if __name__ == "__main__":
    sys.exit("run bench_models.py --parts faces")
