"""What is typed: each command with valid inputs, of which a format's mutator replaces one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz_seeds import RATIO_RUN, SEARCH
from fuzz_values import NUMBERS, odd_text

THREADS = ("--threads", "1")
APPLY = "apply"
"""Stands for ``edgeprune.apply_surgery``, which has no command."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Arguments that name input files; ``odd_options`` asks for odd values of other options."""

    model: tuple[str, ...]
    shape: tuple[str, ...]
    onnx: str
    valid_onnx: str
    valid_model: tuple[str, ...]
    data: tuple[str, ...]
    target: tuple[str, ...]
    ratio: tuple[str, ...]
    ranking: tuple[str, ...]
    search: str
    valid_search: str
    surgery: str
    nets: str
    budget: str
    swept: str
    cache: str
    result: str
    odd_options: bool = False

    @classmethod
    def of(cls, seeds: Path) -> Inputs:
        """All valid."""
        architecture = ("--arch", f"{seeds / 'nets.py'}:small")
        return cls(
            model=(str(seeds / "small.pt"), *architecture),
            shape=("--input-shape", "1x8x8"),
            onnx=str(seeds / "model.onnx"),
            valid_onnx=str(seeds / "model.onnx"),
            valid_model=(str(seeds / "dynamic.pt2"),),
            data=("--calibration", str(seeds / "grey.npz")),
            target=("--target", "rpi4"),
            ratio=("--ratio", "0.25"),
            ranking=(),
            search=str(seeds / "search"),
            valid_search=str(seeds / "search"),
            surgery=str(seeds / "search"),
            nets=str(seeds / "nets.py"),
            budget=str(seeds / "budget.toml"),
            swept=str(seeds / "swept"),
            cache=str(seeds / "cache"),
            result=str(seeds / "result.json"),
        )


Command = Callable[[random.Random, Inputs], tuple[str, ...]]


def _inspect(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    graph = rng.choice(((), (), ("--graph", "out.svg"), ("--graph", "out.html")))
    # Half of the time data tell the shape.
    shape = i.shape if rng.random() < 0.5 and i.data[:1] != ("--card",) and _is_seed(i.data) else i.data[:2]
    return _with(rng, i, "inspect", *i.model, *shape, *graph)


def _is_seed(data: Sequence[str]) -> bool:
    return data[1:2] == () or data[1].startswith("/")


def _compress(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    more = rng.choice((("--dry-run",), ("--dry-run",), ("-o", "out"), ("-o", "out", "--precision", "int8")))
    more = (*more, *i.ranking, *i.ratio, *i.target)
    return _with(rng, i, "compress", *i.model, *i.data, *THREADS, "--effort", "quick", *more)


def _search(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    more = rng.choice((("--dry-run",), ("--dry-run",), ("-o", "out")))
    return _with(rng, i, "compress", *i.model, *i.data, *SEARCH, *more)


def _resume(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    return ("compress", *i.model, *i.data, *RATIO_RUN, "--resume", "-o", "out")


def _rank(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    names = rng.sample(("l1", "hybrid", "taylor", "batch-norm", "geometric-median", "random", "zeros"), 2)
    criteria = [word for name in names for word in ("--criterion", name)]
    return _with(rng, i, "rank", *i.model, *i.data, *THREADS, "--effort", "quick", *criteria, "-o", "out")


def _quantize(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    precision = rng.choice(("int8", "int8", "fp16", "auto"))
    more = rng.choice(((), ("--ranges", "minmax"), ("--ranges", "percentile")))
    target = () if precision == "auto" and i.target == ("--target", "rpi4") else i.target
    return _with(
        rng, i, "quantize", i.onnx, *i.data, *THREADS, "--precision", precision, *target, *more,
        "-o", "out.onnx",
    )  # fmt: skip


def _profile(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    target = rng.choice(((), i.target)) if i.target == ("--target", "rpi4") else i.target
    baseline = rng.choice(((), (), ("--baseline", i.valid_onnx)))
    return _with(rng, i, "profile", i.onnx, *THREADS, *target, *baseline)


def _verify(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    pair = rng.sample((i.onnx, i.valid_onnx), 2)
    return _with(rng, i, "verify", *pair, *i.data, *THREADS)


def _verify_models(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    return _with(rng, i, "verify", i.model[0], i.valid_model[0], *i.model[1:], *i.data, *THREADS)


def _inspect_onnx(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    return _with(rng, i, "inspect", i.onnx)


def _targets(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    return _with(rng, i, "targets", "show", i.target[1])


def _pick(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    limit = rng.choice((("--max-drop", "100"), ("--max-size", "4kB"), ("--max-latency", "50%")))
    output = rng.choice(((), ("-o", "out")))
    return _with(rng, i, "pick", i.search, *limit, *output)


def _check(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    against = rng.choice((("--budget", i.budget), ("--budget", i.budget), ("--baseline", i.valid_search)))
    more = rng.choice(((), ("--junit", "out.xml"), ("--summary", "out.md"), ("--comment", "out.md")))
    pair = (i.search, *against) if rng.random() < 0.8 else (i.valid_search, "--baseline", i.search)
    return _with(rng, i, "check", *pair, *THREADS, "--time-limit", "1s", *more)


def _sweep(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    only = rng.choice(((), (), ("--only", "*_rpi4_*")))
    run = ("--max-parallel", "1", "--cache", i.cache, "-o", "out")
    return _with(rng, i, "sweep", "sweep.toml", *run, *only)


def _check_sweep(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    against = rng.choice((("--budget", i.budget), ("--baseline", i.swept)))
    return _with(rng, i, "check", "swept", *against, *THREADS, "--time-limit", "1s")


def _compare_sweeps(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    pair = rng.choice((("swept", i.swept), (i.swept, "swept")))
    return _with(rng, i, "compare", *pair, *THREADS, "--no-measure")


def _compare(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    subjects = [i.search, i.onnx, i.valid_search, i.valid_onnx]
    changed = [s for s in subjects[:2] if not s.startswith("/")] or subjects[:1]
    pair = [changed[0], rng.choice([s for s in subjects if s != changed[0]])]
    rng.shuffle(pair)
    more = rng.choice(((), ("--html", "out.html"), ("--markdown", "out.md")))
    return _with(rng, i, "compare", *pair, *THREADS, "--no-measure", *more)


def _import(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    more = rng.choice((("--dry-run",), ("-o", "out")))
    return ("compress", i.onnx, *i.data, *THREADS, "--effort", "quick", *i.ratio, *i.target, *more)


def _recorded(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    return _with(rng, i, "profile", i.valid_onnx, *THREADS, *i.target, "--result", i.result)


def _apply(rng: random.Random, i: Inputs) -> tuple[str, ...]:
    check = rng.choice(((), (f"{i.surgery}/model.pt2",)))
    return (APPLY, f"{i.nets}", f"{i.surgery}/surgery.json", f"{i.surgery}/weights.safetensors", *check)


COMMANDS: dict[str, Command] = {
    "inspect": _inspect,
    "compress": _compress,
    "search": _search,
    "resume": _resume,
    "rank": _rank,
    "quantize": _quantize,
    "profile": _profile,
    "verify": _verify,
    "verify-models": _verify_models,
    "inspect-onnx": _inspect_onnx,
    "targets": _targets,
    "pick": _pick,
    "check": _check,
    "compare": _compare,
    "import": _import,
    "sweep": _sweep,
    "check-sweep": _check_sweep,
    "compare-sweeps": _compare_sweeps,
    "recorded": _recorded,
    APPLY: _apply,
}

ODD_OPTIONS: dict[str, tuple[str, ...]] = {
    "inspect": ("--arch", "--weights", "--input-shape", "--calibration", "--attention-unit"),
    "compress": (
        "--arch", "--weights", "--input-shape", "--calibration", "--card", "--resize", "--crop", "--mean",
        "--std", "--channel-order", "--max-images", "--held-out", "--target", "--ratio", "--max-latency",
        "--max-size", "--max-memory", "--max-drop", "--finetune", "--recipe", "--ranking", "--criterion",
        "--precision", "--width-quantum", "--attention-unit", "--batch-size", "--effort", "--max-time",
        "--seed", "--threads", "--labels", "--letterbox", "--pad", "--ground",
    ),
    "rank": (
        "--card", "--resize", "--crop", "--mean", "--std", "--max-images", "--held-out", "--criterion",
        "--layer", "--ratio", "--max-evaluations", "--players", "--recover-at", "--effort", "--max-time",
        "--memory-limit", "--seed", "--threads", "--input-shape", "--letterbox", "--labels",
    ),
    "quantize": (
        "--calibration", "--card", "--resize", "--crop", "--mean", "--std", "--max-images", "--held-out",
        "--target", "--precision", "--ranges", "--keep-float", "--max-drop", "--seed", "--threads",
        "--letterbox", "--pad", "--labels",
    ),
    "profile": ("--target", "--baseline", "--batch-size", "--threads"),
    "verify": ("--arch", "--calibration", "--card", "--mean", "--max-images", "--tolerance", "--crop",
               "--labels"),
    "pick": ("--max-latency", "--max-size", "--max-memory", "--max-drop"),
    "check": ("--baseline", "--budget", "--inconclusive", "--time-limit", "--threads", "--timeout"),
    "compare": ("--threads", "--timeout"),
    "targets": (),
}  # fmt: skip
ODD_WORDS = (
    "1", "0.3", "3", "1e-3", "0x10", "1_000", "٣", "1,2,3", "8x8", "1x8x8", "50%", "4kB", "1B", "2min", "1s",
    "40ms", "0%", "100", "int8", "auto", "heads", "blocks", "thorough", "l1", "grey.npz",
    "torchvision:resnet18", "torchvision:none", "os:system", "builtins:print", "os.path:join",
    "nets.py:raises", "rgb", "host", ".",
)  # fmt: skip


def _with(rng: random.Random, inputs: Inputs, *arguments: str) -> tuple[str, ...]:
    """The command with ``--json``, ``-q`` or ``-v`` now and then, and odd values of options if asked for."""
    more = list(rng.choice(((), (), (), ("--json",), ("-q",), ("-v",), ("--json", "-q"))))
    if inputs.odd_options:
        known = ODD_OPTIONS[arguments[0]]
        for option in rng.sample(known, min(len(known), rng.choice((1, 1, 2, 3)))):
            more += [f"{option}={_word(rng)}"] if rng.random() < 0.5 else [option, _word(rng)]
        if not known or rng.random() < 0.1:
            more.append(_word(rng))
    return (*arguments, *more)


def _word(rng: random.Random) -> str:
    """A word that a process can be given."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(ODD_WORDS)
    if kind < 0.7:
        return str(rng.choice(NUMBERS))
    return odd_text(rng).replace("\0", "").encode("utf-8", "replace").decode()
