"""EfficientNet-Lite on ImageNet images: accuracy at given cuts beside other methods, whole runs, peers.

Run as ``python tests/benchmarks/bench_imagenet.py --results FOLDER``; goes on where it stopped and
writes a page a part, ``docs/benchmarks/imagenet-PART.md``, from all that lies in FOLDER.
``--limit-minutes 0`` only writes. Where weights or images are missing a part is skipped with its reason.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import imagenet_accuracy
import imagenet_end_to_end
import imagenet_onnxsim
from common import Jobs, Part, run_parts
from imagenet_jobs import Settings

LITE1_RATIOS = (0.25,)


def _own_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--distill-minutes", type=float, default=10.0, help="0: no distillation")
    ratios = imagenet_accuracy.RATIOS
    parser.add_argument("--ratios", nargs="+", type=float, choices=ratios, default=list(ratios))
    methods = imagenet_accuracy.METHODS
    parser.add_argument("--methods", nargs="+", choices=methods, default=list(methods))
    parser.add_argument(
        "--images",
        type=int,
        help="at most so many of either kind: to try the script, with a folder of its own",
    )
    return parser


def _accuracy(network: int, title: str, settings: Settings, *, once: bool) -> Part:
    """The page of a network; ``once``: ours alone, at a quarter of the MACs, one seed."""

    def jobs(folder: Path, seeds: int, threads: int) -> Jobs:
        planned = imagenet_accuracy.cells(
            network,
            LITE1_RATIOS if once else imagenet_accuracy.RATIOS,
            (imagenet_accuracy.OURS,) if once else imagenet_accuracy.METHODS,
            settings.distill_minutes,
            1 if once else seeds,
        )
        return imagenet_accuracy.jobs(planned, folder, settings, threads)

    return Part(
        title=title,
        jobs=jobs,
        render=imagenet_accuracy.render,
        seeded=not once,
        lacks=partial(imagenet_accuracy.lacks, network),
    )


def _parts(settings: Settings) -> dict[str, Part]:
    return {
        "accuracy": _accuracy(
            0, "EfficientNet-Lite0 on ImageNet: what is left of accuracy", settings, once=False
        ),
        "end-to-end": Part(
            title="Whole runs at 224 pixels",
            jobs=lambda folder, _seeds, threads: imagenet_end_to_end.jobs(folder, settings, threads),
            render=imagenet_end_to_end.render,
            lacks=imagenet_end_to_end.lacks,
        ),
        "lite1": _accuracy(
            1, "EfficientNet-Lite1 on ImageNet, with what was settled on Lite0", settings, once=True
        ),
        "onnxsim": Part(
            title="onnxsim's own structured pruning",
            jobs=lambda folder, _seeds, threads: imagenet_onnxsim.jobs(folder, settings, threads),
            render=imagenet_onnxsim.render,
            lacks=imagenet_onnxsim.lacks,
        ),
    }


def main() -> None:
    """Read the options of this benchmark, and run."""
    own = _own_options()
    asked, _ = own.parse_known_args()
    settings = Settings(
        ratios=tuple(asked.ratios),
        methods=tuple(asked.methods),
        distill_minutes=asked.distill_minutes,
        images=asked.images,
    )
    run_parts("imagenet", __doc__, _parts(settings), threads=2, options_of_its_own=own)


if __name__ == "__main__":
    main()
