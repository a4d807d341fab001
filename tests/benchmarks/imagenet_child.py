"""One job of the ImageNet benchmark in a process of its own: ``imagenet_child.py TASK.json ANSWER.json``.

So its peak memory and CPU time are its own. Test images are read once the stage is over and measured.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from budget_peers import torch_pruning_plan
from code_digests import CODE_KEY, loaded_code
from imagenet_data import FITTING, TEST, Row, answers, judged, read_images
from imagenet_networks import SIZES, trained
from imagenet_onnxsim import pruned_by_onnxsim
from rounds_ranking import ranked_in_rounds
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune import parity
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.registry import criterion
from edgeprune.pruning.masking import mask_module
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.distillation.training import DistillationOptions, distill
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.recovery.splitting import SplitImages, split_images
from edgeprune.selection import select
from edgeprune.targets import load_target

OURS = "hybrid"
PEERS = {"Torch-Pruning, each layer alike": False, "Torch-Pruning, global": True}
"""Its magnitude, and whether it ranks over the network."""
TARGET = "rpi4"
_MOST_STEPS = 100_000


class Bench:
    """A network, the images of a seed, and what is common to all stages."""

    def __init__(self, task: Row) -> None:
        self.task = task
        self.seed = int(task["seed"])
        self._size = SIZES[task["network"]]
        self.module = trained(task["network"])
        self.captured = capture(self.module, (3, self._size, self._size))
        self.coupling = couple(self.captured)
        self.quantum = load_target(TARGET).width_quantum

    def images(self) -> Tensor:
        """Those to fit with, all, in an order of the seed."""
        found, _ = read_images(FITTING, self._size, self.task["images"])
        return found[torch.from_numpy(np.random.default_rng([self.seed, 2]).permutation(len(found)))]

    def split(self) -> SplitImages:
        """Those that are fitted to and those that decide, as ``compress`` splits them."""
        return split_images(self.images(), torch.Generator().manual_seed(self.seed))

    def removed(self) -> tuple[int, ...]:
        """Players that the plan takes away."""
        return tuple(json.loads(Path(self.task["plan"]).read_text())["removed"])

    def macs_removed(self, removed: tuple[int, ...]) -> float:
        """Share of the MACs that a plan saves."""
        return 1 - self.coupling.total_macs(self.coupling.removed_mask(removed)) / self.coupling.total_macs()

    def judge(self, *networks: Any) -> list[Row]:
        """Each on the test images, against the original."""
        images, labels = read_images(TEST, self._size, self.task["images"])
        original = answers(self.captured.graph_module, images)
        return [judged(answers(n, images), original, labels) for n in networks]

    def judge_onnx(self, path: str) -> Row:
        """An ONNX file on the test images, by onnxruntime."""
        images, labels = read_images(TEST, self._size, self.task["images"])
        found = parity.run_onnx(Path(path), images, threads=torch.get_num_threads())[0]
        return judged(torch.from_numpy(found), answers(self.captured.graph_module, images), labels)


@contextmanager
def measured(found: Row) -> Iterator[None]:
    """Put wall and CPU seconds of the block, and the most memory so far, into ``found``."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    found["seconds"], found["cpu_s"] = time.perf_counter() - wall, time.process_time() - cpu
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def original(task: Row) -> Row:
    """The network as it is."""
    bench = Bench(task)
    return bench.judge(bench.captured.graph_module)[0]


def plan(task: Row) -> Row:
    """What a method removes for a share of the MACs."""
    bench, found = Bench(task), Row()
    method, ratio = str(task["method"]), float(task["ratio"])
    images = bench.images()
    with measured(found):
        if method in PEERS:
            removed = torch_pruning_plan(
                bench.module, bench.coupling, images, importance="magnitude", global_pruning=PEERS[method],
                ratio=ratio, ignored=_classifier, round_to=bench.quantum,
            )  # fmt: skip
        else:
            costs = _ours(bench, images, ratio) if method == OURS else _scores(bench, images, method, ratio)
            removed = select(
                costs, bench.coupling, ratio=ratio, width_quantum=bench.quantum, adapt_quantum=True
            ).removed
    return {**found, "removed": list(removed), "macs_removed": bench.macs_removed(removed)}


def _classifier(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def _ours(bench: Bench, images: Tensor, ratio: float) -> np.ndarray:
    """Removal costs as ``compress`` finds them, in rounds where the cut is deep."""
    batch = ImageBatch(images=images, labels=None)
    found = ranked_in_rounds(
        bench.module, bench.captured, bench.coupling, batch, ratio=ratio, seed=bench.seed
    )
    return found.removal_costs


def _scores(bench: Bench, images: Tensor, method: str, ratio: float) -> np.ndarray:
    """Removal costs of a criterion that masks with zeros: none of our covariances, which cost time."""
    batch = ImageBatch(images=images, labels=None)
    reference = [answers(bench.captured.graph_module, images)]
    masked = mask_module(bench.captured, bench.coupling)
    game = MaskedGame(masked, bench.coupling.num_players, batch, reference)
    context = ScoringContext(
        captured=bench.captured, coupling=bench.coupling, images=batch, game=game, recovery_game=game,
        ratio=ratio,
    )  # fmt: skip
    rng = np.random.default_rng([bench.seed, 1])
    return criterion(method).score(context, rng=rng, advance=lambda _units: None).removal_costs


def recover(task: Row) -> Row:
    """Prune by the plan and recover; the weights go to ``state``."""
    bench, found = Bench(task), Row()
    removed, split = bench.removed(), bench.split()
    if task.get("training"):
        split = split.without_deciding(torch.Generator().manual_seed(bench.seed))
    bare = prune(bench.captured, bench.coupling, removed)
    with measured(found):
        recovered, report = reconstruct(
            bench.captured.graph_module, bare, bench.coupling, removed, split,
            generator=torch.Generator().manual_seed(bench.seed),
        )  # fmt: skip
    torch.save(recovered.state_dict(), task["state"])
    pruned, whole = bench.judge(bare, recovered)
    return {
        "pruned": pruned,
        "recovered": {**whole, **found, "notes": list(report.notes)},
        "macs_removed": bench.macs_removed(removed),
        "fitting_images": report.images,
        "deciding_images": report.deciding_images,
    }


def train(task: Row) -> Row:
    """Distil the original into what ``recover`` left in ``state``; the deciding images only judge."""
    bench, found = Bench(task), Row()
    removed, split = bench.removed(), bench.split()
    recovered: GraphModule = prune(bench.captured, bench.coupling, removed)
    recovered.load_state_dict(torch.load(task["state"], weights_only=True))
    limit_s = 60 * float(task["minutes"])
    with measured(found):
        pupil, report = distill(
            bench.captured.graph_module, recovered, bench.coupling, removed, split,
            generator=torch.Generator().manual_seed(bench.seed),
            options=replace(DistillationOptions(), steps=_MOST_STEPS, time_limit_s=limit_s),
            clock=time.process_time,
        )  # fmt: skip
    (judgement,) = bench.judge(pupil)
    more = {"steps": report.steps, "kept_step": report.kept_step, "learning_rate": report.learning_rate}
    return {**judgement, **found, **more}


def delivered(task: Row) -> Row:
    """An ONNX file of ours, judged."""
    return Bench(task).judge_onnx(task["onnx"])


TASKS: dict[str, Callable[[Row], Row]] = {
    "original": original,
    "plan": plan,
    "recover": recover,
    "train": train,
    "delivered": delivered,
    "onnxsim": pruned_by_onnxsim,
}


def main() -> None:
    """Do the task of the first file, write its answer to the second."""
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    found = TASKS[task["task"]](task)
    Path(sys.argv[2]).write_text(json.dumps({**found, CODE_KEY: loaded_code()}))


if __name__ == "__main__":
    main()
